"""A mask in PASCAL VOC's way: which class each pixel of a file is, whatever its image mode and palette.

With classes of the user's own, a mask's values are their numbers, and its colours say nothing.

Legend: H and W sides of a mask in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from nge_search.data.decoding import ON_ITS_SIDE, naming_errors, orientation, upright
from nge_search.data.segmentation.dataset import IGNORED
from nge_search.errors import UserError

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

Colour = tuple[int, int, int]


class Labels(NamedTuple):
    """The classes by the values that stand for them in masks, and whether VOC's colours tell them, too."""

    classes: tuple[str, ...]
    by_colour: bool


#: PASCAL VOC's.
VOC = Labels(VOC_CLASSES, True)

_BLACK = (0, 0, 0)
_SHOWN_VALUES = 5
_ADVICE = "save it as a palette PNG, or with 8 bits of grey, whose values are the classes"
#: Formats that keep every value as it was written. GIFs are written with values numbered anew.
_FORMATS = ("PNG", "BMP", "TIFF")
_LOSSY = ("jpeg", "tiff_jpeg", "webp")
_INTEGERS = ("1", "L", "P", "LA", "PA", "I", "I;16", "I;16B", "I;16L")
_COLOURED = ("RGB", "RGBA")
#: Grey values of 2 and 4 bits stand for numbers that are 85 and 17 times as large, or for themselves.
_FEW_BITS = ("L;2", "L;4")


class MaskHeader(NamedTuple):
    """What a mask's file says of it: sides in pixels as it is turned by `orientation`, EXIF's number for that.

    `colours` are those that its palette gives to classes, by value, where they are no greys, and tell no class.
    """

    width: int
    height: int
    orientation: int
    colours: tuple[tuple[Colour, int], ...] = ()


