"""Runs that are looked into from Python while they go, and read from their folders."""

from __future__ import annotations

import json
import random
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nge_search
from nge_search import Genotype, Run, UserError
from nge_search.architecture.load import load_architecture
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.checkpoint_parts import read_stopped
from nge_search.engine.distributed import World
from nge_search.engine.loop import Loop
from nge_search.settings.search import SearchConfig

pytestmark = pytest.mark.usefixtures("unreported")
TRAINING = (
    "threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=40", "train.batch_size=20",
)  # fmt: skip
#: Two steps an epoch, and three of each evaluation.
STOPPING = (*TRAINING, "train.epochs=5", "train.evaluate_every=3")
TIMES = ("seconds", "images_per_second", "peak_memory_mb")
RowsOf = Callable[[Path], list[dict[str, Any]]]
StoppedAt = Callable[[int], AbstractContextManager[None]]


def linear() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def unseen(place: Path, tiny_search: tuple[str, ...]) -> Path:
    """A search of two epochs that nobody looks into."""
    nge_search.search(None, *tiny_search, f"run.dir={place / 'unseen'}")
    return place / "unseen"


@pytest.fixture(scope="module")
def seen(place: Path, tiny_search: tuple[str, ...]) -> tuple[Path, list[dict[str, Any]]]:
    """The same with a look after every epoch, which draws random numbers; the first one fails, and the run goes on.

    With what was seen.
    """
    found: list[dict[str, Any]] = []

    def look(run: Run) -> None:
        supernet, embedding = run.networks["supernet"], run.networks["embedding"]
        logits = supernet(torch.rand(2, 1, 8, 8), *embedding())
        logits.sum().backward()
        random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
        found.append(
            {
                "p": run.p, "edge": run.edge(0, 2), "epoch": run.epoch, "epochs": run.epochs, "text": repr(run),
                "metrics": run.metrics, "genotype": run.genotype, "logits": logits.shape, "rows": len(run.history),
                "summary": run.summary, "cells": run.cells, "saved": bool(list(run.folder.glob("checkpoints/*"))),
            }
        )  # fmt: skip

    def look_and_fail(run: Run) -> None:
        look(run)
        raise ZeroDivisionError("mine")

    words = (*tiny_search, f"run.dir={place / 'seen'}")
    with pytest.raises(ZeroDivisionError, match="mine"):
        nge_search.search(None, *words, on_epoch=look_and_fail)
    nge_search.search(None, *words, on_epoch=look)
    return place / "seen", found


def test_a_look_after_every_epoch_sees_it_and_leaves_no_trace(
    unseen: Path, seen: tuple[Path, list], rows_of: RowsOf
) -> None:
    run, found = seen
    assert rows_of(run) == rows_of(unseen)
    states = [CheckpointFolder(folder / "checkpoints").load_newest()[0] for folder in (run, unseen)]
    assert torch.equal(states[0]["random"]["torch"], states[1]["random"]["torch"])
    for number, (one, row) in enumerate(zip(found, rows_of(unseen)), start=1):
        assert (one["epoch"], one["epochs"], one["rows"], one["saved"]) == (number, 2, number, True)
        assert one["metrics"]["valid_top1"] == row["valid_top1"]
        assert one["summary"] is None
        assert one["cells"] == ("normal", "reduce")
        for cell in one["cells"]:
            assert np.array_equal(one["p"][cell], np.array(row[f"p_{cell}"]))
            assert one["p"][cell].sum(axis=1) == pytest.approx(1)
        at = row["edges"].index([0, 2])
        assert one["edge"] == dict(zip(row["operations"], row["p_normal"][at]))
        assert one["genotype"] == Genotype.from_dict(row["genotype"])
        assert one["logits"] == (2, 10)
        assert one["text"] == f"<Run '{run}': search, after epoch {number} of 2>"
    assert len(found) == 2


