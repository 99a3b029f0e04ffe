"""Runs that are looked into from Python while they go, and read from their folders."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nge_search
from nge_search import Genotype, Run, UserError
from nge_search.architecture.load import load_architecture
from nge_search.engine.checkpoint import CheckpointFolder

TRAINING = (
    "threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=40", "train.batch_size=20",
)  # fmt: skip
TIMES = ("seconds", "images_per_second", "peak_memory_mb")


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


@pytest.fixture(scope="module", autouse=True)
def unreported() -> Iterator[None]:
    """Runs end without drawings and reports, which take longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("save_drawings", "write_report"):
            patch.setattr(f"nge_search.report.{name}", lambda *given: [])
        yield


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
        with torch.no_grad():
            logits = supernet.eval()(torch.rand(2, 1, 8, 8), *embedding())
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


def test_a_look_after_every_epoch_sees_it_and_leaves_no_trace(unseen: Path, seen: tuple[Path, list]) -> None:
    run, found = seen
    assert rows(run) == rows(unseen)
    states = [CheckpointFolder(folder / "checkpoints").load_newest()[0] for folder in (run, unseen)]
    assert torch.equal(states[0]["random"]["torch"], states[1]["random"]["torch"])
    for number, (one, row) in enumerate(zip(found, rows(unseen)), start=1):
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


def test_a_folder_is_read_as_a_run(seen: tuple[Path, list]) -> None:
    run = Run.load(seen[0])
    assert (run.kind, run.epoch, run.epochs) == ("search", 2, 2)
    assert run.genotype == nge_search.derive(seen[0])
    assert run.summary["genotype"] == run.architecture.document
    assert run.settings["search"]["epochs"] == 2
    trace_TEO = run.trace("reduce")
    assert trace_TEO.shape == (2, len(run.edges), len(run.operations))
    assert np.array_equal(trace_TEO[1], np.array(rows(seen[0])[1]["p_reduce"]))
    assert [row["epoch"] for row in run.history] == [1, 2]


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
def test_stop_ends_a_run_after_the_first_epoch_that_is_evaluated(every: int, epochs: int, tmp_path: Path) -> None:
    words = (*TRAINING, "train.epochs=5", f"train.evaluate_every={every}", f"run.dir={tmp_path / 'run'}")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    summary = nge_search.evaluate(None, *words, network=network, on_epoch=lambda run: run.stop())
    assert summary["epochs"] == epochs
    assert summary["stopped"] == f"stopped after epoch {epochs} of 5, as on_epoch asked"
    found = rows(tmp_path / "run")
    assert ["test_top1" in row for row in found] == [False] * (epochs - 1) + [True]
    assert summary["top1_error"] == 100 - found[-1]["test_top1"]
    again = nge_search.evaluate(None, *words, network=network, on_epoch=lambda run: pytest.fail("it has finished"))
    assert again == summary


def test_a_training_gives_its_networks_while_it_runs_and_afterwards(place: Path) -> None:
    words = ("threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=40")
    words += (
        "network.channels=2",
        "network.cells=2",
        "train.epochs=2",
        "train.batch_size=20",
        "train.ema_decay=0.5",
    )
    logits, images = [], torch.rand(3, 1, 8, 8)

    def look(run: Run) -> None:
        assert set(run.networks) == {"network", "ema"}
        assert run.p == {}
        with torch.no_grad():
            logits.append(run.networks["network"].eval()(images)[0])

    nge_search.evaluate(None, *words, f"run.dir={place / 'training'}", on_epoch=look)
    run = Run.load(place / "training")
    assert run.genotype == load_architecture("darts_v2").genotype
    assert not torch.equal(*logits)
    with torch.no_grad():
        torch.testing.assert_close(run.networks["network"](images), logits[-1], rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="has no probabilities of operations"):
        run.edge(0, 2)


# -- what cannot be looked into


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nge_search.search(None, on_epoch=3), "on_epoch=3: give a function"),
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
def test_damaged_probabilities_are_named(change: dict[str, Any], seen: tuple[Path, list], tmp_path: Path) -> None:
    row = {**rows(seen[0])[-1], **change}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged: '\w+' "):
        _ = Run.load(tmp_path).edge(0, 2)