@cache
def voc_palette() -> tuple[Colour, ...]:
    """The colours of values 0 to 255: bits 0, 3, 6 of a value are R's highest, bits 1, 4, 7 are G's, and so on."""

    def colour(value: int) -> Colour:
        parts = [0, 0, 0]
        for bit in range(8):
            parts[bit % 3] |= (value >> bit & 1) << (7 - bit // 3)
        return parts[0], parts[1], parts[2]

    return tuple(colour(value) for value in range(256))


def read_mask_header(path: str, labels: Labels = VOC) -> MaskHeader:
    """The size and the palette of a mask, without decoding its pixels.

    Raises:
        UserError: no image, or one of a kind that does not keep whole numbers; names the file.
    """
    if not os.path.isfile(path):
        raise UserError(f"mask '{path}' is not a file; add it, or remove its image from the list")
    with naming_errors(path), Image.open(path) as image:
        _require_exact(image, path, labels)
        turn = orientation(image)
        width, height = image.size
        palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    sides = (height, width) if turn >= ON_ITS_SIDE else (width, height)
    colours = _own_colours(bytes(palette or b""), len(labels.classes), labels.by_colour)
    return MaskHeader(*sides, turn, colours)


def load_mask(path: str, labels: Labels = VOC) -> np.ndarray:
    """The classes of a mask, turned as EXIF says: uint8 [H, W], from 0, and IGNORED.

    Whole numbers are classes. In a palette image they are too, unless one that occurs has VOC's colour of another
    class: then the colours are the classes, and each value that occurs must have one of VOC's. RGB images are
    looked up in VOC's palette. Where colours tell no class, RGB images are refused.

    Raises:
        UserError: a damaged file, values or colours that are no classes, transparent pixels; names the file.
    """
    with naming_errors(path), Image.open(path) as image:
        _require_exact(image, path, labels)
        before = orientation(image)
        image.load()
        late = orientation(image) not in (before, 1)
        turned = upright(image)
        palette = turned.getpalette("RGB") if turned.mode in ("P", "PA") else None
    if late:
        raise UserError(f"mask '{path}' has its EXIF orientation behind its pixels; save it anew")
    values = np.asarray(turned)
    if turned.mode in ("LA", "PA", "RGBA"):
        if (values[..., -1] != 255).any():
            raise UserError(f"mask '{path}' has transparent pixels, whose class is not clear; {_ADVICE}")
        values = values[..., 0] if turned.mode != "RGBA" else values[..., :3]
    if turned.mode in _COLOURED:
        return _look_up(values, path)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if palette is not None:
        values = _by_palette(values, bytes(palette), path, labels)
    return _checked(values, path, labels)


def _require_exact(image: ImageFile.ImageFile, path: str, labels: Labels) -> None:
    """Refuse what Pillow does not read value for value, and colours where they tell no class."""
    compression = str(image.info.get("compression", ""))
    if image.format not in _FORMATS or compression in _LOSSY:
        kind = compression or image.format
        raise UserError(f"mask '{path}' is stored as {kind}, which may change values; {_ADVICE}")
    if image.mode not in (*_INTEGERS, *_COLOURED):
        raise UserError(f"mask '{path}' has mode {image.mode}; {_ADVICE}")
    if image.mode in _COLOURED and not labels.by_colour:
        raise UserError(
            f"mask '{path}' has mode {image.mode}, but with classes of your own no colour tells which is meant; "
            f"{_ADVICE}"
        )
    raw = _raw_mode(image)
    if ";16" in raw and not image.mode.startswith("I"):
        raise UserError(f"mask '{path}' has more than 8 bits per channel; {_ADVICE}")
    if raw.startswith(_FEW_BITS):
        raise UserError(f"mask '{path}' has {raw[2]} bits of grey, which may be stretched; {_ADVICE}")
    if ";" in raw and "I" in raw.partition(";")[2]:
        raise UserError(f"mask '{path}' stores its values inverted (mode {raw}); {_ADVICE}")
    if image.format == "TIFF" and orientation(image) != 1:
        raise UserError(f"mask '{path}' is a TIFF with an orientation; {_ADVICE}")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's name of how the pixels are stored, before they are decoded; empty if the format has none."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _by_palette(values_HW: np.ndarray, palette: bytes, path: str, labels: Labels) -> np.ndarray:
    """Classes of a palette image, as `load_mask` says."""
    grey = _renumbered_grey(palette, len(labels.classes))
    if grey is not None:
        raise UserError(
            f"mask '{path}' has a palette of greys, {grey[1]} for the value {grey[0]}, so that either may be the "
            "class; save the classes as 8 bits of grey"
        )
    if not labels.by_colour:
        return values_HW
    named = _named(palette)
    moved = {value: meant for value, meant in enumerate(named) if meant not in (None, value)}
    used = np.flatnonzero(np.bincount(values_HW.ravel(), minlength=256)).tolist() if moved else []
    if not moved.keys() & set(used):
        return values_HW
    strange = next((value for value in used if named[value] is None), None)
    if strange is not None:
        known = min(moved.keys() & set(used))
        meant = moved[known]
        name = VOC_CLASSES[meant] if meant < len(VOC_CLASSES) else "void"
        colour = tuple(palette[3 * strange : 3 * strange + 3]) or "no colour"
        raise UserError(
            f"mask '{path}' has VOC's colour of '{name}' for the value {known}, but {colour}, which is no class's, "
            f"for {strange}; give it VOC's palette, or save the classes as 8 bits of grey"
        )
    table = np.array([value if meant is None else meant for value, meant in enumerate(named)], dtype=np.uint8)
    return table[values_HW]


@lru_cache(maxsize=64)
def _renumbered_grey(palette: bytes, classes: int) -> tuple[int, int] | None:
    """A value and its grey that differ, where all greys are classes: so do compressors store grey masks."""
    red, green, blue = (palette[channel::3].rstrip(b"\0") for channel in range(3))
    if not red == green == blue or not all(grey < classes or grey == IGNORED for grey in red):
        return None
    return next(((value, grey) for value, grey in enumerate(red) if grey not in (value, 0, IGNORED)), None)


@lru_cache(maxsize=64)
def _own_colours(palette: bytes, classes: int, by_colour: bool) -> tuple[tuple[Colour, int], ...]:
    """Colours of a palette that name no class by themselves, each with its value; none that occurs twice."""
    colours = list(zip(palette[0::3], palette[1::3], palette[2::3]))[:classes]
    telling = voc_palette() if by_colour else ()
    return tuple(
        (colour, value)
        for value, colour in enumerate(colours)
        if len(set(colour)) > 1 and colour not in telling and colours.count(colour) == 1
    )


@lru_cache(maxsize=64)
def _named(palette: bytes) -> tuple[int | None, ...]:
    """By value, the class (or IGNORED) whose colour it has; None where that is no class's, or says nothing.

    A grey ramp says nothing, nor does black behind a first entry that is black already: so are palettes filled up.
    """
    classes = {voc_palette()[value]: value for value in (*range(len(VOC_CLASSES)), IGNORED)}
    colours = [tuple(palette[at : at + 3]) for at in range(0, len(palette), 3)]
    named: list[int | None] = [None] * 256
    for value, colour in enumerate(colours):
        ramp = value > 0 and colour == (value, value, value)
        filling = value > 0 and colour == _BLACK == colours[0]
        named[value] = None if ramp or filling else classes.get(colour)
    return tuple(named)


def _checked(values_HW: np.ndarray, path: str, labels: Labels) -> np.ndarray:
    """Whole numbers as uint8, if all of them are classes or IGNORED."""
    classes = len(labels.classes)
    wrong_HW = ((values_HW >= classes) & (values_HW != IGNORED)) | (values_HW < 0)
    if wrong_HW.any():
        unknown = np.unique(values_HW[wrong_HW]).tolist()
        shown = ", ".join(map(str, unknown[:_SHOWN_VALUES])) + (", ..." if len(unknown) > _SHOWN_VALUES else "")
        raise UserError(
            f"mask '{path}' has the value{'s' * (len(unknown) > 1)} {shown}; allowed are 0 to "
            f"{classes - 1}, and {IGNORED} for pixels that do not count"
            + (
                "; data.classes=[...] names classes of your own"
                if labels.by_colour
                else f"; {classes} classes are named, the background first"
            )
        )
    return values_HW.astype(np.uint8)


def _look_up(colours_HW3: np.ndarray, path: str) -> np.ndarray:
    """Classes of colours."""
    wide = colours_HW3.astype(np.int32)
    codes_HW = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    known, values = _codes_of_palette()
    places_HW = np.searchsorted(known, codes_HW).clip(max=len(known) - 1)
    strange_HW = known[places_HW] != codes_HW
    if strange_HW.any():
        colour = tuple(colours_HW3[strange_HW][0].tolist())
        raise UserError(
            f"mask '{path}' is an RGB image with the colour {colour}, which is not in VOC's palette; save it as a "
            "palette PNG whose values are classes"
        )
    return values[places_HW]


@cache
def _codes_of_palette() -> tuple[np.ndarray, np.ndarray]:
    """The colours of classes and of IGNORED as numbers 0xRRGGBB, sorted, and their values."""
    values = np.array([*range(len(VOC_CLASSES)), IGNORED], dtype=np.uint8)
    codes = np.array([_code(voc_palette()[value]) for value in values.tolist()])
    order = codes.argsort()
    return codes[order], values[order]


def _code(colour: Sequence[int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
