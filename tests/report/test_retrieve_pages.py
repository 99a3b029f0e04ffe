"""Pages of retrieval: what they draw, and that odd files of a run folder are no reason to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nge_search
from nge_search.architecture.graph import Graph
from nge_search.report.pages import retrieve, retrieve_bench, retrieve_build
from nge_search.report.parts.network_map import Place, network_map, places_of
from nge_search.report.parts.page import Section
from nge_search.report.parts.run import Run
from nge_search.report.parts.shared_run import run_figure

FIGURES = {f"{name}_at_{depth}": 0.5 for name in ("mrr", "map", "ndcg") for depth in (20, 50, 100)}
TRIAL = {
    "epoch": 0,
    "task": "unseen",
    "model": "wl1",
    "seed": 0,
    "queries": 3,
    "families": {"a": [3, 1.5]},
    **FIGURES,
}


def run_of(folder: Path, rows: list[Any], documents: dict[str, Any]) -> Run:
    (folder / "config.yaml").write_text("run: {name: mine}\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    return Run(folder)


def text_of(sections: list[Section]) -> str:
    return "".join(section.body for section in sections)


def test_a_comparison(tmp_path: Path) -> None:
    better = {**TRIAL, "epoch": 1, "model": "own", "map_at_20": 0.75, "families": {"a": [3, 2.25]}}
    odd = [
        {**TRIAL, "epoch": 2, "seed": "x"},
        {**TRIAL, "epoch": 3, "families": {"a": [1, "much"]}},
        {**TRIAL, "epoch": 4, "families": 3},
        {**TRIAL, "epoch": 5, "map_at_20": None},
        {"epoch": 6},
    ]
    run = run_of(tmp_path, [TRIAL, better, *odd], {})
    assert next((figure.value, figure.remark) for figure in retrieve_bench.figures(run)) == ("0.75", "own")
    page = text_of(retrieve_bench.sections(run))
    assert page.count("own") >= 2
    assert "own − wl1" in page
    assert "0.25" in page


def test_an_encoder(tmp_path: Path) -> None:
    entries = [{"x": 0.5, "y": -1, "name": "a<b", "family": "f", "label": "cnn"}, {"x": "far"}, 7]
    summary = {"quality": {"map_at_20": 0.25}, "novelty": {"threshold": 0.5, "area": 0.9}, "model": "own"}
    rows = [{"epoch": 0, "stage": "views", "loss": 1.0}, {"epoch": 1, "stage": 3}]
    run = run_of(tmp_path, rows, {"retrieve.json": {"map": entries}, "summary.json": summary})
    page = text_of(retrieve.sections(run))
    assert "a&lt;b" in page
    assert "1 networks" in page
    assert "Loss, views" in page
    assert "area under the curve" in page
    assert retrieve.figures(run)[0].value == "0.25"


@pytest.mark.parametrize("odd", [None, 3, [], {"quality": 3, "novelty": [], "reasons": 4, "versions": "x"}])
def test_nothing_that_is_odd_is_a_reason_to_fail(odd: Any, tmp_path: Path) -> None:
    run = run_of(tmp_path, [{"epoch": 0}], {"retrieve.json": {"map": odd}, "summary.json": odd})
    for page in (retrieve, retrieve_bench, retrieve_build):
        page.figures(run)
        text_of(page.sections(run))


def test_maps() -> None:
    places = [Place(-1, -1, "one", "first", "cnn"), Place(1, 1, "two", "second", "attention")]
    drawn = network_map("Known", places, Place(0, 0, "mine & yours", "", ""))
    assert drawn.count("<title>") == 2
    assert 'cx="26.0" cy="26.0"' in drawn
    assert 'cx="734.0" cy="734.0"' in drawn
    assert '<circle class="asked" cx="380.0" cy="380.0" r="9"/>' in drawn
    assert "mine &amp; yours" in drawn
    assert network_map("Known", places_of([{"x": float("inf"), "y": 0}, {"x": 10**400, "y": 1}])) == ""


def test_a_run_of_operations() -> None:
    """An edge that passes an operation by is a bow; the bar shows where the run stands."""
    names = [f"op{number}" for number in range(10)]
    graph = Graph.build(names, [(n, n + 1) for n in range(9)] + [(4, 6)], [0], [9])
    drawn = run_figure("mine", graph, (4, 5, 6))
    assert "3 operations in a row of 10" in drawn
    assert 'aria-label="operations 5 to 7 of 10"' in drawn
    assert drawn.count('class="operation"') == 3
    assert drawn.count("C") == 1
    assert drawn.count('class="edge"') == 3
    long = Graph.build(["a"] * 40, [(n, n + 1) for n in range(39)], [0], [39])
    assert run_figure("long", long, tuple(range(30))).count('class="operation"') == 24
    assert run_figure("none", graph, ()) == ""


def test_published_networks_like_what_a_search_derived(runs, report) -> None:
    """As `nge retrieve query` of the run finds them; nothing as long as a search goes on."""
    folder = runs.search()
    page = report(folder)
    names = [near["name"] for near in nge_search.retrieve_query(str(folder), top=5)["nearest"]]
    assert len(names) == 5
    assert all(name in page.text("table", within="alike") for name in names)
    assert "nge retrieve query" in page.text("pre", within="alike")
    (folder / "summary.json").unlink()
    assert "alike" not in report(folder).anchors
