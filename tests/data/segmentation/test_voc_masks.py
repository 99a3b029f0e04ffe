"""How a mask is read: every image mode and palette gives the classes it stores, or is refused with one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.data.segmentation.dataset import IGNORED
from nge_search.data.segmentation.voc_masks import VOC_CLASSES, load_mask, read_mask_header, voc_palette
from nge_search.errors import UserError

CAT, DOG, PERSON = (VOC_CLASSES.index(name) for name in ("cat", "dog", "person"))
WHITE, VOID = (255, 255, 255), voc_palette()[IGNORED]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "mask.png")


def save_palette(path: str, values: list[list[int]], colours: list[tuple[int, ...]], **chunks: bytes) -> None:
    """A palette PNG of 8 bits, however few colours it has: Pillow would cut the values down to those."""
    save_png(path, [bytes(row) for row in values], len(values[0]), 8, 3, PLTE=bytes(sum(colours, ())), **chunks)


def save_png(path: str, rows: list[bytes], width: int, depth: int, kind: int = 0, **chunks: bytes) -> None:
    """A PNG of rows of packed pixels, with `depth` bits each: grey (`kind` 0), or with a palette (3)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    before = [chunk(name.encode(), content) for name, content in chunks.items()]
    parts = chunk(b"IHDR", header), *before, chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_whole_numbers_are_classes_in_every_mode(path: str) -> None:
    truth = np.array([[0, 1, 20], [15, 0, 255]], np.uint8)
    opaque = np.full_like(truth, 255)
    for image in (
        Image.fromarray(truth),
        Image.fromarray(np.stack([truth, opaque], axis=-1), mode="LA"),
        Image.fromarray(truth.astype(np.uint16)),
    ):
        image.save(path)
        np.testing.assert_array_equal(load_mask(path), truth)
        assert read_mask_header(path)[:3] == (3, 2, 1)
    for name in ("mask.bmp", "mask.tif"):
        other = str(Path(path).with_name(name))
        Image.fromarray(truth).save(other)
        np.testing.assert_array_equal(load_mask(other), truth)
    Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1").save(path)
    assert load_mask(path).tolist() == [[0, 1, 0]]


def test_grey_values_of_few_bits_are_refused(path: str) -> None:
    """Pillow multiplies them by 17 or 85."""
    save_png(path, [b"\x01\x02", b"\x02\x01"], 4, depth=4)
    refused(path, "has 4 bits of grey, which may be stretched")
    save_png(path, [b"\x1b"], 4, depth=2)
    refused(path, "has 2 bits of grey, which may be stretched")


def test_the_palette_decides_where_it_has_vocs_colours_in_another_order(path: str) -> None:
    save_palette(path, [[0, 1], [1, 0]], [voc_palette()[0], voc_palette()[PERSON]])
    assert load_mask(path).tolist() == [[0, PERSON], [PERSON, 0]]
    # As programs write that sort colours: black not first, and the rest filled up with black.
    order = [voc_palette()[DOG], voc_palette()[0], VOID, voc_palette()[CAT], *[(0, 0, 0)] * 252]
    save_palette(path, [[0, 1, 2, 3]], order)
    assert load_mask(path).tolist() == [[DOG, 0, IGNORED, CAT]]
    save_palette(path, [[0, 1, 2, 3]], order, tRNS=b"\xff\0")
    assert load_mask(path).tolist() == [[DOG, 0, IGNORED, CAT]]
    coloured = np.array(voc_palette(), np.uint8)[np.array([[0, PERSON, CAT], [0, 0, PERSON]])]
    Image.fromarray(coloured).quantize().save(path)
    assert load_mask(path).tolist() == [[0, PERSON, CAT], [0, 0, PERSON]]


@pytest.mark.parametrize(
    "colours",
    [
        list(voc_palette()),
        list(voc_palette()[:21]),
        [(grey, grey, grey) for grey in range(256)],
        [(12 * value, 12 * value, 12 * value) for value in range(21)],
        [(0, 0, 0), WHITE],
        [(0, 0, 0)] * 256,
        [(0, 0, 0)],
        [(255, 0, 0), (0, 255, 0), (0, 0, 255)],
        # VOC's colours in another order, but behind the values that occur
        [(0, 0, 0), (1, 2, 3), *[(4, 5, 6)] * 18, WHITE, voc_palette()[PERSON]],
    ],
    ids=[
        "VOC",
        "start of VOC",
        "ramp",
        "stretched ramp",
        "black and white",
        "black",
        "one entry",
        "other colours",
        "unused",
    ],
)
def test_values_are_classes_with_any_other_palette(colours, path: str) -> None:
    save_palette(path, [[0, 1, 20], [1, 0, 0]], colours)
    assert load_mask(path).tolist() == [[0, 1, 20], [1, 0, 0]]


