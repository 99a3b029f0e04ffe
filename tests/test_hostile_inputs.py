"""Some of the damaged and hostile inputs of experiments/hostile_inputs.py, each in a process of its own."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EACH = 3


@pytest.fixture
def script(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(checkout / "experiments"))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("hostile_inputs")


def test_no_input_ends_in_a_traceback(script: Any, tmp_path: Path) -> None:
    with script.prepared([], tmp_path / "failed") as trials:
        for trial in trials.values():
            for seed in range(EACH):
                trial.run(seed)
            assert not trial.tally.failed
            assert trial.tally.inputs == trial.tally.accepted + trial.tally.refused == EACH
        assert len(trials) == 9
        first, second = (trials["tables"].run(7)[0] for _ in range(2))
        assert (first.code, first.err) == (second.code, second.err)
    assert not (tmp_path / "failed").exists()


def raise_error(words: list[str]) -> int:
    raise ZeroDivisionError


def say_two_lines(words: list[str]) -> int:
    print("error: one\nand another", file=sys.stderr)
    return 2


def work_without_end(words: list[str]) -> int:
    while True:
        pass


def take_memory(words: list[str]) -> int:
    return len(b"x" * (3 << 29)) & 0


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (raise_error, "traceback"),
        (say_two_lines, "not one line"),
        (work_without_end, "hang"),
        (take_memory, "MB more"),
        (lambda words: 1, "exit code 1"),
        (lambda words: 0, None),
    ],
)
def test_what_is_wrong_is_seen(
    command: Callable[[list[str]], int],
    fault: str | None,
    script: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(script, "run_command", command)
    ended = script.run_apart([], tmp_path / "in", 0.0 if fault == "hang" else 60.0)
    assert (ended.code == -signal.SIGXCPU) == (fault == "hang")
    monkeypatch.setattr(script, "run_command", lambda words: 0)
    faults = script.judge(ended, script.run_apart([], tmp_path / "in", 0.0))
    assert any(fault in given for given in faults) if fault else not faults
