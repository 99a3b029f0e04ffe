"""Lists in VOC's layout: names and paths as people write them, and which files they stand for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.data.segmentation.voc import load_voc
from nge_search.data.segmentation.voc_lists import IMAGES, MASKS, MORE_MASKS, Lists
from nge_search.errors import UserError
from nge_search.settings.segmentation import MaskedDataSection


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in (IMAGES, MASKS, MORE_MASKS):
        (tmp_path / folder).mkdir()
    return tmp_path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()


def read(root: Path, content: str | bytes) -> list[tuple[str, str]]:
    """Images and masks of a list, by their paths from the root."""
    path = root / "list.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    pairs = Lists(root).read(path, (MORE_MASKS, MASKS))
    return [(os.path.relpath(pair.image, root), os.path.relpath(pair.mask, root)) for pair in pairs]


def error(root: Path, content: str) -> str:
    with pytest.raises(UserError) as caught:
        read(root, content)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".Png", ".tif", ".webp"])
def test_images_of_any_suffix(suffix: str, root: Path) -> None:
    touch(root, f"{IMAGES}/a.b{suffix}", f"{MASKS}/a.b.PNG", f"{IMAGES}/a.b.txt", f"{IMAGES}/a{suffix}")
    assert read(root, "a.b\n") == [(f"{IMAGES}/a.b{suffix}", f"{MASKS}/a.b.PNG")]


def test_of_several_files_the_usual_one_counts_or_none(root: Path) -> None:
    touch(root, f"{IMAGES}/a.jpg", f"{IMAGES}/a.png", f"{MASKS}/a.png", f"{MASKS}/a.PNG")
    assert read(root, "a") == [(f"{IMAGES}/a.jpg", f"{MASKS}/a.png")]
    (root / IMAGES / "a.jpg").rename(root / IMAGES / "a.JPEG")
    assert "'a' may be" in error(root, "a")
    assert "or 'a.png'; remove one of them" in error(root, "a")


@pytest.mark.parametrize(
    "content",
    [
        "im 1\nim  2\n",
        "\ufeffim 1\nim  2",
        "im 1\r\nim  2\r\n",
        "  im 1 \t\r\n\r\n \t \nim  2  \n\n",
        "im 1\rim  2",
    ],
    ids=["plain", "byte order mark", "CR LF", "blanks at the ends", "CR"],
)
def test_names_with_blanks_and_other_line_ends(content: str, root: Path) -> None:
    touch(root, *(f"{folder}/im{blanks}{i}.{suffix}" for folder, suffix in ((IMAGES, "jpg"), (MASKS, "png"))
                  for i, blanks in ((1, " "), (2, "  "))))  # fmt: skip
    expected = [(f"{IMAGES}/{name}.jpg", f"{MASKS}/{name}.png") for name in ("im 1", "im  2")]
    assert read(root, content) == expected


def test_two_paths_a_line(root: Path) -> None:
    touch(root, "one/a.png", "two/a.png", "masks/1.png", "masks/2.tif", "one/with a blank.png", "masks/with a.png")
    assert read(root, "/one/a.png /masks/1.png\ntwo/a.png\tmasks/2.tif\n") == [
        ("one/a.png", "masks/1.png"),
        ("two/a.png", "masks/2.tif"),
    ]
    assert read(root, "./one/with a blank.png //masks/with a.png") == [("one/with a blank.png", "masks/with a.png")]
    touch(root, "one/c", "one/c d/e", "f/g")
    (root / "d" / "e f").mkdir(parents=True)
    touch(root, "d/e f/g")
    assert "can be cut into two paths in two ways" in error(root, "/one/c d/e f/g")


def test_links_are_followed(root: Path) -> None:
    touch(root, "store/1", "store/2")
    os.symlink(root / "store" / "1", root / IMAGES / "a.jpg")
    os.symlink(root / "store" / "2", root / MASKS / "a.png")
    assert read(root, "a") == [(f"{IMAGES}/a.jpg", f"{MASKS}/a.png")]
    os.unlink(root / "store" / "2")
    assert "has no mask" in error(root, "a")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a\nb\na\n", "names 'a' twice"),
        (f"a\n/{IMAGES}/a.jpg /{MASKS}/a.png\n", "twice; remove one"),
        (f"/{IMAGES}//a.jpg /{MASKS}/a.png\n{IMAGES}/./a.jpg {MASKS}/b.png", "twice; remove one"),
        (f"../{IMAGES}/a.jpg {MASKS}/a.png", "is neither a name nor the paths of an image and its mask"),
        (f"{IMAGES}/a.jpg {MASKS}/../../a.png", "is neither a name nor the paths of an image and its mask"),
        ("sub/a", "'sub/a' is neither a name nor"),
        ("a/" + "b " * 5000, "is neither a name nor"),
        ("..", "does not exist"),
        ("a.jpg", "(there is 'a.jpg'); restore it"),
        ("A", "(there is 'a.jpg'); restore it"),
        ("cafe\u0301", "(there is 'caf\xe9.jpg'); restore it"),
        ("c", "(there is 'c.jpg'); add it"),
        (f"/etc/{IMAGES}/a.jpg /etc/a.png", "does not exist (its paths begin at '"),
        (f"/{IMAGES}/a.jpg /{MASKS}/none.png", "none.png'; add it"),
        (" \r\n\t\n", "is empty"),
    ],
)
def test_what_is_refused(content: str, says: str, root: Path) -> None:
    names = "a", "b", "caf\xe9"
    touch(root, *(f"{IMAGES}/{name}.jpg" for name in (*names, "c")), *(f"{MASKS}/{name}.png" for name in names))
    touch(root, f"{MORE_MASKS}/c.jpg")
    assert says in error(root, content)


def test_a_list_that_is_no_ordinary_file_or_too_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.txt")
    with pytest.raises(UserError, match="is a named pipe"):
        Lists(root).read(root / "pipe.txt", (MASKS,))
    monkeypatch.setattr("nge_search.data.segmentation.voc_lists._LARGEST_LIST", 10)
    assert "more than the 10" in error(root, "a long name\n")


def load(root: Path):
    return load_voc(MaskedDataSection(name="voc", root=str(root), crop=32, workers=0))


def test_an_image_that_exif_turns_needs_a_mask_that_is_turned_alike(voc_tree) -> None:
    """Where the sides cannot tell how the mask lies, it must say so itself."""
    root = voc_tree(1, 1, sizes=((48, 48),))
    image = root / IMAGES / "train_000.jpg"
    exif = Image.Exif()
    for orientation in (3, 2, 6):
        exif[274] = orientation
        with Image.open(image) as opened:
            opened.save(image, exif=exif)
        with pytest.raises(
            UserError, match=f"has the EXIF orientation {orientation}, its mask '.*' 1; how they lie"
        ):
            load(root)
    exif[274] = 1
    with Image.open(image) as opened:
        opened.save(image, exif=exif)
    assert len(load(root).train) == 1


@pytest.mark.parametrize("orientation", [3, 6])
def test_image_and_mask_are_turned_alike(orientation: int, voc_tree) -> None:
    root = voc_tree(1, 1)
    exif = Image.Exif()
    exif[274] = orientation
    stored = []
    for path in (root / IMAGES / "train_000.jpg", root / MASKS / "train_000.png"):
        with Image.open(path) as opened:
            opened.save(path, exif=exif)
        with Image.open(path) as opened:
            stored.append(np.atleast_3d(np.asarray(opened)))
    source = load(root).train
    turned = source.read([0])[0]
    expected_HW4 = np.rot90(np.concatenate(stored, axis=2), {3: 2, 6: -1}[orientation])
    np.testing.assert_array_equal(turned.permute(1, 2, 0), expected_HW4)
    assert source.sizes_N2[0].tolist() == list(turned.shape[1:])


def test_a_mask_drawn_on_the_upright_image_needs_no_orientation(voc_tree) -> None:
    root = voc_tree(1, 1)
    exif = Image.Exif()
    exif[274] = 6
    image, mask = root / IMAGES / "train_000.jpg", root / MASKS / "train_000.png"
    with Image.open(image) as opened:
        opened.save(image, exif=exif, quality="keep")
    with pytest.raises(UserError, match="they must agree"):
        load(root)
    with Image.open(mask) as opened:
        opened.transpose(Image.Transpose.ROTATE_270).save(mask)
    assert tuple(load(root).train.read([0]).shape[2:]) == (60, 48)


def test_a_mask_alone_that_exif_turns_is_refused(voc_tree) -> None:
    root = voc_tree(1, 1, sizes=((48, 48),))
    exif = Image.Exif()
    exif[274] = 8
    with Image.open(root / MASKS / "train_000.png") as opened:
        opened.save(root / MASKS / "train_000.png", exif=exif)
    with pytest.raises(UserError, match=r"has the EXIF orientation 1, its mask '.*' 8; how they lie"):
        load(root)
