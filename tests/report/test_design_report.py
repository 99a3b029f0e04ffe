"""Reports of drawn cells: how they grew, move by move, and what methods' cells are worth."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nge_search.design.controls import FrequencyScorer
from nge_search.design.generator import Generator
from nge_search.design.record import document
from nge_search.design.spaces import GROWING, rules_of
from nge_search.engine.run_files import write_mark
from nge_search.spaces import SPACES, Code

Spoil = Callable[[dict[str, Any]], object]


@functools.cache
def drawn(space: str, count: int) -> tuple[list[Code], dict[str, Any]]:
    """Four good and four bad cells, and the document of cells that are drawn after them, by link frequencies."""
    rules, random, taught = rules_of(SPACES[space]()), np.random.default_rng(2), list[Code]()
    while len(taught) < 8:
        code = rules.space.random(random)
        taught += [code] if rules.graphs(code) else []
    good, bad = taught[:4], taught[4:]
    scorer = FrequencyScorer(rules, [graph for code in good for graph in rules.graphs(code)])
    generator = Generator(rules, scorer, [max(map(rules.size, good))], seed=1)
    found = document(rules, generator, generator.distinct(count), rules, good, bad)
    return taught, json.loads(json.dumps(found))


class Run:
    """A finished run of a kind, below a folder.

    Attributes:
        folder: of the run.
        rules: of its cells.
        taught: cells that taught, the good ones first.
        drawn: what its drawn.json says; not to be changed.
    """

    def __init__(self, folder: Path, space: str, count: int = 4):
        folder.mkdir()
        self.folder, self.rules = folder, rules_of(SPACES[space]())
        self.taught, self.drawn = drawn(space, count)
        (folder / "config.yaml").write_text("run:\n  name: mine\ndesign:\n  epochs: 3\n")
        rows = [
            {"epoch": epoch, "loss": 0.7 - 0.1 * epoch, "link_accuracy": 0.5 + 0.1 * epoch} for epoch in range(3)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = {"kind": "design", "drawn": count, "draws": self.drawn["draws"], "labels": 60, "best": 4}
        summary |= {"into": space, "link_accuracy": 0.7, "seconds": 1.5, "notices": ["two cells are <one>"]}
        (folder / "summary.json").write_text(json.dumps(summary))
        self.spoil(lambda document: None)

    def spoil(self, change: Spoil) -> None:
        """Write drawn.json anew, after a change."""
        changed = json.loads(json.dumps(self.drawn))
        change(changed)
        (self.folder / "drawn.json").write_text(json.dumps(changed))


def steps_of(page: Any, anchor: str) -> list[dict]:
    return page.find("figure", within=anchor, class_="step")


@pytest.mark.parametrize("space", GROWING)
def test_a_cell_s_growth_can_be_followed(space: str, tmp_path: Path, report) -> None:
    run = Run(tmp_path / "run", space)
    page = report(run.folder)
    often = ["frequent"] * (run.drawn["frequent"][0]["count"] > 1)
    assert page.anchors == ["notices", "cells", "growth", "shapes", *often, "training", "config"]
    assert "two cells are <one>" in page.text("section")
    for rank, cell in enumerate(run.drawn["cells"][:3], 1):
        anchor = f"growth-{rank}"
        (slider,) = page.find("input", within=anchor)
        steps = steps_of(page, anchor)
        assert len(steps) == len(cell["steps"]) + 1 == int(slider["attributes"]["max"]) + 1
        assert slider["attributes"]["data-steps"] == anchor
        assert "hidden" in slider["attributes"]  # until the script runs
        assert not any("hidden" in step["attributes"] for step in steps)  # without it all are shown
        for shown, step in zip(steps, cell["steps"]):
            assert f"{len(step['candidates'])} way" in shown["text"]
            chance = step["probabilities"][step["chosen"]]
            assert f"{100 * chance:.1f} %" in shown["text"]
        chosen = page.find("tr", within=anchor, class_="kept")
        assert len(chosen) == len(cell["steps"])
        assert "Done after" in steps[-1]["text"]
    assert not page.find("input", within="growth-4")
    names = page.text("pre", "cells").splitlines()
    assert names == [cell["name"] for cell in run.drawn["cells"]]


def test_bars_are_the_probabilities_the_likeliest_first(tmp_path: Path, report) -> None:
    """Twelve moves at most, the one that was made, and the others together."""
    run = Run(tmp_path / "run", "nasbench101")
    page = report(run.folder)
    bars = [float(bar["attributes"]["style"].removeprefix("--p:")) for bar in page.find("i", within="growth-1")]
    expected: list[float] = []
    for step in run.drawn["cells"][0]["steps"]:
        order = sorted(range(len(step["scores"])), key=lambda move: (-step["probabilities"][move], move))
        shown = [m for rank, m in enumerate(order) if rank < 12 or m == step["chosen"]]
        expected += [step["probabilities"][move] for move in shown]
        expected += [1 - sum(step["probabilities"][move] for move in shown)] * (len(shown) < len(order))
    assert max(len(step["scores"]) for step in run.drawn["cells"][0]["steps"]) > 13
    assert bars == pytest.approx(expected, abs=1e-4)


def test_operations_are_numbered_as_moves_name_them(tmp_path: Path, report) -> None:
    run = Run(tmp_path / "run", "nasbench101")
    last = run.drawn["cells"][0]["steps"][-1]
    page = report(run.folder)
    drawn = steps_of(page, "growth-1")[-2]["text"]
    for node, name in enumerate(last["graph"]["nodes"]):
        if name not in ("input", "output"):
            short = {"maxpool3x3": "max 3×3", "conv1x1-bn-relu": "conv 1×1", "conv3x3-bn-relu": "conv 3×3"}[name]
            assert f"{short} {node}" in drawn
    assert "conv3x3-bn-relu" not in drawn


def test_the_counts_of_figure_4(tmp_path: Path, report) -> None:
    """NAS-Bench-201's operations are counted wherever they stand."""
    run = Run(tmp_path / "run", "nasbench201")
    page = report(run.folder)
    cells = [cell["text"] for cell in page.find("td", within="shapes")]
    rows = {cells[at]: cells[at + 1 : at + 4] for at in range(0, len(cells), 4)}
    assert [*rows][-4:] == ["links", "links from the input", "depth", "width"]
    good = run.taught[:4]
    live = [
        sum(
            run.rules.labels[label].startswith("nor_conv_3x3")
            for graph in run.rules.graphs(code)
            for label in graph.labels
        )
        for code in good
    ]
    assert float(rows["conv 3×3"][1]) == pytest.approx(np.mean(live), abs=0.01)
    assert float(rows["depth"][0]) == pytest.approx(run.drawn["shapes"]["drawn"]["depth"], rel=0.01)


