"""JSON that a user, or a stranger, may have written: parsed within limits, values checked, refused in one line."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.errors import UserError, shorten
from nge_search.files import read_bytes

LARGEST_BYTES = 1 << 24


def read_json(path: Path, limit: int = LARGEST_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes; UserError, naming it, if there is none."""
    document = parse_json(read_bytes(path, limit), str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path} is damaged: not a JSON object")
    return document


def parse_json(text: str | bytes, source: str) -> Any:
    """The value of a JSON text; `source` names it in messages.

    Raises:
        UserError: it is no JSON, nested too deeply, has a number of thousands of digits, or names a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (RecursionError, MemoryError):
        raise UserError(f"{source} is damaged: nested too deeply") from None
    except UserError as error:
        raise UserError(f"{source} is damaged: {error}") from None
    except ValueError as error:
        raise UserError(f"{source} is damaged: not valid JSON ({error})") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise UserError(f"key {shorten(counts.most_common(1)[0][0])} is given twice")
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
