"""Rows of trials in a file, a line of JSON each; what is there is not made again, so a stopped command goes on.

A trial is a frozen data class; its row holds it as "trial".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Row = dict[str, Any]
Trial = TypeVar("Trial")


def read_rows(path: Path, kind: Callable[..., Trial]) -> dict[Trial, Row]:
    """The rows of finished trials, of a kind; a line that a crash cut off is passed over."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[kind(**row["trial"])] = row
    return found


def keep_rows(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Rows as they come, each once it stands in the file, on a line of its own whatever the last one became."""
    ended = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a") as file:
        file.write("" if ended else "\n")
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()
            yield row


def numbers(text: str) -> list[int]:
    """0-2,7 is 0, 1, 2, 7."""
    ends = [part.split("-") for part in text.split(",")]
    return [number for own in ends for number in range(int(own[0]), int(own[-1]) + 1)]
