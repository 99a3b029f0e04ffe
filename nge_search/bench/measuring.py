"""What benchmarks share: a clock that waits for the device, and how they say what was measured where."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch


class Clock:
    """Wall time between moments at which the device's queue is empty.

    Attributes:
        within: seconds spent, since the last `start`, in the methods given to `inside`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.since = self.within = 0.0

    def start(self) -> None:
        self._wait()
        self.since, self.within = time.perf_counter(), 0.0

    def lap(self) -> float:
        """Seconds since the last call of `start` or `lap`."""
        self._wait()
        before, self.since = self.since, time.perf_counter()
        return self.since - before

    @contextlib.contextmanager
    def inside(self, owner: object, *methods: str) -> Iterator[None]:
        """Within this context, add up the time that these methods of `owner` take."""

        def timed(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                self._wait()
                before = time.perf_counter()
                result = method(*arguments)
                self._wait()
                self.within += time.perf_counter() - before
                return result

            return call

        with contextlib.ExitStack() as stack:
            for name in methods:
                stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
            yield

    def median(self, action: Callable[[], Any], count: int = 5) -> float:
        """Median seconds of so many calls."""
        self.start()
        laps = []
        for _ in range(count):
            action()
            laps.append(self.lap())
        return statistics.median(laps)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextlib.contextmanager
def printed(result: dict[str, Any], as_json: bool, lines: Callable[[dict[str, Any]], list[str]]) -> Iterator[None]:
    """Print a result at the end of this context, in which it may grow: also where a failure or SIGTERM ends it."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, leave) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
        print(json.dumps(result, indent=2) if as_json else "\n".join(lines(result)), flush=True)


def heading(result: dict[str, Any]) -> str:
    """Device, versions and settings of a benchmark's result."""
    environment = result["environment"]
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    return (
        f"{environment['device_name']}, {environment['threads']} threads, "
        f"torch {environment['packages']['torch']}, n={result['n']}; {settings}"
    )
