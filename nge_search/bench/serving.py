"""Forms of a computation in processes of their own, which do a step whenever they are asked to.

Processes apart, because peak memory is a process's; steps in turn, so that a change of the machine's speed
meets all.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from nge_search.errors import UserError


def serve(facts: Any, seconds: Callable[[str], float]) -> None:
    """Print a form's facts, then the seconds of a step for each kind that standard input asks for, by line."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps(seconds(line.strip())), flush=True)


class Served:
    """A form of `nge bench <name>` in a process of its own; that process calls `serve`."""

    def __init__(self, name: str, form: str, words: list[str]):
        command = [sys.executable, "-m", "nge_search.cli", "bench", name, *words, "--form", form, "--serve"]
        self._form = form
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._answer()

    def seconds(self, kind: str) -> float:
        """One step of a kind."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end shows in the answer
            self._process.stdin.write(f"{kind}\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise UserError(f"measuring '{self._form}' ended with exit code {code}; its message is above")
        return json.loads(line)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def in_turn(forms: Mapping[str, Any], kind: str, steps: int) -> dict[str, list[float]]:
    """Seconds of so many steps of a kind, by form; `forms` have a method `seconds`."""
    laps: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(steps):
        for name, form in forms.items():
            laps[name].append(form.seconds(kind))
    return laps
