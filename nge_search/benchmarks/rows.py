"""Rows of a CSV, each made into something else; what is wrong with one is said with its line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from nge_search.errors import UserError

Row = TypeVar("Row")


def convert_rows(path: Path, convert: Callable[[dict[str, str]], Row]) -> Iterator[Row]:
    """What `convert` makes of each row, given by its columns' names; a byte order mark is passed over.

    Raises:
        UserError: a row that cannot be read, or of which `convert` raises what bad values raise; names the line.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        try:
            for row in rows:
                yield convert(row)
        except KeyError as error:
            raise UserError(f"'{path}' line {rows.line_num}: no column {error}") from None
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"'{path}' after line {rows.line_num}: {error}") from None
        except (ValueError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"'{path}' line {rows.line_num}: {error}") from None


def columns(path: Path) -> list[str]:
    """The names in the first line; none if it is not one of a CSV."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            return next(csv.reader(file), [])
        except csv.Error:
            return []