def test_frequent_cells_have_their_counts(tmp_path: Path, report) -> None:
    run = Run(tmp_path / "run", "nasbench201")
    page = report(run.folder)
    often = [one["count"] for one in run.drawn["frequent"] if one["count"] > 1]
    found = [caption["text"] for caption in page.find("figcaption", within="frequent")]
    assert len(often) > 1
    assert found == [f"{rank}. {count} of 100 draws" for rank, count in enumerate(often, 1)]


def test_losses_and_link_accuracy_over_epochs(tmp_path: Path, report) -> None:
    page = report(Run(tmp_path / "run", "nasbench201").folder)
    assert "loss: 0.6" in page.tip("epoch 2", "loss")
    assert "links judged right: 70" in page.tip("epoch 3", "links judged right")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["cells"][0]["steps"][0].update(chosen=99),
        lambda document: document.update(space="<b>"),
        lambda document: document["cells"][0].update(name="<script>"),
    ],
)
def test_a_damaged_record_costs_its_sections_and_is_told(change: Spoil, tmp_path: Path, report) -> None:
    run = Run(tmp_path / "run", "nasbench201")
    run.spoil(change)
    page = report(run.folder)
    assert page.anchors == ["notices", "training", "config"]
    assert "drawn.json is left out" in page.text("header")


def test_names_of_strangers_are_text(tmp_path: Path, report) -> None:
    run = Run(tmp_path / "run", "nasbench101")

    def change(document: dict[str, Any]) -> None:
        step = document["cells"][0]["steps"][1]
        step["candidates"][0] = ["<i>x</i>", "</table>"]
        step["graph"]["nodes"][1] = "<script>"

    run.spoil(change)
    page = report(run.folder)  # parsed strictly
    assert "<script>" in steps_of(page, "growth-1")[1]["text"]


def test_a_run_that_drew_nothing_or_is_at_work(tmp_path: Path, report) -> None:
    run = Run(tmp_path / "run", "nasbench201")
    (run.folder / "drawn.json").unlink()
    assert report(run.folder).anchors == ["notices", "training", "config"]
    (run.folder / "summary.json").unlink()
    write_mark(run.folder, "design")
    (run.folder / "drawn.json").write_text("{")
    page = report(run.folder)
    assert "Links judged right70 %" in page.text("dl")
    assert "drawn.json is left out" in page.text("header")


# -- trials


