"""`search_quality.py` and `target_sizes.py`, on digits and a made table: rows, tables, what shared weights say."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from nge_search.architecture.load import load_architecture
from nge_search.engine.session import open_session
from nge_search.errors import UserError
from nge_search.gradient.run import build_task
from nge_search.metrics.ranking import kendall_tau
from nge_search.networks.families import FAMILIES
from nge_search.networks.sizes import network_size
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig
from nge_search.spaces import DartsSpace, NasBench201Space
from nge_search.tables import Table
from nge_search.tables.table import build_table

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
_SUPERNET = ("supernet.channels=2", "supernet.cells=3", "search.batch_size=16", "search.evaluate_every=0")
_DRAWN = ("search.mixture=sampled", "search.epochs=2", "search.warmup_epochs=1")
_SHORT = ("steps=2", "batch_size=8", "channels=2", "cells=3", "valid_images=20")


@pytest.fixture
def scripts(tmp_path, monkeypatch, in_this_process) -> tuple[ModuleType, ModuleType, ModuleType]:
    """The scripts `search_quality`, `search_trials` and `search_darts`, made small, with results in `tmp_path`."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    quality, trials, darts = map(importlib.import_module, ("search_quality", "search_trials", "search_darts"))
    images = ("data.name=digits", "data.limit=80")
    for module in (trials, darts):
        monkeypatch.setattr(module, "IMAGES", images)
        monkeypatch.setattr(module, "SUPERNET", _SUPERNET)
    selection = trials.short_selection(*_SHORT)
    monkeypatch.setattr(trials, "SHORT", _SHORT)
    monkeypatch.setattr(trials, "DRAWN", _DRAWN)
    monkeypatch.setitem(trials.SEARCHES, "nge, drawn", (*_DRAWN, *selection))
    monkeypatch.setattr(trials, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(trials, "RANKED", 6)
    monkeypatch.setattr(trials, "RANKED_IMAGES", 20)
    monkeypatch.setitem(darts.SEARCHES, darts.REPORTED, (*_DRAWN, trials.ARGMAX))
    monkeypatch.setattr(darts, "CELLS", 3)
    monkeypatch.setattr(darts, "SEEDS", (0,))
    monkeypatch.setattr(darts, "EPOCHS", 1)
    monkeypatch.setattr(quality, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    monkeypatch.setattr(quality, "ROOT", tmp_path)
    monkeypatch.setattr(quality, "ProcessPoolExecutor", in_this_process)
    (tmp_path / "runs" / "cifar10-images").mkdir(parents=True)
    (tmp_path / "runs" / "cifar10-images" / "complete").touch()
    return quality, trials, darts


@pytest.fixture
def table(tmp_path) -> Table:
    """All cells of NAS-Bench-201 with made accuracies."""
    random, columns = np.random.default_rng(0), ("cifar10_test_200", "cifar10_valid_200", "cifar100_valid_200")
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, dict(zip(columns, random.random(3) * 100))) for code in codes)
    made = build_table(NasBench201Space(), rows, "a made table", "cell")
    made.save(tmp_path / "table")
    return made


def call(monkeypatch, quality: ModuleType, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["search_quality.py", *words])
    quality.main()


def test_searches_selections_and_shared_weights(tmp_path, monkeypatch, capsys, scripts, table):
    quality, _, _ = scripts
    inputs = ["--table", str(tmp_path / "table"), "--package", "none", "--seeds", "3"]
    call(monkeypatch, quality, "search", "shared", *inputs, "--methods", "nge, drawn")
    call(monkeypatch, quality, "neighbours", *inputs, "--methods", "nor_conv_3x3")
    text = (tmp_path / "rows.jsonl").read_text()
    searched, ranked, selected = map(json.loads, text.splitlines())
    space = table.space

    def truth(cell: str) -> float:
        row = table.find(tuple("zs13a".index(letter) for letter in cell))
        return round(float(table.column("cifar10_test_200")[row]), 4)

    for row in (searched["found"], searched["derived"], ranked["found"], selected["start"], selected["found"]):
        assert row["cifar10_test_200"] == truth(row["cell"])
    assert selected["start"]["cell"] == "333333"
    assert len(selected["values"]) == 13
    assert selected["short"]["cell"] == max(selected["values"], key=selected["values"].get)
    assert set(selected["longer"]) == set(sorted(selected["values"], key=selected["values"].get)[-3:])
    assert selected["found"]["cell"] == max(selected["longer"], key=selected["longer"].get)
    assert len(searched["by_epoch"]) == 2
    assert searched["by_epoch"][-1] == searched["derived"]["cifar10_test_200"]
    random = np.random.default_rng(3)
    codes = [space.random(random) for _ in range(6)]
    sizes = [
        sum(p.numel() for p in FAMILIES["nasbench201"].build(space.graphs(code), 16, 3, 10, 3).parameters())
        for code in codes
    ]
    accuracies = [truth("".join("zs13a"[operation] for operation in code)) for code in codes]
    assert ranked["tau_params"] == pytest.approx(kendall_tau(np.array(sizes), np.array(accuracies)), abs=1e-4)
    capsys.readouterr()
    call(monkeypatch, quality, "--show")
    assert "search: nge, drawn: seeds 1" in capsys.readouterr().out
    shown = json.loads((tmp_path / "search_quality.json").read_text())["results"]
    gain = selected["found"]["cifar10_test_200"] - selected["start"]["cifar10_test_200"]
    assert shown["neighbours"]["nor_conv_3x3"]["gain"]["mean"] == pytest.approx(gain, abs=1e-3)
    call(monkeypatch, quality, "search", *inputs, "--methods", "nge, drawn")
    assert (tmp_path / "rows.jsonl").read_text() == text


