"""Lines for the user from code that knows of no run, such as a compiler that is going to take a while."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator


def _on_stderr(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


_say: Callable[[str], None] = _on_stderr
_said: set[str] = set()


def announce(text: str) -> None:
    """Say it once in this process: as the run does that is under way, or on stderr; data workers say nothing."""
    if text not in _said and multiprocessing.parent_process() is None:
        _said.add(text)
        _say(text)


@contextlib.contextmanager
def announced_by(say: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile `say` decides whether, where and by which rank something is announced."""
    global _say
    previous, _say = _say, say
    try:
        yield
    finally:
        _say = previous
