"""segmentation.json, what the last test of a segmentation found, and what dataset.json says of its masks.

Each part is checked, and left out, by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nge_search.report.parts.evaluation import (
    are_counts,
    checked_png,
    class_names,
    image_name,
    read_entries,
    read_parts,
    square_of_counts,
)
from nge_search.report.parts.numbers import number
from nge_search.settings.segmentation import MOST_CLASSES

_MOST_PICTURES = 24


@dataclass(frozen=True)
class Picture:
    """A test image, the classes its mask gives and those predicted, as PNGs in base64."""

    name: str
    image: str
    truth: str
    prediction: str


@dataclass(frozen=True)
class Segmentation:
    """What the test after `epoch`, counted from 1, found on `images` images; either may be NaN.

    A part that is not known is empty. By class, `colours` holds (red, green, blue) up to 255 and `iou` the
    intersection over union from 0 to 1, NaN for a class that neither occurs nor is predicted. `confusion` counts
    pixels by true class (rows) and predicted class (columns).
    """

    epoch: float
    images: float
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    iou: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class MaskShares:
    """What dataset.json says of a set's masks: how many there are, how many were counted, and their pixels.

    `pixels` is by class; `ignored` counts those of no class.
    """

    images: int
    counted: int
    pixels: tuple[int, ...]
    ignored: int


@dataclass(frozen=True)
class Masks:
    """The classes of a run's masks, and what its training and validation masks hold."""

    classes: tuple[str, ...]
    train: MaskShares
    test: MaskShares


def read_masks(document: dict[str, Any]) -> tuple[Masks | None, list[str]]:
    """What was counted in the masks; None for images without, and with a line where it cannot be read."""
    if "masks" not in document:
        return None, []
    classes, given = class_names(document.get("classes")), document["masks"]
    sets = given if isinstance(given, dict) else {}
    train, test = (_shares(sets.get(name), len(classes)) for name in ("train", "test"))
    if not 1 <= len(classes) <= MOST_CLASSES or train is None or test is None:
        return None, ["masks is not of the expected form and is left out."]
    return Masks(classes, train, test), []


def _shares(given: Any, classes: int) -> MaskShares | None:
    if not isinstance(given, dict) or not are_counts(given.get("pixels"), classes):
        return None
    counts = [given.get("images"), given.get("counted"), given.get("ignored")]
    if not are_counts(counts, 3):
        return None
    return MaskShares(counts[0], counts[1], tuple(given["pixels"]), counts[2])


def read_segmentation(document: dict[str, Any]) -> tuple[Segmentation | None, list[str]]:
    """The findings, or None without a list of classes; and a line for each part that is left out."""
    classes = class_names(document.get("classes"))
    if not 1 <= len(classes) <= MOST_CLASSES:
        return None, [f"it has no list of 1 to {MOST_CLASSES} classes and is left out."]
    parts, notes = read_parts(
        document, len(classes), {"colours": _colours, "iou": _iou, "confusion": square_of_counts}
    )
    pictures, lost = read_entries(document, "pictures", _MOST_PICTURES, _picture)
    epoch, images = number(document.get("epoch")) + 1, number(document.get("images"))
    return Segmentation(epoch, images, classes, pictures=pictures, **parts), notes + lost


def _colours(given: Any, classes: int) -> tuple[tuple[int, int, int], ...] | None:
    if not isinstance(given, list) or len(given) != classes:
        return None
    if not all(are_counts(colour, 3) and max(colour) <= 255 for colour in given):
        return None
    return tuple((red, green, blue) for red, green, blue in given)


def _iou(given: Any, classes: int) -> tuple[float, ...] | None:
    if not isinstance(given, list) or len(given) != classes or not all(map(_is_share, given)):
        return None
    return tuple(math.nan if value is None else float(value) for value in given)


def _is_share(given: Any) -> bool:
    """A number from 0 to 1, or a missing one."""
    if given is None:
        return True
    return type(given) in (int, float) and (given != given or 0 <= given <= 1)


def _picture(given: Any) -> Picture | None:
    if not isinstance(given, dict):
        return None
    image, truth, prediction = (checked_png(given.get(part)) for part in ("image", "truth", "prediction"))
    if image is None or truth is None or prediction is None:
        return None
    return Picture(image_name(given.get("name")), image, truth, prediction)
