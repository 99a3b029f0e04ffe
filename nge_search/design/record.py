"""What was drawn, as a JSON object: the cells, how each grew move by move, what taught, and what is drawn often."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.design.generator import Distinct, Generator, Step
from nge_search.design.growth import Rules
from nge_search.design.shapes import frequent, mean_shape
from nge_search.design.spaces import GROWING
from nge_search.errors import UserError, shorten
from nge_search.json_reader import Reader, read_json
from nge_search.spaces import SPACES, Code

#: Draws at least, of which shapes and frequent cells are counted.
_COUNTED = 100
#: Cells of a record, steps of a cell, moves and nodes of a step: at most.
_MOST_CELLS, _MOST_STEPS, _MOST_MOVES, _MOST_NODES = 10_000, 64, 1024, 64
_MOST_DRAWS = 1 << 53

Shape = Mapping[str, float]


@dataclass(frozen=True)
class DrawnCell:
    """A cell that was drawn.

    Attributes:
        name: it in the notation of its space.
        graphs: its cells, by kind.
        log_probability: of its moves, given the number of them; nats.
        draw: the number of the draw that gave it.
        steps: how it grew.
    """

    name: str
    graphs: dict[str, Graph]
    log_probability: float
    draw: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Frequent:
    """A cell of those that come often.

    Attributes:
        name: it in the notation of its space.
        graphs: its cells, by kind.
        count: draws that gave it.
    """

    name: str
    graphs: dict[str, Graph]
    count: int


@dataclass(frozen=True)
class Record:
    """What `document` says.

    Attributes:
        space: the name of the drawn cells' space.
        cells: different cells, in the order of their draws.
        draws: how many there were, all told.
        good, bad: the cells that taught, each in the notation of its space.
        counted: draws that `shapes` and `frequent` are of.
        shapes: means over cells (`shapes.mean_shape`), of "drawn", "good" and "bad" ones.
        frequent: the cells that were drawn most often.
    """

    space: str
    cells: tuple[DrawnCell, ...]
    draws: int
    good: tuple[str, ...]
    bad: tuple[str, ...]
    counted: int
    shapes: dict[str, Shape]
    frequent: tuple[Frequent, ...]


def document(
    rules: Rules,
    generator: Generator,
    found: Distinct,
    teaching: Rules,
    good: Sequence[Code],
    bad: Sequence[Code],
) -> dict[str, Any]:
    """Drawn cells with the steps by which they grew.

    Args:
        rules: of the drawn cells.
        generator: that drew them.
        found: the cells, and the numbers of their draws.
        teaching: rules of the cells that taught, which `good` and `bad` are.
    """
    counted = generator.draw(max(found.draws, _COUNTED))
    shapes = {"drawn": mean_shape(rules, counted)}
    shapes |= {"good": mean_shape(teaching, good), "bad": mean_shape(teaching, bad)}
    return {
        "space": rules.space.name,
        "draws": found.draws,
        "cells": [_cell(rules, generator, number) for number in found.numbers],
        "teachers": {
            "space": teaching.space.name,
            "good": list(map(teaching.space.text, good)),
            "bad": list(map(teaching.space.text, bad)),
        },
        "counted": len(counted),
        "shapes": shapes,
        "frequent": [{"name": rules.space.text(code), "count": count} for code, count in frequent(rules, counted)],
    }


def _cell(rules: Rules, generator: Generator, number: int) -> dict[str, Any]:
    code, steps = generator.record(number)
    return {
        "code": list(code),
        "name": rules.space.text(code),
        "log_probability": math.fsum(math.log(step.probabilities[step.chosen]) for step in steps),
        "draw": number,
        "steps": list(map(_step, steps)),
    }


def _step(step: Step) -> dict[str, Any]:
    graph = step.graph
    return {
        "graph": {
            "nodes": [label.name for label in graph.nodes],
            "edges": [[edge.source, edge.target, edge.label.name] for edge in graph.edges],
            "inputs": list(graph.inputs),
            "outputs": list(graph.outputs),
        },
        "candidates": [list(candidate) for candidate in step.candidates],
        "scores": list(step.scores),
        "probabilities": list(step.probabilities),
        "chosen": step.chosen,
    }


def read_document(path: Path) -> Record:
    """What a file of `document` says.

    Raises:
        UserError: no such file, or a damaged one; names it.
    """
    reader = Reader(str(path), read_json(path))
    space, draws = reader.text("space", GROWING), reader.integer("draws", 0, _MOST_DRAWS)
    teachers, shapes = reader.section("teachers"), reader.section("shapes")
    cells = tuple(_read_cell(part, space) for part in _objects(reader, "cells", _MOST_CELLS))
    often = [
        Frequent(*_read_name(part, space), part.integer("count", 1, _MOST_DRAWS))
        for part in _objects(reader, "frequent", _MOST_CELLS)
    ]
    return Record(
        space,
        cells,
        draws,
        tuple(teachers.names("good")),
        tuple(teachers.names("bad")),
        reader.integer("counted", 1, _MOST_DRAWS),
        {name: _read_shape(shapes.section(name)) for name in ("drawn", "good", "bad")},
        tuple(often),
    )


def _read_cell(part: Reader, space: str) -> DrawnCell:
    log_probability = part.number("log_probability", -math.inf, 1e-6)
    steps = tuple(map(_read_step, _objects(part, "steps", _MOST_STEPS)))
    return DrawnCell(*_read_name(part, space), log_probability, part.integer("draw", 0, _MOST_DRAWS), steps)


def _read_name(part: Reader, space: str) -> tuple[str, dict[str, Graph]]:
    """A cell's notation, and its graphs."""
    name, known = part.text("name"), SPACES[space]()
    try:
        return name, known.graphs(known.parse(name))
    except UserError as error:
        raise UserError(f"{part.source} is damaged: {error}") from None


