"""SIGTERM and SIGINT as a polite request: finish the step, save, leave with 128 + the signal's number.

SIGTERM may come twice, from a scheduler and from torchrun; only a second Ctrl-C means "now".
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any] | int | None  # as the module `signal` takes it and gives it


class Interrupted(BaseException):
    """A run was asked to stop and has saved its state.

    Like KeyboardInterrupt it is no Exception: a loop over runs that goes on after errors ends with Ctrl-C.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class InterruptedUnsaved(Interrupted):
    """It could not save: the step that it was to finish first never came. The last checkpoint stays."""


#: What `Interrupts` has received; None while none is entered.
_requested: int | None = None


def requested() -> int | None:
    """The signal that asks this process to stop, for whoever waits for something that may never come."""
    return _requested


class Interrupts:
    """While entered, the first SIGTERM or SIGINT is noted in `received`; a second SIGINT acts at once."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, _Handler] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        self._remember(None)

    @staticmethod
    def _remember(number: int | None) -> None:
        global _requested  # signal handlers belong to the whole process, too
        _requested = number

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, self.received or number
        self._remember(self.received)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