def test_a_loss_under_shared_weights_is_that_of_the_cell_alone(tmp_path, scripts, table):
    """With batches' own statistics: the supernet with all other operations switched off, in training mode."""
    _, trials, _ = scripts
    words = [*trials.QUIET, *trials.IMAGES, *_SUPERNET, "supernet.space=nasbench201", f"run.dir={tmp_path / 'one'}"]
    code = (3, 1, 2, 4, 3, 1)
    with open_session(load_config(SearchConfig, None, words)) as session:
        task = build_task(session)
        with torch.no_grad():
            for weight in task.weights:
                weight.mul_(1.5)
        state = task.state_dict()
        (loss,) = trials.one_shot_losses(session, state, [code])
        labels_N = task.dataset.train.labels_N
        index_M = trials.few_per_class(labels_N, task.evaluation.index_M, 10, 20)
        images = torch.cat([batch.images_BCHW for batch in task.evaluation.iterate(0)])
        order = {int(place): row for row, place in enumerate(task.evaluation.index_M)}
        own = images[[order[int(place)] for place in index_M]]
        p_EO = torch.eye(5)[list(code)]
        task.supernet.train()
        parts = own.split(task.evaluation.batch_size)
        labels = labels_N[index_M].split(task.evaluation.batch_size)
        summed = sum(
            torch.nn.functional.cross_entropy(task.supernet(part, p_EO), label, reduction="sum")
            for part, label in zip(parts, labels)
        )
    assert loss == pytest.approx(summed.item() / 20, rel=1e-5)


def test_cells_are_retrained_with_nearly_the_same_mult_adds(tmp_path, monkeypatch, scripts, table):
    quality, _, darts = scripts
    inputs = ["--table", str(tmp_path / "table"), "--package", "none", "--seeds", "0"]
    call(monkeypatch, quality, "darts search", *inputs, "--methods", darts.REPORTED)
    call(monkeypatch, quality, "darts cells", *inputs, "--methods", darts.REPORTED, "sep_conv_3x3")
    found, derived, same = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert derived["channels"] == darts.CHANNELS
    assert derived["found"]["genes"] == found["found"]["genes"]
    assert same["found"]["genes"]["normal"] == [["sep_conv_3x3", node] for _ in range(4) for node in (0, 1)]
    space = DartsSpace()
    architecture = space.architecture(space.throughout(space.cell_space.operations.index("sep_conv_3x3")))
    near = range(same["channels"] - 1, same["channels"] + 2)
    off = {channels: abs(darts.macs(architecture, channels) - found["found"]["macs"]) for channels in near}
    assert same["channels"] == min(off, key=off.get)
    with pytest.raises(UserError, match="target=100: 1 to 1024 channels give"):
        darts.channels_of(architecture, 100)


def test_searches_for_sizes_are_paired_with_one_without(tmp_path, monkeypatch, capsys, tiny_search):
    """Sizes that rows tell are those of networks; what has a row is not done again."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    sizes = importlib.import_module("target_sizes")
    own = tuple(word for word in tiny_search if not word.startswith(("threads", "run.", "data.", "supernet.nodes")))
    small = {"RESULTS": tmp_path, "RUNS": tmp_path / "runs", "CHANNELS": 2, "CELLS": 3}
    small |= {"IMAGES": ("data.name=digits", "data.limit=64"), "TRAINING": ("steps=1", "batch_size=8")}
    small["SEARCH"] = (*own, "search.epochs=1", "search.evaluate_every=0")
    for name, value in small.items():
        monkeypatch.setattr(sizes, name, value)
    monkeypatch.setattr(sys, "argv", ["target_sizes.py", "--shares", "40", "--seeds", "3"])
    sizes.main()
    rows = (tmp_path / "target_sizes_rows.jsonl").read_text()
    (row,) = map(json.loads, rows.splitlines())
    assert row["trial"] == {"share": 40, "seed": 3}
    architecture = load_architecture(str(tmp_path / "runs" / "40-3"))
    with torch.device("meta"):
        size = network_size(FAMILIES["cifar"].build(architecture.graphs, 2, 3, 10, 1), "macs", 8, 1)
    assert row["aimed"]["macs"] == size
    assert row["aimed"]["off"] == pytest.approx(size / row["wanted"] - 1, abs=1e-4)
    free = load_architecture(str(tmp_path / "runs" / "free-3"))
    with torch.device("meta"):
        assert row["free"]["macs"] == network_size(FAMILIES["cifar"].build(free.graphs, 2, 3, 10, 1), "macs", 8, 1)
    for of in ("aimed", "chosen"):
        assert abs(row[of]["off"]) <= 0.021
    assert json.loads((tmp_path / "target_sizes.json").read_text())["accepted"]
    capsys.readouterr()
    sizes.main()
    assert (tmp_path / "target_sizes_rows.jsonl").read_text() == rows
    assert capsys.readouterr().out.startswith("40 %: wanted")
