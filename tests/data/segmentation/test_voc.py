"""PASCAL VOC's layout: lists, masks of every kind, and what is refused with one line."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.dataset import IGNORED
from nge_search.data.segmentation.voc import load_voc
from nge_search.data.segmentation.voc_masks import VOC_CLASSES, voc_palette
from nge_search.errors import UserError
from nge_search.settings.segmentation import MaskedDataSection

SUBSET = Path(__file__).resolve().parents[4] / "shared" / "data" / "voc2012" / "voc2012_mini160.tar.xz"


def load(root: Path, **settings):
    return load_voc(MaskedDataSection(name="voc", root=str(root), **{"crop": 32, "workers": 0, **settings}))


def names(root: Path, part: str) -> list[str]:
    return (root / "ImageSets" / "Segmentation" / f"{part}.txt").read_text().split()


def write_list(root: Path, part: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_bytes(data)


def mask_of(root: Path, name: str, folder: str = "SegmentationClass") -> Path:
    return root / folder / f"{name}.png"


def test_the_palette():
    """Colours as the development kit's documentation shows them."""
    palette = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 255: (224, 224, 192)}
    assert {value: palette[value] for value in known} == known
    assert len(set(palette)) == 256
    assert len(VOC_CLASSES) == 21


def test_a_test_needs_no_training_images(voc_tree):
    root = voc_tree(1, 2)
    (root / "ImageSets" / "Segmentation" / "train.txt").unlink()
    with pytest.raises(UserError, match=r"train\.txt' does not exist"):
        load(root)
    section = MaskedDataSection(name="voc", root=str(root), train_set="train_aug", limit=1, workers=0)
    dataset = load_voc(section, test_only=True)
    assert (len(dataset.train), len(dataset.test), dataset.notices) == (0, 2, ())
    assert dataset.test.read([1]).shape == (1, 4, 60, 48)


@pytest.mark.parametrize("place", [".", "VOC2012", "VOCdevkit/VOC2012"])
def test_roots(place, voc_tree, tmp_path):
    tree = voc_tree(3, 2)
    root = tmp_path / "given"
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    tree.rename(root / place) if place != "." else tree.rename(root)
    dataset = load(root)
    assert (len(dataset.train), len(dataset.test)) == (3, 2)


