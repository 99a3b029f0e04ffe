"""One image: its file, header and pixels, errors that name it, and PNGs as text.

Every image file of every data set and command is read here, so that all agree on what is in it:

- more than 8 bits per channel are refused: which part of their range matters, only their owner knows (AVIF's
  decoder gives 8 bits whatever the file has, correctly scaled);
- the image is turned as its EXIF or XMP orientation says, and header and pixels agree on the sides;
- what is transparent is composed on white;
- of several frames or pages the first is taken;
- other colours (grey, palettes, CMYK, Lab) become RGB;
- before anything is decoded, the header tells whether the pixels are too many.
"""

from __future__ import annotations

import base64
import io
import os
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from nge_search.errors import UserError
from nge_search.files import require_regular
from nge_search.settings.data import MAX_PIXELS

Item = TypeVar("Item")
Result = TypeVar("Result")


#: Pillow's names of the formats that are read: of these it is known how the file says its bits per channel.
_FORMATS = frozenset(
    ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
)
#: Bytes; more than Pillow's largest image of four channels takes uncompressed.
_LARGEST_FILE = 1 << 30
_WHITE = (255, 255, 255, 255)
_KIND_OF_MODE = {"1": "grey", "L": "grey", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette"}
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_WIDTH, _HEIGHT = 256, 257
_SIGNED = 2
#: How an image is turned to stand upright, by its EXIF orientation; 1 and unknown ones: not at all.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: From this orientation on, width and height change places.
ON_ITS_SIDE = 5
#: Where Pillow keeps what may hold an orientation.
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
#: The chunks of a PNG that become those.
_METADATA_CHUNKS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_MOST_CHUNKS = 1 << 16
#: What Pillow raises on damaged metadata; warnings where they are errors.
_DAMAGE: tuple[type[Exception], ...] = (
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
    struct.error,
    Warning,
)
_CODESTREAM = b"\xff\x4f\xff\x51"
_CODESTREAM_WITHIN = 1 << 20


class Header(NamedTuple):
    """What a file says of its image.

    `width` and `height` are the sides in pixels of what `load` gives, `mode` is Pillow's ("RGB", "L", "P", ...).
    `orientation` is the file's, 1 to 8, and 1 is upright; `transparent`: it has an alpha channel or transparent
    colours; `several`: it has more than one frame or page.
    """

    width: int
    height: int
    mode: str
    orientation: int = 1
    transparent: bool = False
    several: bool = False


def read_header(path: str, max_pixels: int = MAX_PIXELS) -> Header:
    """The header of an image file, without decoding its pixels.

    Raises:
        UserError: what `load` would refuse for its header; names the file.
    """
    with opened(path, max_pixels) as image:
        if image.format == "PNG" and _has_late_metadata(_file(image)):
            image.load()
        turn = orientation(image)
        width, height = _stored_size(image)
        return Header(
            *((height, width) if turn >= ON_ITS_SIDE else (width, height)),
            image.mode,
            turn,
            transparent=is_transparent(image),
            several=_has_several_frames(image),
        )


def changes(headers: Sequence[Header]) -> list[str]:
    """One remark per kind of change that decoding makes to images."""
    kinds = Counter(_KIND_OF_MODE.get(header.mode, header.mode) for header in headers if header.mode != "RGB")
    made = [(count, f"{kind} image", "converted to RGB") for kind, count in sorted(kinds.items())]
    made += [
        (sum(header.transparent for header in headers), "transparent image", "put on white"),
        (sum(header.orientation != 1 for header in headers), "image", "turned upright, as their orientation says"),
        (sum(header.several for header in headers), "image", "cut to the first of several frames or pages"),
    ]
    return [
        f"{count} {kind} was {change}" if count == 1 else f"{count} {kind}s were {change}"
        for count, kind, change in made
        if count
    ]


def load(path: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A decoded image: RGB, upright, on white where it is transparent; the first of several frames.

    Raises:
        UserError: a truncated, damaged or missing file, another kind of file or an unknown format, more than 8 bits
            per channel, or more than `max_pixels` pixels; names the file.
    """
    with opened(path, max_pixels) as image:
        return as_rgb(upright(image))


@contextmanager
def opened(path: str, max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile.ImageFile]:
    """The image of a file as Pillow opens it, not decoded yet, where its header says that it can be decoded whole.

    Raises:
        UserError: as `load`; what is raised inside the `with` too becomes one that names the file.
    """
    require_regular(path, _LARGEST_FILE)
    with naming_errors(path), Image.open(path) as image:
        _require_whole(image, path, max_pixels)
        yield image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, of an image from a file; 1 (upright) too where metadata are damaged.

    Only what has been read counts: a PNG may keep it behind its pixels, so decode it first.
    """
    if image.format != "TIFF" and image.info.keys().isdisjoint(_METADATA):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return int(found) if found in _TURNS else 1
    except _DAMAGE:
        return 1


def upright(image: Image.Image) -> Image.Image:
    """An image from a file, decoded and turned as its orientation says; what comes out has no orientation left."""
    image.load()
    turn = orientation(image)
    if turn == 1:
        return image
    turned = image.transpose(_TURNS[turn])
    for key in _METADATA:
        turned.info.pop(key, None)
    return turned


def is_transparent(image: Image.Image) -> bool:
    """Whether an image has an alpha channel, a palette with one, or a colour that stands for nothing."""
    if image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"):
        return True
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def as_rgb(image: Image.Image) -> Image.Image:
    if not is_transparent(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, _WHITE), colours).convert("RGB")


def _require_whole(image: ImageFile.ImageFile, path: str, max_pixels: int) -> None:
    """Refuse an image of which decoding would give a part, or too much."""
    if image.format not in _FORMATS:
        raise UserError(f"'{path}' is of the format {image.format}, which is not read; convert it to PNG or JPEG")
    width, height = image.size
    if width * height > max_pixels:
        raise UserError(
            f"'{path}' claims {width}x{height} pixels, more pixels than is safe to decode ({max_pixels}); shrink "
            "or remove it (for a training, data.max_pixels sets the limit)"
        )
    bits = _bits(image)
    if bits > 8 or image.mode[0] in "IF":
        depth = f"mode {image.mode}" if image.mode[0] in "IF" else f"{bits}"
        raise UserError(f"'{path}' has more than 8 bits per channel ({depth}); convert it to 8 bits")
    if image.format == "TIFF" and _SIGNED in _values(image, _SAMPLE_FORMAT):
        raise UserError(f"'{path}' has signed numbers for pixels; convert it to 8 bits without a sign")


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits per channel where Pillow cuts them to 8 without a word, and its mode does not tell."""
    if image.format == "PNG":
        return _png_bits(image)
    if image.format == "TIFF":
        return max(_values(image, _BITS_PER_SAMPLE), default=1)
    if image.format == "PPM":
        arguments = image.tile[0][3]  # a mode, or a mode and the largest value
        return arguments[1].bit_length() if isinstance(arguments, tuple) else 8
    return _jpeg2000_bits(_file(image)) if image.format == "JPEG2000" else 8


def _png_bits(image: ImageFile.ImageFile) -> int:
    """A PNG's bits per channel; where grey has fewer than 8, its transparent value is scaled as the pixels are."""
    raw = image.tile[0][3]
    assert isinstance(raw, str)  # how a PNG's pixels are stored
    bits = int("".join(letter for letter in raw.partition(";")[2] if letter.isdigit()) or 8)
    if image.mode == "L" and bits < 8 and "transparency" in image.info:
        image.info["transparency"] = image.info["transparency"] * 255 // ((1 << bits) - 1)
    return bits


def _values(image: ImageFile.ImageFile, tag: int) -> tuple[int, ...]:
    """The numbers of a TIFF's field; none if it lacks it."""
    found = _fields(image).get(tag, ())
    return found if isinstance(found, tuple) else (found,)


def _file(image: ImageFile.ImageFile) -> IO[bytes]:
    assert image.fp is not None  # as it is until the pixels are decoded
    return image.fp


def _fields(image: ImageFile.ImageFile) -> Mapping[int, Any]:
    """The fields of a TIFF, by number."""
    from PIL.TiffImagePlugin import TiffImageFile  # which Pillow has imported by now

    assert isinstance(image, TiffImageFile)
    return image.tag_v2


def _jpeg2000_bits(file: IO[bytes]) -> int:
    """The most bits of a channel, from the marker segment SIZ of ISO 15444-1, A.5.1."""
    position = file.tell()
    file.seek(0)
    start = file.read(_CODESTREAM_WITHIN)
    file.seek(position)
    at = start.find(_CODESTREAM)
    if at < 0:
        raise ValueError(f"no image in the first {_CODESTREAM_WITHIN} bytes")
    (channels,) = struct.unpack_from(">H", start, at + 40)
    return max((start[at + 42 + 3 * channel] & 0x7F) + 1 for channel in range(channels))


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height before the image is turned: newer Pillows swap those of a TIFF, and of what is decoded."""
    if image.format == "TIFF":
        return _fields(image)[_WIDTH], _fields(image)[_HEIGHT]
    return image.size


def _has_several_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))  # a GIF's looks for the second frame
    except _DAMAGE:
        return True


def _has_late_metadata(file: IO[bytes]) -> bool:
    """Whether a PNG has text or EXIF behind its pixels, where Pillow meets it only as it decodes them."""
    position, pixels_seen = file.tell(), False
    file.seek(8)
    try:
        for _ in range(_MOST_CHUNKS):
            start = file.read(8)
            length, kind = struct.unpack(">I4s", start) if len(start) == 8 else (0, b"IEND")
            pixels_seen = pixels_seen or kind == b"IDAT"
            if kind == b"IEND" or (pixels_seen and kind in _METADATA_CHUNKS):
                return kind != b"IEND"
            file.seek(length + 4, os.SEEK_CUR)
        return True
    finally:
        file.seek(position)


def to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an RGB or grey image: uint8 [C, H, W], a view of its rows of pixels."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def to_image(pixels_CHW: Tensor) -> Image.Image:
    """An RGB or grey image of uint8 pixels."""
    pixels = pixels_CHW.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels if len(pixels_CHW) > 1 else pixels[:, :, 0])


def encoded_png(image: Image.Image) -> str:
    """An image as the base64 of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decoded_png(text: str) -> Image.Image:
    """The image that `encoded_png` took."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def for_each(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """[function(item) for item in items], where `function` reads image files, in up to `threads` threads.

    The first error ends it. Pillow's warnings concern metadata, or numbers of pixels below `data.max_pixels`, and
    are silenced.
    """
    with warnings.catch_warnings():  # here and not in `load`: it is not thread-safe
        warnings.simplefilter("ignore")
        if threads < 2 or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


@contextmanager
def naming_errors(path: str) -> Iterator[None]:
    """Turn whatever opening or decoding `path` raises into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"'{path}' claims more pixels than is safe to decode; shrink or remove it") from None
    except UnidentifiedImageError:
        raise UserError(
            f"'{path}' is not an image that can be read; move it out of the folders of images, or replace it"
        ) from None
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist, or is a broken link; restore or remove it") from None
    except Exception as error:  # each decoder has its own: OSError, SyntaxError, ValueError, EOFError, struct.error
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read image '{path}' ({reason}); remove or replace it") from None
