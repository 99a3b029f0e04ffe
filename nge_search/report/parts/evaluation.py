"""evaluation.json, what the last test of a retraining found: each part is checked, and left out, by itself."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from nge_search.errors import plain
from nge_search.report.parts.numbers import number

#: Up to this many classes the confusion matrix is drawn.
DRAWN_CLASSES = 30

_MOST_WORST = 24
_LARGEST_COUNT = 10**12
_LONGEST_NAME, _LONGEST_PATH = 60, 300
_PNG_HEADER = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_SIGNATURE = 8  # bytes
_PNG_PARTS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"pHYs", b"sBIT"}
_LARGEST_PNG = 2**18  # bytes; a thumbnail takes some thousand
_LARGEST_SIDE = 256  # pixels; more would let a small file fill the browser's memory

_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class ShownImage:
    """A test image: `label` and `predicted` are positions in the classes, `png` is base64, `loss` may be NaN."""

    name: str
    label: int
    predicted: int
    loss: float
    png: str


@dataclass(frozen=True)
class Evaluation:
    """What the test after `epoch`, counted from 1, found.

    Classes are positions in `classes`; a part that is not known is empty. `per_class` holds (test images, correctly
    classified), `confusion` the counts by true class (rows) and predicted class (columns), `confused` the most
    frequent mistakes (true, predicted, count), largest first.
    """

    epoch: float
    classes: tuple[str, ...]
    per_class: tuple[tuple[int, int], ...]
    confusion: tuple[tuple[int, ...], ...]
    confused: tuple[tuple[int, int, int], ...]
    worst: tuple[ShownImage, ...]


def read_evaluation(document: dict[str, Any]) -> tuple[Evaluation | None, list[str]]:
    """The evaluation, or None without a list of classes; and a line for each part that is left out."""
    classes = class_names(document.get("classes"))
    if not classes:
        return None, ["it has no list of classes and is left out."]
    parts, notes = read_parts(
        document, len(classes), {"per_class": _per_class, "confusion": _confusion, "confused": _confused}
    )
    worst, lost = read_entries(document, "worst", _MOST_WORST, lambda entry: _image(entry, len(classes)))
    return Evaluation(number(document.get("epoch")) + 1, classes, worst=worst, **parts), notes + lost


def class_names(given: Any) -> tuple[str, ...]:
    """The names as they are shown; empty if `given` is no list of names."""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return ()
    return tuple(
        plain(name, _LONGEST_NAME) if name.strip() else f"class {position}" for position, name in enumerate(given)
    )


def read_parts(
    document: dict[str, Any], classes: int, checks: dict[str, Callable[[Any, int], tuple | None]]
) -> tuple[dict[str, tuple], list[str]]:
    """What each check makes of its key, given the number of classes; where that is None, nothing and a note."""
    parts = {key: check(document.get(key), classes) for key, check in checks.items()}
    notes = [f"{key} is not of the expected form and is left out." for key, part in parts.items() if part is None]
    return {key: part or () for key, part in parts.items()}, notes


def read_entries(
    document: dict[str, Any], key: str, most: int, read: Callable[[Any], _Entry | None]
) -> tuple[tuple[_Entry, ...], list[str]]:
    """What `read` makes of the first `most` entries of the list at `key`; a note if it refuses some with None."""
    entries = document.get(key)
    entries = entries[:most] if isinstance(entries, list) else [entries]
    found = tuple(shown for entry in entries if (shown := read(entry)) is not None)
    lost = len(entries) - len(found)
    if not lost:
        return found, []
    words = f"entry of {key} cannot be shown and is" if lost == 1 else f"entries of {key} cannot be shown and are"
    return found, [f"{lost} {words} left out."]


def _per_class(given: Any, classes: int) -> tuple[tuple[int, int], ...] | None:
    if not isinstance(given, list) or len(given) != classes:
        return None
    if not all(are_counts(pair, 2) and pair[1] <= pair[0] for pair in given):
        return None
    return tuple((images, right) for images, right in given)


def _confusion(given: Any, classes: int) -> tuple[tuple[int, ...], ...] | None:
    """Empty where there is none, or none that would be drawn."""
    return () if given is None or classes > DRAWN_CLASSES else square_of_counts(given, classes)


def _confused(given: Any, classes: int) -> tuple[tuple[int, int, int], ...] | None:
    if not isinstance(given, list) or not all(are_counts(entry, 3) and max(entry[:2]) < classes for entry in given):
        return None
    return tuple((true, predicted, count) for true, predicted, count in given)


def _image(given: Any, classes: int) -> ShownImage | None:
    if not isinstance(given, dict):
        return None
    pair = [given.get("label"), given.get("predicted")]
    png = checked_png(given.get("png"))
    if not are_counts(pair, 2) or max(pair) >= classes or png is None:
        return None
    label, predicted = pair
    return ShownImage(image_name(given.get("name")), label, predicted, number(given.get("loss")), png)


def image_name(given: Any) -> str:
    """The name of an image as it is shown; empty if it has none."""
    return plain(given, _LONGEST_PATH) if isinstance(given, str) else ""


def square_of_counts(given: Any, side: int) -> tuple[tuple[int, ...], ...] | None:
    """A row of counts for each of `side` classes, each of that length; None for anything else."""
    if not isinstance(given, list) or len(given) != side or not all(are_counts(row, side) for row in given):
        return None
    return tuple(map(tuple, given))


def are_counts(given: Any, length: int) -> TypeGuard[list[int]]:
    """Whether `given` is a list of that many whole numbers, none of them negative or too large to be meant."""
    whole = isinstance(given, list) and len(given) == length and all(type(value) is int for value in given)
    return whole and all(0 <= value <= _LARGEST_COUNT for value in given)


def checked_png(given: Any) -> str | None:
    """The base64 of a PNG of thumbnail size, encoded anew: no character of the file reaches the page unchecked."""
    if not isinstance(given, str) or len(given) > 2 * _LARGEST_PNG:
        return None
    try:
        data = base64.b64decode(given, validate=True)
    except ValueError:
        return None
    if len(data) > _LARGEST_PNG or not data.startswith(_PNG_HEADER):
        return None
    start = len(_PNG_HEADER)
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (start, start + 4))
    fits = 1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE
    return base64.b64encode(data).decode() if fits and _is_still(data) else None


def _is_still(data: bytes) -> bool:
    """Whether a PNG consists of one picture alone: no animation, no compressed text or profile to unpack."""
    at, kinds = _PNG_SIGNATURE, []
    while at + 12 <= len(data):
        kinds.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at == len(data) and set(kinds) <= _PNG_PARTS and kinds.count(b"IHDR") == 1 and kinds[-1] == b"IEND"