def test_a_folder_is_read_as_a_run(seen: tuple[Path, list], rows_of: RowsOf) -> None:
    run = Run.load(seen[0])
    assert (run.kind, run.epoch, run.epochs) == ("search", 2, 2)
    assert run.genotype == nge_search.derive(seen[0])
    assert run.summary["genotype"] == run.architecture.document
    assert run.settings["search"]["epochs"] == 2
    trace_TEO = run.trace("reduce")
    assert trace_TEO.shape == (2, len(run.edges), len(run.operations))
    assert np.array_equal(trace_TEO[1], np.array(rows_of(seen[0])[1]["p_reduce"]))
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert type(run.metrics["epoch"]) is int


def test_notebooks_show_runs_and_cells(seen: tuple[Path, list]) -> None:
    html = Run.load(seen[0])._repr_html_()
    assert "epoch 2 of 2, finished" in html
    assert html.count("<tr>") == 3
    assert "valid_top1" in html
    assert html.count("<svg") == 1
    for banned in ("<script", "http-equiv", "<link"):
        assert banned not in html
    genotype = Run.load(seen[0]).genotype
    for shown in (genotype, genotype.normal, load_architecture("darts_v2")):
        drawing = ElementTree.fromstring(shown._repr_svg_())
        assert drawing.tag.endswith("svg")
        assert len(list(drawing.iter())) > 50


def test_what_stands_in_a_folder_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "<b>run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "<script>": 1.5, "train_loss": 2}\n')
    html = Run.load(folder)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<b>run" not in html


@pytest.mark.parametrize(("every", "epochs"), [(1, 1), (0, 2), (3, 2)])
def test_stop_ends_a_run_after_the_first_epoch_that_is_evaluated(
    every: int, epochs: int, tmp_path: Path, rows_of: RowsOf
) -> None:
    words = (*TRAINING, "train.epochs=5", f"train.evaluate_every={every}", f"run.dir={tmp_path / 'run'}")
    network = linear()
    summary = nge_search.evaluate(None, *words, network=network, on_epoch=lambda run: run.stop())
    assert summary["epochs"] == epochs
    assert summary["stopped"] == f"stopped after epoch {epochs} of 5, as on_epoch asked"
    found = rows_of(tmp_path / "run")
    assert ["test_top1" in row for row in found] == [False] * (epochs - 1) + [True]
    assert summary["top1_error"] == 100 - found[-1]["test_top1"]
    again = nge_search.evaluate(None, *words, network=network, on_epoch=lambda run: pytest.fail("it has finished"))
    assert again == summary


@pytest.fixture(scope="module")
def stopped(place: Path) -> tuple[Path, dict[str, Any]]:
    """A training of 5 epochs that was asked to stop after the first, and so ended after the second; its summary."""
    words = (*STOPPING, f"run.dir={place / 'stopped'}")
    return place / "stopped", nge_search.evaluate(None, *words, network=linear(), on_epoch=lambda run: run.stop())


@pytest.mark.parametrize("step", [3, 6])  # the first of the second epoch, and one of its evaluation
def test_a_run_that_was_asked_to_stop_and_then_killed_stops_all_the_same(
    step: int, stopped: tuple[Path, dict[str, Any]], tmp_path: Path, rows_of: RowsOf, stopped_at: StoppedAt
) -> None:
    words, module = (*STOPPING, f"run.dir={tmp_path}"), linear()
    with stopped_at(step), pytest.raises(nge_search.Interrupted):
        nge_search.evaluate(None, *words, network=module, on_epoch=lambda run: run.stop())
    summary = nge_search.evaluate(None, *words, network=module)
    assert rows_of(tmp_path) == rows_of(stopped[0])
    assert {**summary, **{time: stopped[1][time] for time in TIMES}} == stopped[1]


