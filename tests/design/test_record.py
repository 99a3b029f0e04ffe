"""What was drawn, written and read again: nothing lost, and damage refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nge_search.design.controls import FrequencyScorer
from nge_search.design.generator import Distinct, Generator
from nge_search.design.growth import Rules
from nge_search.design.record import document, read_document
from nge_search.design.shapes import mean_shape
from nge_search.design.spaces import GROWING, rules_of
from nge_search.errors import UserError
from nge_search.spaces import SPACES, Code

Drawn = tuple[Rules, Generator, Distinct, list[Code]]


def drawn(space: str, count: int = 4) -> Drawn:
    """Cells by how often eight random ones have their links."""
    rules, random = rules_of(SPACES[space]()), np.random.default_rng(1)
    taught: list[Code] = []
    while len(taught) < 8:
        code = rules.space.random(random)
        taught += [code] if rules.graphs(code) else []
    scorer = FrequencyScorer(rules, [graph for code in taught[:4] for graph in rules.graphs(code)])
    generator = Generator(rules, scorer, [rules.size(code) for code in taught[:4]], seed=5)
    return rules, generator, generator.distinct(count), taught


def written(given: Drawn) -> dict[str, Any]:
    rules, generator, found, taught = given
    return json.loads(json.dumps(document(rules, generator, found, rules, taught[:4], taught[4:])))


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:
    """A document of NAS-Bench-101's cells; not to be changed."""
    return written(drawn("nasbench101", 2))


@pytest.fixture
def damaged(cells: dict[str, Any], tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Writes the document after a change."""

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        document = json.loads(json.dumps(cells))
        change(document)
        (tmp_path / "drawn.json").write_text(json.dumps(document))
        return tmp_path / "drawn.json"

    return write


@pytest.mark.parametrize("space", GROWING)
def test_what_is_written_is_read(space: str, tmp_path: Path) -> None:
    given = drawn(space)
    rules, generator, found, taught = given
    (tmp_path / "drawn.json").write_text(json.dumps(written(given)))
    record = read_document(tmp_path / "drawn.json")
    assert (record.space, record.draws) == (space, found.draws)
    assert [cell.draw for cell in record.cells] == found.numbers
    for cell, code in zip(record.cells, found.codes, strict=True):
        assert rules.key(rules.space.parse(cell.name)) == rules.key(code)
        assert cell.graphs == rules.space.graphs(rules.space.parse(cell.name))
        assert generator.record(cell.draw) == (code, list(cell.steps))
        chances = [step.probabilities[step.chosen] for step in cell.steps]
        assert math.exp(cell.log_probability) == pytest.approx(math.prod(chances))
    assert record.good == tuple(map(rules.space.text, taught[:4]))
    assert record.bad == tuple(map(rules.space.text, taught[4:]))
    codes = generator.draw(record.counted)
    assert record.shapes == {
        name: mean_shape(rules, own) for name, own in (("drawn", codes), ("good", taught[:4]), ("bad", taught[4:]))
    }
    keys = list(map(rules.key, codes))
    most = max(keys.count(key) for key in keys)
    assert record.frequent[0].count == most
    assert keys.count(rules.key(rules.space.parse(record.frequent[0].name))) == most


@pytest.mark.parametrize("space", GROWING)
def test_moves_are_told_apart_and_drawings_grow(space: str) -> None:
    """No two moves of a step read alike, and the drawing before each move shows what was there."""
    _, generator, found, _ = drawn(space)
    for number in found.numbers:
        _, steps = generator.record(number)
        edges = [len(step.graph.edges) for step in steps]
        moves_of_a_cell = 8 if space == "darts" else len(steps)
        assert edges == [step % moves_of_a_cell for step in range(len(steps))]
        for step in steps:
            assert len(set(step.candidates)) == len(step.candidates)
            assert step.graph.order  # no circle


def cell(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["cells"][1].update({key: value})


def step(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["cells"][0]["steps"][1].update({key: value})


def graph(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["cells"][0]["steps"][-1]["graph"].update({key: value})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda document: document.pop("space"), "'space' is missing"),
        (lambda document: document.update(space="enas_macro"), "'space' must be one of nasbench101,"),
        (lambda document: document.update(space="nasbench201"), "is no architecture of nasbench201"),
        (lambda document: document.update(draws=-1), "'draws' must be an integer from 0"),
        (lambda document: document.update(cells={}), "'cells' must be a list of up to 10000 objects"),
        (lambda document: document.update(cells=[3]), "'cells' must be a list of up to 10000 objects"),
        (lambda document: document.update(counted=0), "'counted' must be an integer from 1"),
        (lambda document: document.update(frequent=[{"name": "x", "count": 3}]), "is no architecture"),
        (lambda document: document["frequent"][0].update(count=0), "'count' must be an integer from 1"),
        (lambda document: document["teachers"].update(good=[]), "'good' must be a list of names"),
        (lambda document: document["shapes"].pop("bad"), "'bad' is missing"),
        (lambda document: document["shapes"]["good"].update(depth="deep"), "'depth' must be a number"),
        (cell("name", "|x~0|"), "is no architecture"),
        (cell("log_probability", 0.5), "'log_probability' must be a number"),
        (cell("log_probability", float("nan")), "'log_probability' must be a number"),
        (cell("draw", 0.5), "'draw' must be an integer"),
        (cell("steps", [{}] * 65), "'steps' must be a list of up to 64 objects"),
        (step("candidates", []), "'candidates' must be pairs of texts"),
        (step("candidates", [["input 0", 3]]), "'candidates' must be pairs of texts"),
        (step("scores", [1.0]), "'scores' must be"),
        (step("probabilities", [1.0]), "'probabilities' must be"),
        (step("chosen", 99), "'chosen' must be an integer from 0 to"),
        (graph("nodes", []), "'nodes' must be a list of names"),
        (graph("nodes", ["input"] * 65), "a graph of more than 64 nodes"),
        (graph("edges", 3), "a graph of more than 64 nodes, or without edges"),
        (graph("edges", [[0, 1]]), r"an edge is \[source, target, operation\]"),
        (graph("edges", [[0, 99, ""]]), "must be 2 integers from 0 to"),
        (graph("edges", [[0, 1, ""], [1, 0, ""]]), "lead in a circle"),
        (graph("inputs", [99]), "'inputs' must be 1 integers from 0"),
        (graph("outputs", "x"), "'outputs' must be"),
    ],
)
def test_damage_is_refused_in_one_line(damaged, change: Callable[[dict[str, Any]], object], why: str) -> None:
    with pytest.raises(UserError, match=why) as refused:
        read_document(damaged(change))
    assert "\n" not in str(refused.value)
    assert "drawn.json" in str(refused.value)


def test_probabilities_add_up(damaged) -> None:
    def halve(document: dict[str, Any]) -> None:
        own = document["cells"][0]["steps"][0]
        own["probabilities"] = [value / 2 for value in own["probabilities"]]

    with pytest.raises(UserError, match="'probabilities' of a step do not add up to 1"):
        read_document(damaged(halve))


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "drawn.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        read_document(tmp_path / "drawn.json")