def test_images_and_masks_are_read_as_they_are(voc_tree):
    root = voc_tree(4, 3)
    dataset = load(root)
    for source, part in ((dataset.train, "train"), (dataset.test, "val")):
        for position, name in enumerate(names(root, part)):
            pixels = source.read([position])[0]
            image = np.asarray(Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB"))
            truth = np.asarray(Image.open(mask_of(root, name)))
            np.testing.assert_array_equal(pixels[:3].permute(1, 2, 0), image)
            np.testing.assert_array_equal(pixels[3], truth)
            assert tuple(source.sizes_N2[position].tolist()) == truth.shape
            assert source.describe(position) == str(root / "JPEGImages" / f"{name}.jpg")
    crops = dataset.train.read(range(4), Draw(0, 0))
    assert crops.shape == (4, 4, 32, 32)
    assert torch.equal(dataset.train.read([2], Draw(0, 0))[0], crops[2])
    assert dataset.train.read([], Draw(0, 0)).shape[:2] == (0, 4)
    assert dataset.train.augments
    assert not dataset.test.augments


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA"])
def test_masks_of_other_modes(kind, voc_tree):
    root = voc_tree(2, 1)
    path = mask_of(root, "train_000")
    truth = np.asarray(Image.open(path))
    if kind == "L":
        Image.fromarray(truth).save(path)
    else:
        colours = np.array(voc_palette(), dtype=np.uint8)[truth]
        Image.fromarray(colours).convert(kind).save(path)
    np.testing.assert_array_equal(load(root).train.read([0])[0, 3], truth)


def test_the_palette_of_a_mask_may_give_vocs_colours_in_another_order(voc_tree):
    root = voc_tree(2, 1)
    path = mask_of(root, "train_000")
    truth = np.asarray(Image.open(path))
    present = sorted(set(truth.flatten().tolist()), reverse=True)
    image = Image.fromarray(np.vectorize(present.index)(truth).astype(np.uint8))
    image.putpalette([part for value in present for part in voc_palette()[value]])
    image.save(path)
    np.testing.assert_array_equal(load(root).train.read([0])[0, 3], truth)
    np.testing.assert_array_equal(load(root).train.read_mask(0), truth)


def test_masks_with_values_numbered_file_by_file_are_refused(voc_tree):
    """As they are where masks of the user's own colours are converted to palettes one by one."""
    root = voc_tree(2, 1)

    def paint(name: str, *colours: tuple[int, int, int]) -> None:
        image = Image.open(mask_of(root, name))
        image.putpalette([part for colour in colours for part in colour])
        image.save(mask_of(root, name))

    red, green, blue = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    paint("train_000", (0, 0, 0), red, green)
    for other in ((red, (0, 0, 0)), ((0, 0, 0), green), ((9, 9, 9), blue, red)):
        paint("val_000", *other)
        with pytest.raises(UserError, match="do not mean the same class in all files"):
            load(root)
    for other in (((0, 0, 0), red, green, blue), ((0, 0, 0), blue), (green, (1, 1, 1), green), ((7, 7, 7), red)):
        paint("val_000", *other)
        assert len(load(root).test) == 1


def test_other_names_of_files_change_nothing(voc_tree):
    root = voc_tree(3, 2)
    before = load(root).train.read([1])
    (root / "JPEGImages" / "train_001.jpg").rename(root / "JPEGImages" / "train 1.x.JPG")
    mask_of(root, "train_001").rename(root / "SegmentationClass" / "train 1.x.PNG")
    write_list(root, "train", "\ufefftrain_000\r\ntrain 1.x \r\ntrain_002\r\n")
    dataset = load(root)
    assert torch.equal(dataset.train.read([1]), before)
    assert dataset.train.describe(1) == str(root / "JPEGImages" / "train 1.x.JPG")


def test_images_of_one_name_in_two_folders_are_two(voc_tree):
    root = voc_tree(2, 1)
    for part in ("JPEGImages", "SegmentationClass"):
        (root / f"More{part}").mkdir()
        (file,) = (root / part).glob("train_001.*")
        file.rename(root / f"More{part}" / file.name.replace("001", "000"))
    lines = (f"/{m}JPEGImages/train_000.jpg /{m}SegmentationClass/train_000.png\n" for m in ("", "More"))
    write_list(root, "train", "".join(lines))
    train = load(root).train
    assert len(train) == 2
    assert not torch.equal(train.read_mask(0)[:37, :48], train.read_mask(1)[:37, :48])


def test_what_decoding_changes_is_told(voc_tree):
    root = voc_tree(2, 1)
    path = root / "JPEGImages" / "train_001.jpg"
    clear = Image.open(path).convert("RGBA")
    clear.putalpha(128)
    clear.save(path.with_suffix(".png"))
    path.unlink()
    assert "1 transparent image was put on white" in load(root).notices


def test_train_aug_is_taken_where_it_is_there(voc_tree):
    root = voc_tree(3, 2)
    assert load(root).notices == (f"no train_aug list in '{root}': training on the 3 images of train.txt",)
    assert load(root, train_set="train").notices == ()
    (root / "SegmentationClassAug").mkdir()
    other = Image.fromarray(np.full((48, 60), 7, np.uint8))
    other.save(mask_of(root, "train_000", "SegmentationClassAug"))
    write_list(root, "trainaug", "train_000\ntrain_002\n")
    found = load(root)
    assert (len(found.train), found.notices) == (2, ())
    assert (found.train.read([0])[0, 3] == 7).all()
    assert not (found.train.read([1])[0, 3] == 7).all()  # its mask is in SegmentationClass/ only
    assert len(load(root, train_set="train").train) == 3
    write_list(root, "trainaug", "/JPEGImages/train_000.jpg /SegmentationClassAug/train_000.png\r\n\r\n")
    assert (load(root, train_set="train_aug").train.read([0])[0, 3] == 7).all()


def test_limit_takes_the_same_images_for_every_seed(voc_tree):
    root = voc_tree(9, 1)
    chosen = [load(root, limit=4).train.describe(i) for i in range(4)]
    assert chosen == sorted(chosen)
    assert len(set(chosen)) == 4
    assert chosen == [load(root, limit=4).train.describe(i) for i in range(4)]
    assert len(load(root, limit=100).train) == 9


def test_the_fingerprint_changes_with_the_images(voc_tree):
    root = voc_tree(4, 2)
    before = load(root).fingerprint
    assert load(root).fingerprint == before
    assert load(root, limit=3).fingerprint != before


Damage = Callable[[Path], object]


def no_folder(name: str) -> Damage:
    return lambda root: (root / name).rename(root / "gone")


def masked_with(value: int) -> Damage:
    def damage(root: Path) -> None:
        truth = np.array(Image.open(mask_of(root, "train_001")))
        truth[5, 5] = value
        Image.fromarray(truth).save(mask_of(root, "train_001"))

    return damage


def other_mask(image: Image.Image) -> Damage:
    return lambda root: image.save(mask_of(root, "train_001"))


def cut(path: str) -> Damage:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:300])


