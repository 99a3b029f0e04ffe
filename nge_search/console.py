"""Printing names that others gave: whatever is in them, a line stays a line, and the command goes on."""

from __future__ import annotations

import io
import sys
from typing import TextIO

from nge_search.errors import printable


def show(*lines: str, file: TextIO | None = None) -> None:
    """Print lines at once; what the stream cannot show, or a terminal would obey, is escaped."""
    stream = sys.stdout if file is None else file
    text = "\n".join(printable(line) for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:  # a full disk, for example: of this stream, and not of a run folder
        error.filename = error.filename or getattr(stream, "name", "standard output")
        raise


def escape_what_cannot_be_shown() -> None:
    """Let standard output escape what its encoding lacks, as standard error does, whoever prints."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
