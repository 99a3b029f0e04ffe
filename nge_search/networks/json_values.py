"""Values out of JSON files that a user may have edited: each is checked, and refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.errors import UserError, shorten

_LARGEST_BYTES = 1 << 24


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; UserError, naming it, if there is none."""
    if not path.is_file():
        raise UserError(f"'{path}' does not exist")
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"larger than {_LARGEST_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise UserError(f"{path} is damaged: nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is damaged: not a JSON object")
    return document


@dataclass(frozen=True)
class Reader:
    """Takes values out of a JSON object, and refuses those that do not fit. `source` is the file."""

    source: str
    document: dict[str, Any]

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
    return type(value) in (int, float) and math.isfinite(value)