@pytest.mark.parametrize(
    ("colours", "values", "says"),
    [
        ([(0, 0, 0), voc_palette()[PERSON], WHITE], [0, 1, 2], "'person' for the value 1, but (255, 255, 255), "),
        ([(0, 0, 0), voc_palette()[PERSON]], [0, 1, 7], "'person' for the value 1, but no colour, which is"),
        (
            [WHITE, (0, 0, 0)],
            [0, 1, 1],
            "'background' for the value 1, but (255, 255, 255), which is no class's, for 0",
        ),
        (
            [(0, 0, 0), VOID, (0, 0, 0)],
            [0, 1, 2],
            "'void' for the value 1, but (0, 0, 0), which is no class's, for 2",
        ),
        ([(grey, grey, grey) for grey in range(256)], [0, 128, 0], "has the value 128; allowed are 0 to 20"),
    ],
    ids=["partly VOC's", "beyond the palette", "black and white inverted", "black again", "grey as the bus's"],
)
def test_palettes_that_are_partly_vocs_are_refused(colours, values, says: str, path: str) -> None:
    save_palette(path, [values], colours)
    with pytest.raises(UserError) as caught:
        load_mask(path)
    assert says in str(caught.value)
    assert path in str(caught.value)


def test_greys_that_a_compressor_numbered_anew_are_refused(path: str) -> None:
    for greys in ([0, 15, 255], [0, 1, 15], [15, 0, 0, 0]):
        save_palette(path, [[0, 1, 2]], [(grey, grey, grey) for grey in greys])
        refused(path, r"has a palette of greys, 15 for the value [012], so that either may be the class")


def refused(path: str, says: str) -> None:
    def read() -> None:
        read_mask_header(path)
        load_mask(path)

    with pytest.raises(UserError, match=says) as caught:
        read()
    assert path in str(caught.value)


def test_what_would_change_values_is_refused(tmp_path: Path, path: str) -> None:
    values = np.array([[0, 1], [1, 0]], np.uint8)
    for name, says in (("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("a.ppm", "PPM"), ("a.gif", "GIF")):
        Image.fromarray(values).convert("RGB").save(tmp_path / name)
        refused(str(tmp_path / name), f"is stored as {says}, which may change values")
    Image.fromarray(values).save(tmp_path / "a.tif", compression="jpeg")
    refused(str(tmp_path / "a.tif"), "is stored as jpeg, which")
    Image.fromarray(values).save(tmp_path / "b.tif", tiffinfo={274: 3})
    refused(str(tmp_path / "b.tif"), "TIFF with an orientation")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "c.tif")
    refused(str(tmp_path / "c.tif"), "has mode F; save it as a palette PNG")
    Image.fromarray(np.stack([values, 255 - values], axis=-1), mode="LA").save(path)
    refused(path, "has transparent pixels")
    Image.new("RGBA", (2, 2), (0, 0, 0, 254)).save(path)
    refused(path, "has transparent pixels")
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(path)
    refused(path, "has the value 65535;")
    (tmp_path / "folder.png").mkdir()
    refused(str(tmp_path / "folder.png"), "is not a file")


def test_grey_of_an_inverted_tiff_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    refused(path, "stores its values inverted")


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[274] = orientation
    return found.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize(("orientation", "expected"), [(3, [[4, 3, 2], [1, 1, 0]]), (6, [[2, 0], [3, 1], [4, 1]])])
def test_a_mask_is_turned_as_exif_says(orientation: int, expected: list[list[int]], path: str) -> None:
    save_palette(path, [[0, 1, 1], [2, 3, 4]], list(voc_palette()), eXIf=exif(orientation))
    assert load_mask(path).tolist() == expected
    assert read_mask_header(path)[:3] == (len(expected[0]), len(expected), orientation)


def test_an_orientation_behind_the_pixels_is_refused(path: str) -> None:
    save_palette(path, [[0, 1]], list(voc_palette()), eXIf=exif(6))
    data = Path(path).read_bytes()
    at = data.index(b"eXIf") - 4
    length = 12 + struct.unpack(">I", data[at : at + 4])[0]
    end = data.index(b"IEND") - 4
    Path(path).write_bytes(data[:at] + data[at + length : end] + data[at : at + length] + data[end:])
    refused(path, "EXIF orientation behind its pixels")
