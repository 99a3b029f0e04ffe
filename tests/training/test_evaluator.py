"""Trainings that answer a search: each once, dead ones recorded, in one process or in several."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nge_search
from nge_search.cli import main
from nge_search.engine.interrupt import Interrupted
from nge_search.errors import UserError
from nge_search.settings.load import load_config
from nge_search.settings.strategies import QueriesConfig
from nge_search.spaces import NasBench201Space
from nge_search.training import trial_processes
from nge_search.training.evaluator import TrainingEvaluator, open_trainings
from nge_search.training.short import ShortTraining
from nge_search.training.trial_processes import TrialProcesses

CODES = [(3, 3, 3, 3, 3, 3), (1, 1, 1, 1, 1, 1), (2, 0, 1, 3, 4, 2)]


@pytest.fixture
def search(tmp_path: Path, short: tuple[str, ...]) -> Callable[..., list[str]]:
    """The words of a search by trainings in a folder of the given name."""

    def words(name: str, *own: str) -> list[str]:
        common = ["task=queries", "evaluator.kind=training", "evaluator.space=nasbench201", "strategy.queries=3"]
        return [*short, *common, "strategy.name=random", f"run.dir={tmp_path / name}", *own]

    return words


@pytest.fixture
def open_evaluator(search: Callable[..., list[str]]) -> Callable[..., TrainingEvaluator]:
    said: list[str] = []

    def opened(name: str, *own: str) -> TrainingEvaluator:
        config = load_config(QueriesConfig, None, search(name, *own))
        found = open_trainings(config, config.evaluator, NasBench201Space(), torch.device("cpu"), said.append)
        found.said = said
        return found

    return opened


def rows_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def dying(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Let steps fail; the list gets a number for each attempt."""
    attempts: list[int] = []

    def fail(task: ShortTraining, batch: object, epoch: int) -> None:
        attempts.append(len(attempts))
        raise error

    monkeypatch.setattr(ShortTraining, "train_step", fail)
    return attempts


def test_a_value_is_the_signal_to_maximise(open_evaluator) -> None:
    evaluator = open_evaluator("a")
    evaluation, figures = evaluator(CODES[0]), evaluator.figures(CODES[0])
    assert evaluation.value == -figures["valid_loss"]
    assert evaluation.cost == figures["seconds"] > 0
    assert evaluator.score(CODES[0]) == figures["valid_top1"]
    assert open_evaluator("a", "evaluator.signal=valid_loss").figures(CODES[0]) == figures  # read, not trained
    for name, sign in (("valid_top1", 1), ("train_losses", -1)):
        other = open_evaluator(name, f"evaluator.signal={name}")
        assert other(CODES[0]).value == sign * figures[name]