def test_a_run_that_was_stopped_and_killed_before_its_result_has_it_all_the_same(
    stopped: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*STOPPING, f"run.dir={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr("nge_search.report.write_report", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            nge_search.evaluate(None, *words, network=linear(), on_epoch=lambda run: run.stop())
    summary = nge_search.evaluate(None, *words, network=linear())
    assert {**summary, **{time: stopped[1][time] for time in TIMES}} == stopped[1]


@pytest.mark.parametrize("evaluated", [[False, True, True], [False, True, True, False, False, True]])
def test_a_run_that_was_stopped_and_killed_goes_on_where_its_epochs_are_changed(
    evaluated: list[bool], tmp_path: Path, rows_of: RowsOf, stopped_at: StoppedAt
) -> None:
    """Killed within the evaluation of its last epoch, which is finished as such."""
    words, module = (*STOPPING, f"run.dir={tmp_path}"), linear()
    with stopped_at(6), pytest.raises(nge_search.Interrupted):
        nge_search.evaluate(None, *words, network=module, on_epoch=lambda run: run.stop())
    words = (*words, f"train.epochs={len(evaluated)}")
    assert "stopped" not in nge_search.evaluate(None, *words, network=module)
    assert ["test_top1" in row for row in rows_of(tmp_path)] == evaluated


@pytest.mark.parametrize("given", [3, [2], [2, 3], [0, "stopped"], [4, "stopped"], [1, ""], ["2", "stopped"]])
def test_a_damaged_note_of_a_stop_is_named(given: Any) -> None:
    with pytest.raises(UserError, match=r"a file is damaged: 'stopped' must be"):
        read_stopped({"stopped": given}, "a file", 1)


def test_what_a_look_differentiates_and_switches_is_undone(tmp_path: Path) -> None:
    """Batch normalisation's statistics, gradients and modes; a search's are in the test above."""
    networks = []

    def look(run: Run) -> None:
        network = run.networks["network"]
        assert not any(module.training for module in network.modules())
        network(torch.rand(4, 1, 8, 8))[0].sum().backward()
        run.metrics["train_loss"] = run.metrics["epoch"] = 7
        run.networks["network"].train()

    for number, on_epoch in enumerate((None, look)):
        network = torch.nn.Sequential(*linear(), torch.nn.BatchNorm1d(10))
        words = (*TRAINING, "train.epochs=2", f"run.dir={tmp_path / str(number)}")
        nge_search.evaluate(None, *words, network=network, on_epoch=on_epoch)
        assert not network.training
        assert all(weight.grad is None for weight in network.parameters())
        networks.append(network.state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_ranks_agree_on_whether_somebody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `on_epoch` is given to another rank alone, this one takes part in its votes."""
    votes: list[int] = []
    run, agree, show = Loop.run, World.agree, Loop._show_epoch

    def begin(loop: Loop) -> None:
        votes.append(0)
        run(loop)

    def agree_first(world: World, *flags: bool) -> list[bool]:
        first = votes == [0]
        votes.append(1)
        return [True] if first else agree(world, *flags)

    shown: list[int] = []
    monkeypatch.setattr(Loop, "run", begin)
    monkeypatch.setattr(World, "agree", lambda world, *flags: agree_first(world, *flags) if votes else list(flags))
    monkeypatch.setattr(Loop, "_show_epoch", lambda loop: (shown.append(loop.position.epoch), show(loop)))
    nge_search.evaluate(None, *TRAINING, "train.epochs=2", f"run.dir={tmp_path / 'run'}", network=linear())
    assert shown == [1, 2]


def test_a_training_gives_its_networks_while_it_runs_and_afterwards(place: Path) -> None:
    words = ("threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=40")
    words += (
        "network.channels=2",
        "network.cells=1",
        "train.epochs=2",
        "train.batch_size=20",
        "train.ema_decay=0.5",
    )
    logits, images = [], torch.rand(3, 1, 8, 8)

    def look(run: Run) -> None:
        assert set(run.networks) == {"network", "ema"}
        assert run.p == {}
        with torch.no_grad():
            logits.append(run.networks["network"](images)[0])

    nge_search.evaluate(None, *words, f"run.dir={place / 'training'}", on_epoch=look)
    run = Run.load(place / "training")
    assert run.genotype == load_architecture("darts_v2").genotype
    assert not torch.equal(*logits)
    with torch.no_grad():
        torch.testing.assert_close(run.networks["network"](images), logits[-1], rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="has no probabilities of operations"):
        run.edge(0, 2)


def test_rows_of_other_kinds_of_run_are_no_epochs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: queries\nstrategy: {queries: 10}\n")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0}\n{"epoch": 1}\n')
    run = Run.load(tmp_path)
    assert (run.epochs, run.unit) == (None, "query")
    assert repr(run) == f"<Run '{tmp_path}': queries, after query 2>"
    assert "query 2, unfinished" in run._repr_html_()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "- [\n"),
        ("summary.json", "{"),
        ("metrics.jsonl", "3\n{\n4\n"),
        ("genotype.json", "{"),
        ("genotype.json", '{"space": "unknown"}'),
    ],
)
def test_a_damaged_run_shows_itself_without_what_is_damaged(
    name: str, text: str, seen: tuple[Path, list], tmp_path: Path
) -> None:
    for kept in ("config.yaml", "metrics.jsonl", "summary.json", "genotype.json"):
        shutil.copy(seen[0] / kept, tmp_path / kept)
    (tmp_path / name).write_text(text)
    run = Run.load(tmp_path)
    assert repr(run).startswith(f"<Run '{tmp_path}': ")
    html = run._repr_html_()
    assert html.count("<svg") <= 1
    assert f"<code>{tmp_path}</code>" in html


# -- what cannot be looked into


async def look_later(run: Run) -> None:
    """Would never be carried out."""


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nge_search.search(None, on_epoch=3), "on_epoch=3: give a function"),
        (lambda: nge_search.search(None, on_epoch=lambda: None), "it must take one argument, the run"),
        (lambda: nge_search.search(None, on_epoch=lambda run, more: None), "it must take one argument, the run"),
        (lambda: nge_search.search(None, on_epoch=look_later), "give a function (not `async`)"),
        (lambda: nge_search.test("run", ["data.root=x"]), "['data.root=x']: give settings one by one"),
        (
            lambda: nge_search.test("run", {"data": {"root": "x"}}),
            "give settings one by one, as 'data.root=FOLDER'",
        ),
        (lambda: nge_search.test(None), "None: give the folder of a run or of an export"),
        (lambda: nge_search.test(3, "data.root=x"), "3: give the folder of a run or of an export"),
        (
            lambda: nge_search.search(None, "task=queries", on_epoch=print),
            "on_epoch=: task=queries takes nothing besides settings",
        ),
        (
            lambda: nge_search.evaluate(None, "task=segmentation", dataset=([], [])),
            "dataset=: task=segmentation takes on_epoch= besides settings",
        ),
        (
            lambda: nge_search.run("predict train", None, on_epoch=print),
            "on_epoch=: predict takes nothing besides settings",
        ),
        (lambda: nge_search.run("search", None, callback=print), "callback=: task=supernet takes on_epoch= and"),
        (lambda: nge_search.run("serach"), "'serach' starts no run; allowed are search, eval"),
        (lambda: Run.load("nowhere"), "'nowhere' is not a folder"),
        (lambda: Run.load(3), "3 is not the path of a run folder"),
        (
            lambda: nge_search.search(3, on_epoch=print),
            "a configuration is a file, a mapping or a SearchConfig or a QueriesConfig, not int",
        ),
        (
            lambda: nge_search.evaluate(SearchConfig(), network=linear()),
            "not SearchConfig, which is one of 'search'",
        ),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    call: Callable[[], Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        call()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_loaded_run_refuses_what_it_cannot_do(seen: tuple[Path, list], tmp_path: Path) -> None:
    run = Run.load(seen[0])
    for act, says in (
        (run.stop, "only `on_epoch` can stop a run"),
        (lambda: run.networks, "is not the folder of a training"),
        (lambda: run.edge(0, 9), r"there is no edge \(0, 9\)"),
        (lambda: run.edge(0, 2, "cell"), "cell 'cell': there are normal, reduce"),
        (lambda: run.trace("x"), "cell 'x'"),
        (lambda: Run.load(tmp_path), "it is not the folder of a run"),
    ):
        with pytest.raises(UserError, match=says):
            act()


@pytest.mark.parametrize(
    "change",
    [
        {"p_normal": 3},
        {"p_normal": [[1.0]]},
        {"p_normal": [["a"]]},
        {"edges": "none"},
        {"edges": [[0]]},
        {"operations": [1]},
    ],
)
def test_damaged_probabilities_are_named(
    change: dict[str, Any], seen: tuple[Path, list], tmp_path: Path, rows_of: RowsOf
) -> None:
    row = {**rows_of(seen[0])[-1], **change}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged: '\w+' "):
        _ = Run.load(tmp_path).edge(0, 2)
