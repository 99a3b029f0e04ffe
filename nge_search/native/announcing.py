"""Lines for the user from code that knows of no run, such as a compiler that is going to take a while."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar


def _on_stderr(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


#: Of the thread, so that runs of several threads do not take each other's words.
_say: ContextVar[Callable[[str], None]] = ContextVar("_say", default=_on_stderr)
_said: set[str] = set()


def announce(text: str) -> None:
    """Say it once in this process: as the run does that is under way, or on stderr; data workers say nothing."""
    if text not in _said and multiprocessing.parent_process() is None:
        _said.add(text)
        _say.get()(text)


@contextlib.contextmanager
def announced_by(say: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile `say` decides whether, where and by which rank something is announced."""
    before = _say.set(say)
    try:
        yield
    finally:
        _say.reset(before)
