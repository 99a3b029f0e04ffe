"""A process of our own that answers lines with lines, over its standard input and output.

It is `python -m MODULE WORDS...`. What it is asked, and answers, is a line each; what it answers is JSON.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nge_search.json_reader import parse_json

_LONGEST_ANSWER = 1 << 26


class LineProcess:
    """The process, and the lines that go to it and come back.

    Args:
        module: of the package.
        words: behind it on the command line.
        environment: of the process; by default that of this one.
        loud: what it writes to standard error is shown.
    """

    def __init__(
        self, module: str, words: Sequence[str], environment: Mapping[str, str] | None = None, loud: bool = False
    ):
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if loud else subprocess.DEVNULL,
            env={**(os.environ if environment is None else environment), "PYTHONPATH": paths},
            start_new_session=True,  # an interrupt is for the process that asks, which closes this one
        )
        self._said = bytearray()

    @property
    def has_answer(self) -> bool:
        """Whether a whole line has come that nobody has taken; `select` knows nothing of it."""
        return b"\n" in self._said

    def fileno(self) -> int:
        """Readable when an answer, or a part of one, is there; for `select`."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ask(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end shows in the answer
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next line; raises TimeoutError, or EOFError if the process has ended."""
        until = time.monotonic() + seconds
        while not self.has_answer:
            ready, _, _ = select.select([self], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(self.fileno(), 1 << 20)
            self._said += part
            if not part or len(self._said) > _LONGEST_ANSWER:
                raise EOFError
        line, _, rest = bytes(self._said).partition(b"\n")
        self._said = bytearray(rest)
        document = parse_json(line, "an answer")
        assert isinstance(document, dict)
        return document

    def terminate(self) -> None:
        """Ask it to stop, as a scheduler would."""
        self._process.terminate()

    def close(self, patience: float) -> int:
        """End the process, after so many seconds if it does not end by itself; returns its exit code."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return self._process.wait()
