"""JSON that a user, or a stranger, may have written: parsed within limits, values checked, refused in one line."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.errors import UserError, shorten
from nge_search.files import read_bytes, read_lines

LARGEST_BYTES = 1 << 26
#: A value takes up to some two hundred bytes of memory, however short it is in the file.
MOST_VALUES = 2_000_000

#: Of a file of JSON lines, and of one of its lines.
LARGEST_LINES, LONGEST_LINE = 1 << 28, 1 << 20


def read_json(path: Path, limit: int = LARGEST_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes; UserError, naming it, if there is none."""
    document = parse_json(read_bytes(path, limit), str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path} is damaged: not a JSON object")
    return document


def parse_json(text: str | bytes, source: str, most: int = MOST_VALUES) -> Any:
    """The value of a JSON text, made of at most `most` values; `source` names it in messages.

    Raises:
        UserError: it is no JSON, nested too deeply, has too many values, a number of thousands of digits, or a key
            twice.
    """
    if count_values(text) > most:
        raise UserError(f"{source} has more than the {most} values that such a file may have")
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (RecursionError, MemoryError):
        raise UserError(f"{source} is damaged: nested too deeply") from None
    except UserError as error:
        raise UserError(f"{source} is damaged: {error}") from None
    except ValueError as error:
        raise UserError(f"{source} is damaged: not valid JSON ({error})") from None


def count_values(text: str | bytes) -> int:
    """At least as many as a JSON text has values, told without parsing it: it counts what begins one."""
    if isinstance(text, bytes):
        return 1 + sum(text.count(mark) for mark in (b",", b"[", b"{"))
    return 1 + sum(text.count(mark) for mark in (",", "[", "{"))


def read_json_lines(path: Path, limit: int = LARGEST_LINES) -> Iterator[tuple[bytes, Any]]:
    """The lines of a file and the JSON value of each, None where it is none (a crash may cut the last one short).

    Raises:
        UserError: no ordinary file, or one that is too large or has a line that is; names it.
    """
    for line in read_lines(path, limit, LONGEST_LINE):
        try:
            yield line, parse_json(line, str(path))
        except UserError:
            yield line, None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise UserError(f"key {shorten(twice)} is given twice")
    return document


@dataclass(frozen=True)
class Reader:
    """Takes values out of a JSON object, and refuses those that do not fit. `source` is the file."""

    source: str
    document: dict[str, Any]

    def any(self, key: str) -> Any:
        """A value of whatever kind, which is there."""
        return self._take(key, "", lambda value: True)

    def section(self, key: str) -> Reader:
        return Reader(self.source, self._take(key, "an object", lambda value: isinstance(value, dict)))

    def text(self, key: str, choices: Sequence[str] = ()) -> str:
        words = f"one of {', '.join(choices)}" if choices else "text"
        return self._take(key, words, lambda value: isinstance(value, str) and (not choices or value in choices))

    def integer(self, key: str, low: int, high: int) -> int:
        return self._take(key, f"an integer from {low} to {high}", lambda value: _is_integer(value, low, high))

    def integers(self, key: str, count: int, low: int, high: int) -> list[int]:
        words = f"{count} integers from {low} to {high}"
        return self._take(
            key, words, lambda values: _is_list(values, count) and all(_is_integer(x, low, high) for x in values)
        )

    def numbers(self, key: str, count: int, above: float = -math.inf) -> list[float]:
        words = f"{count} numbers" + (f" above {above}" if above > -math.inf else "")
        return self._take(
            key, words, lambda values: _is_list(values, count) and all(_is_number(x) and x > above for x in values)
        )

    def number(self, key: str, above: float, at_most: float) -> float:
        words = f"a number above {above} and at most {at_most}"
        return self._take(key, words, lambda value: _is_number(value) and above < value <= at_most)

    def names(self, key: str) -> list[str]:
        return self._take(
            key,
            "a list of names",
            lambda values: _is_list(values) and bool(values) and all(isinstance(name, str) for name in values),
        )

    def texts(self, key: str) -> dict[str, str]:
        return dict(
            self._take(
                key,
                "an object of texts",
                lambda value: (
                    isinstance(value, dict) and all(isinstance(x, str) for pair in value.items() for x in pair)
                ),
            )
        )

    def _take(self, key: str, words: str, fits: Callable[[Any], bool]) -> Any:
        if key not in self.document:
            raise UserError(f"{self.source} is damaged: '{key}' is missing")
        value = self.document[key]
        if not fits(value):
            raise UserError(f"{self.source} is damaged: '{key}' must be {words}, not {shorten(value)}")
        return value


def _is_list(values: Any, count: int | None = None) -> bool:
    return isinstance(values, list) and count in (None, len(values))


def _is_integer(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    """Whether it is finite, as a number of floating point, too."""
    return abs(value) < 1 << 1023 if type(value) is int else type(value) is float and math.isfinite(value)
