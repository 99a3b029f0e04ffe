"""Bad image folders and files: each is named, and nothing of the user's is changed."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.cli import main

WriteImages = Callable[..., Path]
Make = Callable[[WriteImages], None]


def missing(write: WriteImages) -> None:
    pass


def a_file(write: WriteImages) -> None:
    Path("images").write_text("not a folder")


def empty(write: WriteImages) -> None:
    Path("images").mkdir()


def one_class(write: WriteImages) -> None:
    write("cats")


def empty_class(write: WriteImages) -> None:
    write("cats", "dogs")
    Path("images/emus").mkdir()


def few_images(write: WriteImages) -> None:
    write("cats", "dogs", count=2)


def too_few_to_split(write: WriteImages) -> None:
    write("train/cats", "train/dogs", "test/cats", "test/dogs", count=2)
    Path("images/train/cats/000.png").rename("images/test/cats/moved.png")


def truncated(write: WriteImages) -> None:
    write("cats", "dogs")
    for name in sorted(Path("images/cats").iterdir()):
        name.write_bytes(name.read_bytes()[:100])


def bit_flipped(write: WriteImages) -> None:
    write("cats", "dogs")
    for name in sorted(Path("images/cats").iterdir()):
        content = bytearray(name.read_bytes())
        content[60] ^= 0xFF
        name.write_bytes(content)


def text_named_png(write: WriteImages) -> None:
    write("cats", "dogs")
    Path("images/cats/003.png").write_text("I am no image")


def text_beside(write: WriteImages) -> None:
    write("cats", "dogs")
    Path("images/cats/readme.txt").write_text("I am no image")


def empty_image(write: WriteImages) -> None:
    write("cats", "dogs")
    Path("images/cats/003.png").write_bytes(b"")


def sixteen_bits(write: WriteImages) -> None:
    write("cats", "dogs")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save("images/cats/003.png")


def bomb(write: WriteImages) -> None:
    """A PNG of 57 bytes that claims 1.6 billion pixels."""
    write("cats", "dogs")
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, b"IDAT", b"IEND")
    ]
    Path("images/cats/003.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def two_sizes(write: WriteImages) -> None:
    write("cats")
    write("dogs", size=(9, 9))


def not_square(write: WriteImages) -> None:
    write("cats", "dogs", size=(8, 9))


def broken_link(write: WriteImages) -> None:
    write("cats", "dogs")
    os.symlink("nowhere", "images/cats/link.png")


def linked_folder(write: WriteImages) -> None:
    write("cats", "dogs")
    os.symlink("../dogs", "images/cats/more")


def line_break_in_a_name(write: WriteImages) -> None:
    write("cats", "dogs")
    Path("images/cats/a\nerror: b.txt").write_text("I am no image")


def escape_sequence_in_a_name(write: WriteImages) -> None:
    write("cats", "dogs")
    Path("images/cats/\x1b[2J.txt").write_text("I am no image")


def test_lacks_a_class(write: WriteImages) -> None:
    write("train/cats", "train/dogs", "train/emus", "test/cats", "test/dogs")


def annotated(annotations: bytes) -> Make:
    """Tiny-ImageNet's layout with these annotations of its validation set."""

    def make(write: WriteImages) -> None:
        write("train/cats", "train/dogs", "val/images")
        Path("images/val/val_annotations.txt").write_bytes(annotations)

    return make


def fine(write: WriteImages) -> None:
    write("cats", "dogs")


test_lacks_a_class.__test__ = False

