"""Folders of images: layouts, what is refused and in which words, and what is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.data import FileImages, load_dataset
from nge_search.data.decoding import load, to_tensor
from nge_search.data.image_transforms import centre
from nge_search.errors import UserError
from nge_search.settings.data import MOST_PIXELS, DataSection


def folder(root: Path, **settings: object) -> DataSection:
    return DataSection(name="folder", root=str(root), **settings)


def refusal(root: Path, **settings: object) -> str:
    """The one line with which the folder is refused, at loading or at decoding."""
    with pytest.raises(UserError) as caught:
        load_and_decode(folder(root, **settings))
    message = str(caught.value)
    assert "\n" not in message
    return message


def load_and_decode(config: DataSection) -> None:
    dataset = load_dataset(config)
    for source in (dataset.train, dataset.test):
        source.read(range(len(source)))


def relative(source: FileImages, root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in source.paths]


@pytest.mark.parametrize("test_name", ["test", "val", "valid"])
def test_divided_tree(test_name: str, write_tree: Callable) -> None:
    root = write_tree("train/cat", "train/ant", f"{test_name}/ant", f"{test_name}/cat", count=3)
    dataset = load_dataset(folder(root))
    assert dataset.classes == ("ant", "cat")
    assert (dataset.image_size, dataset.channels, dataset.notices) == (12, 3, ())
    files = [f"{name}/00{number}.png" for name in ("ant", "cat") for number in range(3)]
    assert relative(dataset.train, root) == [f"train/{file}" for file in files]
    assert relative(dataset.test, root) == [f"{test_name}/{file}" for file in files]
    assert dataset.train.labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    images = dataset.train.read([4, 1])
    for image, file in zip(images, (files[4], files[1])):
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(Image.open(root / "train" / file)))
    assert dataset.train.nbytes == dataset.train.read(torch.arange(6)).nbytes


def test_plain_tree_is_held_out_by_class(write_tree: Callable) -> None:
    root = write_tree("a", "b", count=10)
    (root / "README.txt").write_text("files beside the class folders are nobody's business")
    dataset = load_dataset(folder(root, test_fraction=0.3))
    assert dataset.notices == ("6 of 20 images are held out as test set (no labelled test folder)",)
    assert torch.bincount(dataset.test.labels_N).tolist() == [3, 3]
    assert torch.bincount(dataset.train.labels_N).tolist() == [7, 7]
    assert sorted(dataset.train.paths + dataset.test.paths) == sorted(map(str, root.glob("*/*.png")))
    again = load_dataset(folder(root, test_fraction=0.3, limit=6))
    assert again.test.paths == dataset.test.paths
    assert set(again.train.paths) < set(dataset.train.paths)


@pytest.mark.parametrize(
    ("folders", "too_high"),
    [
        (("new/cat", "new/dog", "old/cat", "old/dog"), True),
        (("new/images", "old/images"), False),  # as in Tiny-ImageNet
        (("new", "new/cat", "new/dog", "old/cat", "old/dog"), False),
        (("new/cat", "new/dog", "old/cat", "old/cow"), False),
    ],
)
def test_a_folder_too_high_is_said(folders: tuple[str, ...], too_high: bool, write_tree: Callable) -> None:
    """Where every class has its images in the same folders, which are then the classes, perhaps."""
    remark = (
        "classes are 'new', 'old'; each holds 'cat', 'dog': if these are the classes, "
        "data.root is one folder too high"
    )
    assert (remark in load_dataset(folder(write_tree(*folders))).notices) is too_high


def test_train_folder_alone_is_held_out_too(write_tree: Callable) -> None:
    dataset = load_dataset(folder(write_tree("train/a", "train/b", "extra/c", count=5)))
    assert dataset.classes == ("a", "b")
    assert (len(dataset.train), len(dataset.test)) == (8, 2)


def test_tiny_imagenets_official_layout(write_tree: Callable) -> None:
    root = write_tree("train/n02/images", "train/n01/images", "val/images", "test/images", count=4)
    (root / "train/n01/n01_boxes.txt").write_text("000.png\t0\t0\t5\t5\n")
    lines = [f"00{number}.png\t{'n02' if number % 2 else 'n01'}\t0\t0\t5\t5\n" for number in range(4)]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    dataset = load_dataset(folder(root))
    assert dataset.classes == ("n01", "n02")
    assert relative(dataset.train, root)[:2] == ["train/n01/images/000.png", "train/n01/images/001.png"]
    assert relative(dataset.test, root) == [f"val/images/00{number}.png" for number in (0, 2, 1, 3)]
    assert dataset.test.labels_N.tolist() == [0, 0, 1, 1]
    (root / "val/val_annotations.txt").write_text("000.png n01\n")
    assert "val_annotations.txt' line 1: expected a file name, a tab and a class" in refusal(root)


def test_hidden_files_and_folders_are_ignored(write_tree: Callable) -> None:
    root = write_tree("a", "b", ".git", "a/.cache", count=4)
    (root / "a/.DS_Store").write_bytes(b"\0")
    (root / ".hidden").write_bytes(b"\0")
    dataset = load_dataset(folder(root))
    assert dataset.classes == ("a", "b")
    assert len(dataset.train) + len(dataset.test) == 8


def test_class_folders_may_be_links(write_tree: Callable) -> None:
    root = write_tree("elsewhere/a", "root/b", count=4)
    os.symlink(root / "elsewhere/a", root / "root/a")
    assert load_dataset(folder(root / "root")).classes == ("a", "b")
    os.symlink(root / "elsewhere", root / "root/b/more")
    assert "holds a link to a folder" in refusal(root / "root")


def test_wrong_roots_are_refused(tmp_path: Path, write_tree: Callable) -> None:
    missing = tmp_path / "missing"
    assert refusal(missing).startswith(f"data.root={missing}: there is no such folder")
    file = tmp_path / "file"
    file.write_text("")
    assert refusal(file).startswith(f"data.root={file}: is a file")
    assert "has no class folders" in refusal(tmp_path)
    write_tree("only")
    assert "has a single class folder, 'only'" in refusal(tmp_path)
    (tmp_path / "void").mkdir()
    assert refusal(tmp_path) == f"class folder '{tmp_path}/void' holds no images; fill or remove it"


def test_a_segmentations_folder_is_called_one(write_tree: Callable) -> None:
    """Beside the images and masks it has lists, which are no images."""
    root = write_tree("JPEGImages", "SegmentationClass")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("000\n")
    assert "look like images and their masks or labels, not like classes; data.name=voc" in refusal(root)


def test_too_few_images_are_refused(write_tree: Callable) -> None:
    root = write_tree("plain/a", "plain/b", "split/train/a", "split/train/b", "split/val/a", "split/val/b", count=3)
    (root / "plain/b/000.png").unlink()
    assert "class 'b' has 2 images; at least 3 per class are needed" in refusal(root / "plain")
    for name in ("000.png", "001.png"):
        (root / "split/train/a" / name).unlink()
    assert "class 'a' has 1 images; at least 2 per class are needed" in refusal(root / "split")
    assert "data.limit=3: too few for 2 classes; at least 4" in refusal(
        write_tree("more/a", "more/b") / "more", limit=3
    )


def test_different_classes_are_refused(write_tree: Callable) -> None:
    root = write_tree("train/a", "train/b", "train/c", "test/a", "test/b")
    assert refusal(root) == "data.root: test/ lacks class 'c'; both folders need the same classes"
    root = write_tree("test/c", *(f"test/x{number}" for number in range(5)))
    assert "train/ lacks class 'x0', 'x1', 'x2' and 2 more" in refusal(root)


@pytest.mark.parametrize("name", ["notes.txt", "000.jpg", "noise"])
def test_files_that_are_no_images_are_named(name: str, write_tree: Callable) -> None:
    root = write_tree("a", "b")
    (root / "b" / name).write_text("not an image")
    says = "is not an image that can be read; move it out of the folders of images, or replace it"
    assert refusal(root) == f"'{root}/b/{name}' {says}"


def test_a_pipe_is_refused_without_waiting(write_tree: Callable) -> None:
    root = write_tree("a", "b")
    os.mkfifo(root / "a/pipe.png")
    assert "pipe.png' is a named pipe, not an ordinary file" in refusal(root)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif"])
@pytest.mark.parametrize("workers", [0, 3])
def test_truncated_files_are_named(suffix: str, workers: int, write_tree: Callable) -> None:
    root = write_tree("a", "b", size=(64, 64))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = root / f"b/broken.{suffix}"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refusal(root, workers=workers)


def test_file_that_disappears_is_named(write_tree: Callable) -> None:
    root = write_tree("a", "b")
    dataset = load_dataset(folder(root))
    os.unlink(dataset.train.paths[1])
    with pytest.raises(UserError, match=re.escape(f"'{dataset.train.paths[1]}' does not exist")):
        dataset.train.read([0, 1])


def test_enormous_images_are_refused(write_tree: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree("a", "b", size=(20, 20))
    assert "claims 20x20 pixels, more pixels than is safe to decode (399)" in refusal(root, max_pixels=399)
    load_and_decode(folder(root, max_pixels=400))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns above its limit: that is for the setting
    load_and_decode(folder(root, max_pixels=400))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # and raises above twice the limit
    assert "claims more pixels than is safe to decode" in refusal(root)


def test_the_largest_limit_is_pillows() -> None:
    """Beyond it, images would be refused whatever `data.max_pixels` says."""
    assert 2 * Image.MAX_IMAGE_PIXELS == MOST_PIXELS


def test_sizes_that_differ_need_a_setting(write_tree: Callable) -> None:
    root = write_tree("a", size=(12, 12))
    write_tree("b", size=(9, 15))
    message = refusal(root)
    assert "is 12x12" in message
    assert "is 9x15; set data.image_size" in message
    dataset = load_dataset(folder(root, image_size=8))
    assert dataset.train.read(range(4)).shape == (4, 3, 8, 8)


def test_oblong_images_need_a_setting(write_tree: Callable) -> None:
    root = write_tree("a", "b", size=(16, 12))
    assert refusal(root) == "images are 16x12, not square; set data.image_size"


def test_augmentation_must_fit_the_side_found(write_tree: Callable) -> None:
    root = write_tree("a", "b", size=(12, 12))
    assert refusal(root, cutout=8) == "data.cutout=8: too large for 12x12 images; at most 6"
    assert refusal(root, crop_padding=12).startswith("data.crop_padding=12: too large for 12x12 images")


def test_other_colours_become_rgb_and_are_counted(write_tree: Callable) -> None:
    root = write_tree("a", "b", count=6)
    path = root / "a/000.png"
    colour = Image.open(path).copy()
    grey, palette, alpha = colour.convert("L"), colour.quantize(17), colour.convert("RGBA")
    alpha.putalpha(30)
    grey.save(root / "a/001.png")
    grey.convert("1").save(root / "a/002.png")
    palette.save(root / "a/003.png", transparency=bytes(range(17)))
    alpha.save(root / "a/004.png")
    dataset = load_dataset(folder(root))
    assert dataset.notices[1:] == (
        "1 RGBA image was converted to RGB",
        "2 grey images were converted to RGB",
        "1 palette image was converted to RGB",
        "2 transparent images were put on white",
    )
    on_white = np.round(np.asarray(colour) * (30 / 255) + 255 * (225 / 255))
    opacity = np.asarray(palette)[:, :, None] / 255
    shown = np.round(np.asarray(palette.convert("RGB")) * opacity + 255 * (1 - opacity))
    where = {path: (source, at) for source in (dataset.train, dataset.test) for at, path in enumerate(source.paths)}
    for name, expected in (("001", grey.convert("RGB")), ("003", shown), ("004", on_white)):
        source, position = where[str(root / f"a/{name}.png")]
        np.testing.assert_allclose(source.read([position])[0].permute(1, 2, 0), np.asarray(expected), atol=1)


def test_deep_images_are_refused(write_tree: Callable) -> None:
    root = write_tree("a", "b")
    Image.fromarray(np.full((12, 12), 60_000, np.uint16)).save(root / "a/000.png")
    assert "a/000.png' has more than 8 bits per channel (mode I;16)" in refusal(root)


def test_limit_looks_only_into_the_images_it_takes(write_tree: Callable) -> None:
    """An image that the limit leaves out may be damaged: it is never opened."""
    root = write_tree("train/a", "train/b", "val/a", "val/b", count=30)
    taken = load_dataset(folder(root, limit=8)).train.paths
    left_out = [path for path in root.glob("train/*/*.png") if str(path) not in taken]
    assert len(left_out) == 52
    for path in left_out:
        path.write_bytes(b"damaged")
    dataset = load_dataset(folder(root, limit=8))
    assert dataset.train.paths == taken
    (root / "train/a/000.txt").write_text("not even named as an image: refused without being taken")
    assert "train/a/000.txt' is not an image" in refusal(root, limit=8)
    (root / "train/a/000.txt").unlink()
    assert torch.bincount(dataset.train.labels_N).tolist() == [4, 4]
    assert dataset.train.read(range(8)).shape == (8, 3, 12, 12)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (20, 20), (41, 27), (10, 10), (7, 30)])
def test_decoding_resizes_the_short_side_and_crops_the_centre(size: tuple[int, int], tmp_path: Path) -> None:
    """A linear ramp stays one under resizing, so every pixel's place in the original can be read back."""
    width, height = size
    side = 10
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = 6 * np.arange(width)
    ramp[..., 1] = 6 * np.arange(height)[:, None]
    path = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(path)
    image = to_tensor(centre(load(str(path)), side)).double().numpy()
    assert image.shape == (3, side, side)
    short = min(size)
    at = (np.arange(side) + 0.5) * short / side - 0.5
    inner = slice(1, -1)  # the filter is cut off at the border
    expected_x, expected_y = 6 * ((width - short) / 2 + at), 6 * ((height - short) / 2 + at)
    np.testing.assert_allclose(image[0, :, inner], np.tile(expected_x[inner], (side, 1)), atol=1.5)
    np.testing.assert_allclose(image[1, inner], np.tile(expected_y[inner, None], (1, side)), atol=1.5)


def test_threads_read_what_one_thread_reads(write_tree: Callable) -> None:
    root = write_tree("a", "b", count=40)
    one, many = (load_dataset(folder(root, workers=workers)).train for workers in (0, 4))
    assert torch.equal(one.read(range(len(one))), many.read(range(len(many))))
    assert one.read([]).shape == (0, 3, 12, 12)