def _read_step(part: Reader) -> Step:
    candidates = part.any("candidates")
    if (
        not isinstance(candidates, list)
        or not 0 < len(candidates) <= _MOST_MOVES
        or not all(map(_pair, candidates))
    ):
        raise UserError(f"{part.source} is damaged: 'candidates' must be pairs of texts, not {shorten(candidates)}")
    count = len(candidates)
    probabilities = part.numbers("probabilities", count, above=-1e-300)
    if abs(math.fsum(probabilities) - 1) > 1e-6:
        raise UserError(f"{part.source} is damaged: 'probabilities' of a step do not add up to 1")
    return Step(
        _read_graph(part.section("graph")),
        tuple((source, target) for source, target in candidates),
        tuple(part.numbers("scores", count)),
        tuple(probabilities),
        part.integer("chosen", 0, count - 1),
    )


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _read_graph(part: Reader) -> Graph:
    nodes, edges = part.names("nodes"), part.any("edges")
    if len(nodes) > _MOST_NODES or not isinstance(edges, list) or len(edges) > _MOST_MOVES:
        raise UserError(f"{part.source} is damaged: a graph of more than {_MOST_NODES} nodes, or without edges")
    ends = []
    for edge in edges:
        if not (isinstance(edge, list) and len(edge) == 3 and isinstance(edge[2], str)):
            raise UserError(
                f"{part.source} is damaged: an edge is [source, target, operation], not {shorten(edge)}"
            )
        source, target = Reader(part.source, {"edge": edge[:2]}).integers("edge", 2, 0, len(nodes) - 1)
        ends.append((source, target, edge[2]))
    inputs, outputs = (_positions(part, key, len(nodes)) for key in ("inputs", "outputs"))
    try:
        return Graph.build(nodes, ends, inputs, outputs)
    except UserError as error:
        raise UserError(f"{part.source} is damaged: {error}") from None


def _positions(part: Reader, key: str, nodes: int) -> list[int]:
    given = part.any(key)
    return part.integers(key, len(given) if isinstance(given, list) else 0, 0, nodes - 1)


def _read_shape(part: Reader) -> Shape:
    return {key: part.number(key, -1e-300, 1e6) for key in part.document}


def _objects(part: Reader, key: str, most: int) -> list[Reader]:
    """The objects of a list of at most so many."""
    given = part.any(key)
    if not isinstance(given, list) or len(given) > most or not all(isinstance(one, dict) for one in given):
        raise UserError(
            f"{part.source} is damaged: '{key}' must be a list of up to {most} objects, not {shorten(given)}"
        )
    return [Reader(part.source, one) for one in given]
