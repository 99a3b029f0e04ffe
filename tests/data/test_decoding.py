"""Images that are easily decoded wrong: deep, turned, transparent, of several frames, or no ordinary files."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nge_search.data import load_dataset
from nge_search.data.decoding import load, orientation, read_header, upright
from nge_search.data.image_transforms import ImageTransforms
from nge_search.data.sources import FileImages
from nge_search.deploy.classify import Exported
from nge_search.errors import UserError
from nge_search.settings.data import DataSection

#: What turns the upright image into what is stored, by EXIF orientation, on [H, W, C].
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


@pytest.fixture
def pixels() -> np.ndarray:
    """Random colours, uint8 [5, 8, 3]."""
    return np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)


def exif(number: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = number
    return found


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(path: Path, values: np.ndarray, colour: int, early: bytes = b"", late: bytes = b"") -> None:
    """A PNG of 8 or 16 bits, written by hand: Pillow writes no deep colours, and no chunks behind the pixels."""
    rows = values.astype(values.dtype.newbyteorder(">"))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8 * values.itemsize, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = chunk(b"IHDR", header) + early + chunk(b"IDAT", data) + late + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def write_tiff(path: Path, values: np.ndarray, sample_format: int = 1) -> None:
    """An uncompressed little-endian TIFF, grey or RGB by the shape of `values`."""
    channels, bits = values[0, 0].size, 8 * values.itemsize
    fields = {256: values.shape[1], 257: values.shape[0], 259: 1, 262: 2 if channels == 3 else 1, 277: channels}
    fields |= {278: values.shape[0], 279: values.nbytes}
    start = 8 + 2 + 12 * (len(fields) + 3) + 4
    entries = [(tag, struct.pack("<HIHH", 3, 1, value, 0)) for tag, value in fields.items()]
    entries.append((273, struct.pack("<HII", 4, 1, start + 12)))
    for at, (tag, value) in enumerate(((258, bits), (339, sample_format))):
        one = struct.pack("<HIHH", 3, 1, value, 0)
        entries.append((tag, struct.pack("<HII", 3, 3, start + 6 * at) if channels == 3 else one))
    folder = b"".join(struct.pack("<H", tag) + entry for tag, entry in sorted(entries))
    extra = struct.pack("<6H", *[bits] * 3, *[sample_format] * 3)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + folder + bytes(4)
    path.write_bytes(head + extra + values.astype(values.dtype.newbyteorder("<")).tobytes())


def deep(folder: Path) -> dict[str, Path]:
    """Images of more than 8 bits per channel, of every kind that Pillow opens."""
    random = np.random.default_rng(1)
    grey, pair, colour, four = (
        random.integers(0, 4096, shape, dtype=np.uint16) for shape in ((5, 8), (5, 8, 2), (5, 8, 3), (5, 8, 4))
    )
    for name, values, kind in (("g", grey, 0), ("ga", pair, 4), ("rgb", colour, 2), ("rgba", four, 6)):
        write_png(folder / f"{name}.png", values, kind)
    for name, values in (("g16", grey), ("rgb16", colour)):
        write_tiff(folder / f"{name}.tif", values)
    Image.fromarray(grey.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(grey.astype(np.int32)).save(folder / "long.tif")
    for kind, values in (("P5", grey), ("P6", colour)):
        for most in (4095, 65535):
            header = f"{kind} 8 5 {most}\n".encode()
            (folder / f"{kind}_{most}.ppm").write_bytes(header + values.astype(">u2").tobytes())
    (folder / "plain.ppm").write_text("P3 8 5 4095 " + " ".join(map(str, colour.flatten())))
    Image.fromarray(colour.astype(np.uint8)).save(folder / "rgb.jp2", irreversible=False)
    content = bytearray((folder / "rgb.jp2").read_bytes())
    content[content.index(b"\xff\x4f\xff\x51") + 42] = 11  # one less than the bits of the first channel
    (folder / "rgb.jp2").write_bytes(content)
    Image.fromarray(grey).save(folder / "g.jp2")
    return {path.name: path for path in sorted(folder.iterdir())}


def test_deep_images_are_refused_by_header_and_by_pixels(tmp_path: Path) -> None:
    files = deep(tmp_path)
    assert len(files) == 15
    for path in files.values():
        for read in (read_header, load):
            with pytest.raises(UserError, match="has more than 8 bits per channel") as caught:
                read(str(path))
            assert f"'{path}'" in str(caught.value)


def test_eight_bits_written_by_the_same_hands_are_read(tmp_path: Path, pixels: np.ndarray) -> None:
    """So that the refusals above are for their depth."""
    write_png(tmp_path / "a.png", pixels, 2)
    write_tiff(tmp_path / "a.tif", pixels)
    (tmp_path / "a.ppm").write_bytes(b"P6 8 5 255\n" + pixels.tobytes())
    Image.fromarray(pixels).save(tmp_path / "a.jp2", irreversible=False)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(np.asarray(load(str(path))), pixels)
        assert read_header(str(path)) == (8, 5, "RGB", 1, False, False)


def test_signed_pixels_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    write_tiff(tmp_path / "signed.tif", pixels[:, :, 0], sample_format=2)
    with pytest.raises(UserError, match="has signed numbers for pixels"):
        load(str(tmp_path / "signed.tif"))


def test_data_sets_whose_headers_are_not_read_refuse_too(write_tree: Callable) -> None:
    """ImageNet's and Tiny-ImageNet's files are opened when they are read, not before."""
    root = write_tree("a", size=(64, 64))
    write_png(root / "a/001.png", np.full((64, 64, 3), 4000, np.uint16), 2)
    write_png(root / "a/002.png", np.full((64, 64), 60000, np.uint16), 0)
    os.mkfifo(root / "a/pipe.png")
    paths = [str(root / "a" / name) for name in ("000.png", "001.png", "002.png", "pipe.png")]

    def source(**settings: object) -> FileImages:
        config = DataSection(name="tiny_imagenet", **settings)
        return FileImages(paths, torch.zeros(4, dtype=torch.int64), ImageTransforms(config, 64, False), 0)

    assert source().read([0]).shape == (1, 3, 64, 64)
    for at, says in ((1, "8 bits per channel"), (2, "8 bits per channel"), (3, "is a named pipe")):
        with pytest.raises(UserError, match=says):
            source().read([0, at])
    with pytest.raises(UserError, match="claims 64x64 pixels"):
        source(max_pixels=4095).read([0])


def test_one_image_given_to_a_network_is_decoded_alike(tmp_path: Path, pixels: np.ndarray) -> None:
    network = Exported(nn.Identity(), ("a", "b"), 3, 5, 0, (0.0,) * 3, (1.0,) * 3)
    Image.fromarray(STORED[6](pixels)).save(tmp_path / "turned.png", exif=exif(6))
    Image.fromarray(pixels).save(tmp_path / "upright.png")
    turned, straight = (network.read_image(str(tmp_path / f"{name}.png")) for name in ("turned", "upright"))
    assert torch.equal(turned, straight)
    write_png(tmp_path / "deep.png", pixels.astype(np.uint16), 2)
    with pytest.raises(UserError, match="more than 8 bits per channel"):
        network.read_image(str(tmp_path / "deep.png"))


@pytest.mark.parametrize("number", STORED)
def test_orientation_is_applied_and_header_agrees(number: int, tmp_path: Path, pixels: np.ndarray) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[number](pixels)))
    stored.save(tmp_path / "a.png", exif=exif(number))
    stored.save(tmp_path / "a.webp", lossless=True, exif=exif(number))
    stored.save(tmp_path / "a.tif", exif=exif(number))
    stored.save(tmp_path / "xmp.webp", lossless=True, xmp=XMP % number)
    stored.save(tmp_path / "xmp.tif", tiffinfo={700: XMP % number})
    write_png(tmp_path / "late.png", np.asarray(stored), 2, late=chunk(b"eXIf", exif(number).tobytes()[6:]))
    text = b"XML:com.adobe.xmp" + bytes(5) + XMP % number
    write_png(tmp_path / "late_text.png", np.asarray(stored), 2, late=chunk(b"iTXt", text))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(np.asarray(load(str(path))), pixels, err_msg=path.name)
        assert read_header(str(path)) == (8, 5, "RGB", number, False, False), path.name
    stored.save(tmp_path / "a.jpg", exif=exif(number))
    assert load(str(tmp_path / "a.jpg")).size == (8, 5)


def test_orientation_of_palettes_and_transparency(tmp_path: Path, pixels: np.ndarray) -> None:
    palette = Image.fromarray(np.ascontiguousarray(STORED[8](pixels))).quantize(7)
    palette.save(tmp_path / "a.png", exif=exif(8), transparency=bytes([0, 128]))
    palette.convert("RGB").save(tmp_path / "colours.png", exif=exif(8))
    values = np.rot90(np.asarray(palette))
    expected = np.asarray(load(str(tmp_path / "colours.png"))).copy()
    expected[values == 0] = 255
    found = np.asarray(load(str(tmp_path / "a.png")))
    np.testing.assert_array_equal(found[values != 1], expected[values != 1])
    assert not np.array_equal(found[values == 1], expected[values == 1])


def test_upright_turns_once(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif(6))
    with Image.open(tmp_path / "a.png") as image:
        assert orientation(image) == 6
        turned = upright(image)
    assert orientation(turned) == 1
    assert np.array_equal(np.asarray(upright(turned)), np.rot90(pixels, -1))


@pytest.mark.parametrize(
    "content", [b"Exif\0\0nothing", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01", exif(9).tobytes()]
)
def test_damaged_or_unknown_orientation_changes_nothing(content: bytes, tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exif=content)
    np.testing.assert_array_equal(np.asarray(load(str(tmp_path / "a.webp"))), pixels)
    assert read_header(str(tmp_path / "a.webp")).orientation == 1


def test_opaque_alpha_changes_no_colour(tmp_path: Path) -> None:
    """All pairs of values, bit for bit what dropping the alpha channel gives."""
    one, two = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    colours = np.stack([one, two, one ^ two], axis=-1)
    Image.fromarray(np.dstack([colours, np.full_like(one, 255)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(load(str(tmp_path / "a.png"))), colours)


def test_transparency_is_put_on_white(tmp_path: Path, pixels: np.ndarray) -> None:
    alpha = np.random.default_rng(2).integers(0, 256, (5, 8), dtype=np.uint8)
    for name, values in (("rgba", np.dstack([pixels, alpha])), ("la", np.dstack([pixels[..., 0], alpha]))):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    weight = alpha[..., None] / 255
    for suffix in ("png", "tif"):
        expected = pixels * weight + 255 * (1 - weight)
        found = np.asarray(load(str(tmp_path / f"rgba.{suffix}")))
        np.testing.assert_allclose(found, expected, atol=1)
        assert read_header(str(tmp_path / f"la.{suffix}")).transparent
        grey = np.asarray(load(str(tmp_path / f"la.{suffix}")))
        np.testing.assert_allclose(grey, expected[..., :1].repeat(3, -1), atol=1)


def test_a_colour_that_stands_for_nothing_is_white(tmp_path: Path, pixels: np.ndarray) -> None:
    hidden = tuple(int(value) for value in pixels[2, 3])
    write_png(tmp_path / "rgb.png", pixels, 2, early=chunk(b"tRNS", struct.pack(">3H", *hidden)))
    expected = pixels.copy()
    expected[2, 3] = 255
    np.testing.assert_array_equal(np.asarray(load(str(tmp_path / "rgb.png"))), expected)
    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)  # grey of two bits: 0, 85, 170, 255, the third hidden
    parts = (chunk(b"tRNS", b"\0\x02"), chunk(b"IDAT", zlib.compress(b"\0\x1b")), chunk(b"IEND", b""))
    (tmp_path / "grey.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(parts))
    assert np.asarray(load(str(tmp_path / "grey.png")))[0, :, 0].tolist() == [0, 85, 255, 255]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken(suffix: str, tmp_path: Path, pixels: np.ndarray) -> None:
    first, second = (Image.fromarray(values).quantize(16).convert("RGB") for values in (pixels, 255 - pixels))
    words = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], **words)
    np.testing.assert_array_equal(np.asarray(load(str(tmp_path / f"a.{suffix}"))), np.asarray(first))
    assert read_header(str(tmp_path / f"a.{suffix}")).several


def test_what_is_no_image_file_is_refused_unopened(tmp_path: Path, pixels: np.ndarray) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "kernel.png").symlink_to("/proc/cpuinfo")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    with open(tmp_path / "sparse.webp", "wb") as file:
        file.truncate((1 << 30) + 1)
    Image.fromarray(pixels).save(tmp_path / "drawing.eps")
    says = {"pipe": "named pipe", "link": "named pipe", "kernel": "file of the kernel", "device": "a device"}
    says |= {"lost": "does not exist", "folder": "a folder", "sparse": "bytes, more than", "drawing": "format EPS"}
    for path in tmp_path.iterdir():
        for read in (read_header, load):
            with pytest.raises(UserError, match=says[path.stem]):
                read(str(path))


def test_what_decoding_changes_is_counted(write_tree: Callable, pixels: np.ndarray) -> None:
    root = write_tree("a", "b", count=6, size=(8, 5))
    image = Image.fromarray(pixels)
    for number, turn in ((0, 5), (1, 3), (2, 1)):
        stored = Image.fromarray(np.ascontiguousarray(STORED[turn](pixels)))
        stored.save(root / f"a/00{number}.png", exif=exif(turn))
    image.save(root / "b/000.gif", save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    image.convert("CMYK").save(root / "b/001.tif")
    image.convert("LA").save(root / "b/002.png")
    dataset = load_dataset(DataSection(name="folder", root=str(root), image_size=4))
    assert dataset.notices[1:] == (
        "1 CMYK image was converted to RGB",
        "1 grey image was converted to RGB",
        "1 palette image was converted to RGB",
        "1 transparent image was put on white",
        "2 images were turned upright, as their orientation says",
        "1 image was cut to the first of several frames or pages",
    )
    assert isinstance(dataset.train, FileImages)