#: How the folder `images` is made, further words, and what the message must hold.
FOLDERS: dict[str, tuple[Make, str, tuple[str, ...]]] = {
    "missing": (missing, "", ("data.root=images", "no such folder")),
    "unknown home": (missing, "data.root=~nobody-of-this-name", ("data.root=~nobody-of-this-name",)),
    "a file": (a_file, "", ("data.root=images", "is a file")),
    "empty": (empty, "", ("'images'", "no class folders")),
    "one class": (one_class, "", ("'images'", "single class folder", "'cats'")),
    "empty class": (empty_class, "", ("'images/emus'", "no images")),
    "two images per class": (few_images, "", ("class 'cats'", "2 images", "at least 3")),
    "one training image": (too_few_to_split, "", ("class 'cats'", "1 images", "at least 2")),
    "truncated": (truncated, "", ("'images/cats/00", "truncated")),
    "truncated, streamed": (truncated, "data.resident=never data.workers=0", ("'images/cats/00", "truncated")),
    "truncated, by workers": (truncated, "data.resident=never data.workers=1", ("'images/cats/00", "truncated")),
    "bit flipped": (bit_flipped, "", ("'images/cats/00", "cannot read image")),
    "text named png": (text_named_png, "", ("'images/cats/003.png'", "not an image")),
    "text beside images": (text_beside, "", ("'images/cats/readme.txt'", "not an image")),
    "empty image": (empty_image, "", ("'images/cats/003.png'", "not an image")),
    "16 bits": (sixteen_bits, "", ("'images/cats/003.png'", "8 bits")),
    "decompression bomb": (bomb, "data.image_size=8", ("'images/cats/003.png'", "more pixels than is safe")),
    "two sizes": (two_sizes, "", ("8x8", "9x9", "'images/dogs/000.png'", "set data.image_size")),
    "not square": (not_square, "", ("8x9", "set data.image_size")),
    "broken link": (broken_link, "", ("'images/cats/link.png'", "does not exist", "broken link")),
    "link to a folder": (linked_folder, "", ("'images/cats'", "link to a folder")),
    "line break in a name": (line_break_in_a_name, "", ("not an image",)),
    "escape sequence in a name": (escape_sequence_in_a_name, "", ("images/cats/", "not an image")),
    "test lacks a class": (test_lacks_a_class, "", ("test/ lacks class 'emus'",)),
    "annotations lack a class": (annotated(b"000.png\tcats\n"), "", ("val/ lacks class 'dogs'",)),
    "annotations without tabs": (annotated(b"000.png cats\n"), "", ("val_annotations.txt", "line 1", "a tab")),
    "annotations empty": (annotated(b""), "", ("images/val",)),
    "annotations not UTF-8": (annotated(b"\xff\xfe\n"), "", ("val_annotations.txt",)),
    "annotated image missing": (annotated(b"x.png\tcats\ny.png\tdogs\n"), "", ("x.png'", "does not exist")),
    "limit too small": (fine, "data.limit=3", ("data.limit=3", "at least 4")),
    "files sorted by class": (fine, "data.split=file_order", ("data.split=file_order", "data.split=stratified")),
    "cutout too large": (fine, "data.cutout=5", ("data.cutout=5", "8x8", "at most 4")),
    "padding too large": (fine, "data.crop_padding=8", ("data.crop_padding=8", "8x8", "at most 7")),
    "nothing to download": (fine, "data.download=true", ("data.download=true", "data.name=folder")),
    "CIFAR is not there": (fine, "data.name=cifar10", ("data.root=images", "cifar-10-batches-py", "data.download")),
}


@pytest.fixture
def on_images(small_search: tuple[str, ...]) -> list[str]:
    """A tiny search on the folder `images`, in the run folder `run`."""
    words = [word for word in small_search if not word.startswith("data.")]
    return ["search", *words, "search.epochs=1", "data.name=folder", "data.root=images", "run.dir=run"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(name: str, on_images: list[str], write_images: WriteImages, refuse: Callable[..., str]) -> None:
    make, words, says = FOLDERS[name]
    make(write_images)
    streamed = "data.resident=never" in words  # damage shows once the run has begun
    refuse(*on_images, *words.split(), says=says, creates="run" if streamed else "nothing")


def test_damaged_cifar(on_images: list[str], refuse: Callable[..., str]) -> None:
    folder = Path("images/cifar-10-batches-py")
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"damaged")
    refuse(*on_images, "data.name=cifar10", says=("data.root=images", "cifar-10-batches-py", "damaged"))


def test_auxiliary_head_on_small_images(
    small_eval: tuple[str, ...], write_images: WriteImages, refuse: Callable[..., str]
) -> None:
    write_images("cats", "dogs")
    words = ("data.name=folder", "data.root=images", "data.limit=0", "network.auxiliary=true")
    says = ("network.auxiliary=true", "auxiliary head needs", "network.auxiliary=false")
    refuse("eval", *small_eval, *words, says=says, creates="run")


def test_limit_too_small_for_digits(small_search: tuple[str, ...], refuse: Callable[..., str]) -> None:
    refuse("search", *small_search, "data.limit=19", says=("data.limit=19", "10 classes", "at least 20"))


@pytest.mark.parametrize("words", ["data.name=folder data.root=nowhere", "data.limit=19"])
def test_a_run_is_not_deleted_for_data_that_cannot_be_used(
    words: str, finished: Path, small_search: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    refuse(
        *("search", *small_search, "search.epochs=1", "run.dir=finished", "run.overwrite=true", *words.split()),
        says=("data.",),
    )


def test_a_run_is_not_deleted_for_a_truncated_image(
    finished: Path, on_images: list[str], write_images: WriteImages, refuse: Callable[..., str]
) -> None:
    truncated(write_images)
    refuse(*on_images, "run.dir=finished", "run.overwrite=true", says=("'images/cats/00", "truncated"))


def test_grey_images_are_converted(
    on_images: list[str], write_images: WriteImages, capfd: pytest.CaptureFixture[str]
) -> None:
    """Recovers, and says so."""
    write_images("cats", mode="L")
    write_images("dogs")
    shutil.copy("images/dogs/000.png", "images/cats/colour.png")
    assert main([*on_images, "run.progress=lines"]) == 0
    out, err = capfd.readouterr()
    assert "6 grey images were converted to RGB" in out.splitlines()
    assert err == ""
    assert Path("run/summary.json").is_file()