REFUSED: dict[str, tuple[Damage, str]] = {
    "no images": (no_folder("JPEGImages"), "holds no JPEGImages/ with ImageSets"),
    "no list": (lambda root: (root / "ImageSets/Segmentation/val.txt").unlink(), "val.txt' does not exist"),
    "empty list": (lambda root: write_list(root, "train", "\n  \n"), "train.txt' is empty"),
    "binary list": (
        lambda root: write_list(root, "train", b"\xff\xfe\x00"),
        "train.txt' is not a text file (UTF-8)",
    ),
    "twice": (lambda root: write_list(root, "train", "train_000\ntrain_000\n"), "names 'train_000' twice"),
    "in both": (lambda root: write_list(root, "val", "val_000\ntrain_000\n"), "is in the training list and in val"),
    "path": (lambda root: write_list(root, "train", "../secret\n"), "'../secret' is neither a name nor"),
    "one path": (lambda root: write_list(root, "train", "/JPEGImages/a.jpg\n"), "is neither a name nor the paths"),
    "no image": (lambda root: write_list(root, "train", "none\n"), "none.jpg' of list"),
    "no mask": (lambda root: mask_of(root, "train_001").unlink(), "train_001.jpg' has no mask '"),
    "size": (other_mask(Image.new("L", (10, 20))), "train_001.png' is 10x20, its image '"),
    "unknown class": (masked_with(21), "train_001.png' has the value 21; allowed are 0 to 20, and 255"),
    "border": (masked_with(254), "has the value 254;"),
    "colour": (
        other_mask(Image.new("RGB", (48, 60), (1, 2, 3))),
        "with the colour (1, 2, 3), which is not in VOC's",
    ),
    "deep": (other_mask(Image.new("I;16", (48, 60), 5120)), "has the value 5120; allowed are 0 to 20"),
    "damaged mask": (cut("SegmentationClass/train_001.png"), "cannot read image"),
    "damaged image": (cut("JPEGImages/train_001.jpg"), "train_001.jpg"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, voc_tree):
    root = voc_tree(3, 2)
    damage, says = REFUSED[name]
    damage(root)
    with pytest.raises(UserError) as caught:
        load(root).train.read([1])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_are_decoded_as_those_of_folders_are(voc_tree):
    root = voc_tree(2, 2)
    name = names(root, "train")[0]
    path = root / "JPEGImages" / f"{name}.jpg"
    with Image.open(path) as image:
        image.convert("L").save(path)
    assert "1 grey image was converted to RGB" in load(root).notices
    width, height = image.size
    with pytest.raises(UserError, match=f"claims {width}x{height} pixels"):
        load(root, max_pixels=width * height - 1)
    Image.fromarray(np.full((height, width), 4000, np.uint16)).save(path, "PNG")
    with pytest.raises(UserError, match="more than 8 bits per channel"):
        load(root)


def test_train_aug_that_is_not_there_is_refused(voc_tree):
    root = voc_tree(3, 2)
    with pytest.raises(UserError, match=r"data\.train_set=train_aug: .* lacks ImageSets"):
        load(root, train_set="train_aug")


@pytest.mark.skipif(not SUBSET.is_file(), reason="the subset of PASCAL VOC in ../shared is not there")
def test_the_real_subset(tmp_path):
    with tarfile.open(SUBSET) as archive:
        archive.extractall(tmp_path, filter="data")
    dataset = load(tmp_path, crop=64)
    assert (len(dataset.train), len(dataset.test)) == (528, 511)
    seen = torch.zeros(256, dtype=torch.int64)
    for source in (dataset.train, dataset.test):
        for position in range(len(source)):
            seen += source.read([position])[0, 3].flatten().bincount(minlength=256)
    assert (seen[:21] > 0).all()
    assert seen[IGNORED] > 0
    assert seen[21:IGNORED].sum() == 0