def test_a_training_that_dies_is_started_once_more_and_then_recorded(
    open_evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, worst in (
        ("valid_loss", -2 * math.log(10)),
        ("valid_top1", 0.0),
        ("train_losses", -8 * math.log(10)),
    ):
        evaluator = open_evaluator(name, f"evaluator.signal={name}")
        with monkeypatch.context() as patch:
            attempts = dying(patch, RuntimeError("out of memory\nand more"))
            assert evaluator(CODES[1]).value == pytest.approx(worst)
            assert evaluator.row(CODES[1]) == {"failed": "RuntimeError: out of memory"}
            assert len(attempts) == 2
        (recorded,) = (tmp_path / name / "trials").glob("*/failed.json")
        assert json.loads(recorded.read_text()) == {"reason": "RuntimeError: out of memory", "attempts": 2}
        again = open_evaluator(name, f"evaluator.signal={name}")
        assert again.row(CODES[1]) == {"failed": "RuntimeError: out of memory"}  # also now that it would not die
    assert [line.rpartition("; ")[2] for line in evaluator.said[:2]] == [
        "it is started once more",
        "it counts as failed",
    ]


def test_a_loss_that_is_not_finite_fails(open_evaluator) -> None:
    assert "not finite" in open_evaluator("a", "evaluator.learning_rate=1e38").row(CODES[0])["failed"]


def test_a_training_that_dies_once_counts(open_evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_evaluator("whole")(CODES[0])
    step, attempts = ShortTraining.train_step, []

    def die_once(task: ShortTraining, batch: object, epoch: int) -> None:
        attempts.append(task)
        if len(attempts) == 3:
            raise RuntimeError("once")
        step(task, batch, epoch)

    monkeypatch.setattr(ShortTraining, "train_step", die_once)
    assert open_evaluator("once")(CODES[0]).value == expected.value


def test_other_images_are_refused(open_evaluator) -> None:
    open_evaluator("a")(CODES[0])
    evaluator = open_evaluator("a")
    changed = dataclasses.replace(evaluator._images.dataset, classes=(*"abcdefghij",))
    evaluator._images = dataclasses.replace(evaluator._images, dataset=changed)
    with pytest.raises(UserError, match="holds a training on other images"):
        evaluator(CODES[0])


def test_a_search_by_trainings_however_it_is_carried_out(
    search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_listed, capsys
) -> None:
    """In one process; stopped within a training; and in two processes, with the same answers."""
    whole, cut, two = tmp_path / "whole", tmp_path / "cut", tmp_path / "two"
    pending = "evaluator.pending=2"
    assert main(["search", *search("whole", pending)]) == 0
    printed = capsys.readouterr().out
    summary, rows = json.loads((whole / "summary.json").read_text()), rows_of(whole)
    assert len(rows) == 3
    assert summary["signal"] == max(row["signal"] for row in rows) == -min(row["valid_loss"] for row in rows)
    assert f"validation loss {-summary['signal']:.4g}" in printed
    assert len(list((whole / "trials").glob("*/summary.json"))) == 3
    report = (whole / "report.html").read_text()
    assert "Signal: valid loss" in report
    require_listed(whole)

    step, taken = ShortTraining.train_step, iter(range(100))

    def stopped(task: ShortTraining, batch: object, epoch: int) -> None:
        if next(taken) == 6:
            signal.raise_signal(signal.SIGTERM)
        step(task, batch, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(ShortTraining, "train_step", stopped)
        with pytest.raises(Interrupted):
            nge_search.search(None, *search("cut", pending))
    assert rows_of(cut) == rows[:1]
    with pytest.raises(UserError, match=r"evaluator\.steps was 4, now 5"):
        nge_search.search(None, *search("cut", pending, "evaluator.steps=5"))
    nge_search.search(None, *search("cut", pending))
    assert rows_of(cut) == rows

    nge_search.search(None, *search("two", pending, "evaluator.processes=2"))
    assert rows_of(two) == rows
    assert main(["search", *search("whole", pending, "strategy.queries=2", "run.overwrite=true")]) == 0
    assert len(list((whole / "trials").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluator.processes=2"], "evaluator.processes=2: a strategy asks for evaluator.pending=1 architectures"),
        (["evaluator.cells=4"], "evaluator.cells=4: networks of nasbench201 have three stages"),
        (["evaluator.images=3"], "evaluator.images=3: too few for 10 classes"),
        (["benchmark.table=t"], "benchmark.table=t: evaluator.kind=training asks no table; leave it out"),
        (["evaluator.space=nasbench"], "evaluator.space=nasbench: allowed are darts, "),
        (["evaluator.kind=train"], "did you mean 'training'?"),
        (
            ["evaluator.operations=[skip_connect,sep_conv_3x3]"],
            "fixed in evaluator.space=nasbench201; leave it out",
        ),
        (["evaluator.operations=[blurr,sep_conv_3x3]"], "evaluator.operations=blurr: allowed are skip_connect, "),
        (["evaluator.operations=[skip_connect]"], "a search needs at least two operations"),
        (["evaluator.operations=[skip_connect,skip_connect]"], "one stands there twice"),
        (["data.name=folder", "data.root=nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(search, tmp_path: Path, words: list[str], message: str, capsys) -> None:
    assert main(["search", *search("run", *words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


WORKER = """
import json, os, sys, time
folder = {folder!r}
if sys.argv[1] != "cpu" or os.path.exists(folder + "/broken"):
    sys.exit(5)
print(json.dumps({{"ready": True}}), flush=True)
for line in sys.stdin:
    name = json.loads(line)["run"]["name"]
    with open(os.path.join(folder, name), "a") as file:
        file.write("x")
    if name == "fatal" or (name == "weak" and os.path.getsize(os.path.join(folder, name)) == 1):
        os._exit(3)
    if name == "endless":
        time.sleep(600)
    said = {{"error": "no images"}} if name == "error" else {{"valid_loss": len(name)}}
    print(json.dumps(said), flush=True)
"""


@pytest.fixture
def processes(search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two processes that only pretend, and what makes trainings of a name for them."""
    (tmp_path / "pretending.py").write_text(WORKER.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(TrialProcesses, "module", "pretending")
    said: list[str] = []
    found = TrialProcesses(2, torch.device("cpu"), 2, said.append)
    config = load_config(QueriesConfig, None, search("run"))

    def named(name: str) -> QueriesConfig:
        run = dataclasses.replace(config.run, name=name, dir=str(tmp_path / "run" / name))
        return dataclasses.replace(config, run=run)

    yield found, named, said
    found.close()


def test_processes_that_die(processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, named, said = processes
    for name in ("fatal", "weak", "good"):
        found.put(named(name))
    assert found.result(named("good")) == {"valid_loss": 4}
    assert found.result(named("weak")) == {"valid_loss": 4}
    assert "exit code 3" in found.result(named("fatal"))["failed"]
    assert [(tmp_path / name).read_text() for name in ("fatal", "weak", "good")] == ["xx", "xx", "x"]
    assert sorted(line.split(":")[0] for line in said) == [
        *["training fatal died"] * 2,
        "training weak died",
    ]
    found.put(named("endless"))
    monkeypatch.setattr(trial_processes, "requested", lambda: 15)
    with pytest.raises(Interrupted):
        found.result(named("endless"))
    monkeypatch.undo()


def test_an_error_of_the_images_ends_the_search(processes, tmp_path: Path) -> None:
    found, named, _ = processes
    with pytest.raises(UserError, match="no images"):
        found.result(named("error"))
    (tmp_path / "broken").touch()
    with pytest.raises(UserError, match=r"ended before it began \(exit code 5\); set evaluator.processes=1"):
        found.result(named("good"))
