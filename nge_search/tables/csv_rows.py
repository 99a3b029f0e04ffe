"""Rows of a CSV, each made into something else; what is wrong with one is said with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from nge_search.errors import UserError
from nge_search.files import open_regular

Row = TypeVar("Row")

#: Of a file, and of a row of it in letters.
_LARGEST_BYTES, _LONGEST_ROW = 1 << 30, 1 << 20


def convert_rows(path: Path, convert: Callable[[dict[str, str]], Row]) -> Iterator[Row]:
    """What `convert` makes of each row, given by its columns' names; a byte order mark is passed over.

    Raises:
        UserError: a row that cannot be read, or of which `convert` raises what bad values raise; names the line.
    """
    with _open(path, "strict") as file:
        lines = _Lines(file)
        rows = csv.DictReader(lines)
        try:
            for row in rows:
                yield convert(row)
                lines.taken = 0
        except KeyError as error:
            raise UserError(f"'{path}' line {rows.line_num}: no column {error}") from None
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"'{path}' after line {rows.line_num}: {error}") from None
        except (ValueError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"'{path}' line {rows.line_num}: {error}") from None


def columns(path: Path) -> list[str]:
    """The names in the first line; none if it is not one of a CSV."""
    with _open(path, "replace") as file:
        try:
            return next(csv.reader(_Lines(file)), [])
        except csv.Error:
            return []


class _Lines:
    """The lines of a file; csv.Error where those since `taken` was set to 0, which are one row's, are too long."""

    def __init__(self, file: TextIO):
        self.taken = 0
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LONGEST_ROW + 1)
        self.taken += len(line)
        if self.taken > _LONGEST_ROW:
            raise csv.Error(f"a row of more than {_LONGEST_ROW} letters")
        if not line:
            raise StopIteration
        return line


def _open(path: Path, errors: str) -> TextIO:
    return io.TextIOWrapper(open_regular(path, _LARGEST_BYTES), "utf-8-sig", errors, newline="")