def trials(protocols: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Three repeats of two methods, the second of which is better by one point, and two in the last repeat."""
    rows = []
    for seed in range(3):
        for protocol, figures in protocols.items():
            for method in ("frequencies", "links"):
                gain = (method == "links") * (1 + (seed == 2))
                own = {name: value + gain * (name.startswith(("mean", "best"))) for name, value in figures.items()}
                rows.append({"epoch": len(rows), "method": method, "protocol": protocol, "seed": seed, **own})
    return rows


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """The folder of a comparison with these rows."""

    def write(rows: list[dict[str, Any]]) -> Path:
        (tmp_path / "config.yaml").write_text("run:\n  name: mine\n")
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = {"kind": "design_bench", "space": "nasbench101", "score": "made", "seconds": 3.0}
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        return tmp_path

    return write


ORACLE = {"mean": 60.0, "mean_new": 59.0, "best_by_signal": 70.0, "unique": 0.5, "novel": 0.25, "valid": 1.0}
HONEST = {"mean_queried": 46.0, "mean_new": 50.0, "best": 74.0, "best_random": 73.0, "draws": 90, "queries": 160}


def table_of(page: Any, anchor: str) -> list[list[str]]:
    """The cells of a section's tables, row by row."""
    rows: list[list[str]] = []
    for element in page.elements:
        if anchor in element["within"] and element["tag"] == "tr":
            rows.append([])
        elif anchor in element["within"] and element["tag"] in ("td", "th"):
            rows[-1].append(element["text"].replace("\u00a0", " "))
    return rows


def test_methods_by_protocol_and_in_pairs(bench, report) -> None:
    page = report(bench(trials({"oracle": ORACLE, "honest": HONEST})))
    assert page.anchors == ["protocol-0", "protocol-1", "pairs", "config"]
    rows = table_of(page, "protocol-0")
    assert rows[0] == ["method", "all", "new cells", "best by validation", "seeds"]
    assert rows[1] == ["frequencies", "60 ± 0", "59 ± 0", "70 ± 0", "3"]
    deviation = f"{np.std([1, 1, 2]):.2g}"
    assert rows[2] == ["links", f"61.33 ± {deviation}", f"60.33 ± {deviation}", f"71.33 ± {deviation}", "3"]
    assert rows[3:5] == [
        ["method", "valid", "unique", "novel", "seeds"],
        ["frequencies", "100 %", "50 %", "25 %", "3"],
    ]
    honest = table_of(page, "protocol-1")
    assert honest[0] == ["method", "new cells", "queried cells", "best", "best of as many random", "seeds"]
    pairs = table_of(page, "pairs")
    assert pairs[0] == ["methods", "protocol", "figure", "mean", "95 % interval", "p", "pairs"]
    named = {(row[0], row[1], row[2]): row[3:] for row in pairs[1:]}
    mean, _, p, count = named["links − frequencies", "oracle", "mean of new cells"]
    assert (mean, count) == ("1.33", "3")
    assert float(p) == pytest.approx(2 * (1 - 0.9714), abs=0.01)  # Student's t of 4 with 2 degrees of freedom
    assert ("links − frequencies", "honest", "best by validation") not in named
    assert "60.33" in page.text("dl")


def test_what_is_no_trial_is_passed_over(bench, report) -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 0, "method": "links", "protocol": "oracle", "seed": 0, "mean_new": 60.0, "mean": None},
        {"epoch": 1, "method": 3, "protocol": "oracle", "seed": 0, "mean_new": 60.0},
        {"epoch": 2, "method": "links", "seed": 0, "mean_new": 60.0},
        {"epoch": 3, "method": "links", "protocol": "oracle", "seed": "0", "mean_new": 60.0},
        {"epoch": 4, "method": "links", "protocol": "<b>", "seed": 1 << 60, "mean_new": 60.0},
        {"epoch": 5, "method": "uniform", "protocol": "<b>", "seed": 1, "mean_new": [1], "mean": math.inf},
    ]
    page = report(bench(rows))
    assert page.anchors == ["protocol-0", "protocol-1", "config"]
    assert table_of(page, "protocol-0")[1] == ["links", "60", "1"]
    assert "<b>" in page.text("h2")


def test_a_comparison_that_has_begun(bench, report) -> None:
    folder = bench([])
    (folder / "summary.json").unlink()
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 0, **trials({"oracle": ORACLE})[0]}) + "\n")
    write_mark(folder, "design_bench")
    page = report(folder)
    assert table_of(page, "protocol-0")[1] == ["frequencies", "60", "59", "70", "1"]
    assert "pairs" not in page.anchors
