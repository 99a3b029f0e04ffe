"""Trials that are recorded one by one: each once, over stops and in other people's folders."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nge_search.engine import trials
from nge_search.engine.interrupt import Interrupted
from nge_search.engine.session import open_session
from nge_search.errors import UserError
from nge_search.settings.design import DesignBenchConfig
from nge_search.settings.load import load_config

NUMBERS = (3, 1, 4, 1, 5)


def names(number: int) -> dict[str, int]:
    return {"number": number}


def square(number: int) -> dict[str, float]:
    """And something that is not finite for some."""
    return {"square": number**2, "log": math.log(number) if number != 1 else math.nan}


def carry_out(
    folder: Path,
    judged: Callable[[int], dict[str, float]] = square,
    numbers: Sequence[int] = NUMBERS,
    digest: str = "d",
    progress: str = "none",
) -> tuple[list[dict[str, Any]], float]:
    words = [f"run.dir={folder}", f"run.progress={progress}", "threads=1"]
    with open_session(load_config(DesignBenchConfig, None, words)) as session:
        return trials.carry_out(
            session, numbers, names, judged, digest, ["few numbers"], ("square",), lambda row: str(row["number"])
        )


def recorded(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_of_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, seconds = carry_out(tmp_path, progress="lines")
    assert [(row["epoch"], row["number"], row["square"]) for row in rows] == [
        (place, number, number**2) for place, number in enumerate(NUMBERS)
    ]
    assert [row["log"] for row in rows] == [math.log(3), None, math.log(4), None, math.log(5)]
    assert [row["data"] for row in rows] == ["d"] * 5
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert seconds >= rows[-1]["seconds"]
    assert recorded(tmp_path) == rows
    printed = capsys.readouterr().out.splitlines()
    assert "few numbers" in printed
    assert "4, trial 3/5: square 16" in printed
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {f"square/{number}" for number in NUMBERS}
    assert [(event.step, event.value) for event in events.Scalars("square/1")] == [(2, 1.0), (4, 1.0)]


def test_a_stopped_run_goes_on_behind_its_last_trial(tmp_path: Path) -> None:
    """A signal ends the run behind the trial in which it comes; an error loses the trial that failed, no other."""
    done: list[int] = []

    def stopped(number: int) -> dict[str, float]:
        done.append(number)
        if number == 1:
            signal.raise_signal(signal.SIGTERM)
        return square(number)

    with pytest.raises(Interrupted):
        carry_out(tmp_path, stopped)
    assert done == [3, 1]
    before = recorded(tmp_path)
    assert [row["number"] for row in before] == [3, 1]

    def failing(number: int) -> dict[str, float]:
        if number == 5:
            raise UserError("no five")
        return square(number)

    with pytest.raises(UserError, match="no five"):
        carry_out(tmp_path, failing)
    assert recorded(tmp_path)[:2] == before
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "numb')  # a line that was cut short
    rows, _ = carry_out(tmp_path, lambda number: {"square": -1.0})
    assert [row["square"] for row in rows] == [9, 1, 16, 1, -1]
    assert recorded(tmp_path) == rows
    assert rows[-1]["seconds"] >= rows[-2]["seconds"] >= before[-1]["seconds"]


def test_rows_that_are_not_of_these_trials(tmp_path: Path) -> None:
    carry_out(tmp_path)
    content = (tmp_path / "metrics.jsonl").read_text()
    for words, change in (
        ("on other labels", {"digest": "e"}),
        ("its rows are not those of this run", {"numbers": (3, 2, 4, 1, 5)}),
        ("it has 5 rows of 4", {"numbers": NUMBERS[:4]}),
    ):
        with pytest.raises(UserError, match=words):
            carry_out(tmp_path, **change)
    (tmp_path / "metrics.jsonl").write_text(content.replace('"seconds": ', '"second": '))
    with pytest.raises(UserError, match="does not say its seconds"):
        carry_out(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(content)
    assert [row["square"] for row in carry_out(tmp_path, lambda number: {})[0]] == [9, 1, 16, 1, 25]
