"""Features that tell inputs apart: against all paths, listed; and what must not change them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nge_search.architecture.graph import Graph
from nge_search.predict import analytic
from nge_search.predict.input_features import features_by_input, names_by_input, reading_only
from nge_search.spaces import DartsSpace, NasBench201Space

KINDS = ("normal", "reduce")
NAMES = names_by_input(KINDS, 2)
#: One behind the other, by how an operation's name begins.
CONVOLUTIONS = {"sep": 2, "dil": 1}


def random_cells(count: int) -> list[dict[str, Graph]]:
    space, random = DartsSpace(), np.random.default_rng(3)
    return [space.graphs(space.random(random)) for _ in range(count)]


def paths(graph: Graph, start: int) -> Iterator[tuple[str, ...]]:
    """The operations on every path from a node to the output."""
    if start in graph.outputs:
        yield ()
    for edge in graph.edges:
        if edge.source == start:
            for rest in paths(graph, edge.target):
                yield (edge.label.name, *rest) if edge.label.name else rest


def column(x_NF: np.ndarray, name: str) -> np.ndarray:
    return x_NF[:, NAMES.index(name)]


def test_each_input_has_its_own_paths() -> None:
    cells = random_cells(40)
    x_NF = features_by_input(cells, KINDS)
    assert x_NF.shape == (40, len(NAMES))
    assert len(set(NAMES)) == len(NAMES) == 6 * len(analytic.NAMES)
    for kind in KINDS:
        for number, own in enumerate(cells):
            for place, start in enumerate(own[kind].inputs):
                found = list(paths(own[kind], start))
                passed = sum(CONVOLUTIONS.get(name[:3], 0) for path in found for name in path)
                expected = passed / max(len(found), 1)
                assert column(x_NF, f"{kind}.{place}.convolutions_mean")[number] == pytest.approx(expected)
        each = [np.expm1(column(x_NF, f"{kind}.{place}.log_paths")) for place in range(2)]
        assert sum(each) == pytest.approx(np.expm1(column(x_NF, f"{kind}.log_paths")))


def test_swapped_inputs_swap_their_features_and_nothing_else() -> None:
    cells = random_cells(10)
    swapped = [
        {kind: Graph(graph.nodes, graph.edges, graph.inputs[::-1], graph.outputs) for kind, graph in own.items()}
        for own in cells
    ]
    x_NF, y_NF = features_by_input(cells, KINDS), features_by_input(swapped, KINDS)
    views = len(analytic.NAMES)
    for first in (0, 3 * views):
        whole, one, two = (slice(first + view * views, first + (view + 1) * views) for view in range(3))
        np.testing.assert_allclose(x_NF[:, whole], y_NF[:, whole], atol=1e-12)
        np.testing.assert_allclose(x_NF[:, one], y_NF[:, two], atol=1e-12)
        np.testing.assert_allclose(x_NF[:, two], y_NF[:, one], atol=1e-12)
    assert not np.allclose(x_NF[:, views : 2 * views], x_NF[:, 2 * views : 3 * views])


def test_an_input_that_is_not_read_leaves_nothing() -> None:
    graph = Graph.build(["input", "input", "sum", "concat"], [(0, 2, "sep_conv_3x3"), (2, 3)], (0, 1), (3,))
    one = reading_only(graph, 1)
    assert one.inputs == (1,)
    assert [edge.source for edge in one.edges] == [2]
    assert dict(zip(analytic.NAMES, analytic.features([one])[0]))["dead"] == 1


def test_cells_with_one_input_count_once() -> None:
    space = NasBench201Space()
    cells = [space.graphs(space.random(np.random.default_rng(0)))]
    np.testing.assert_array_equal(features_by_input(cells, ["cell"]), analytic.features([cells[0]["cell"]]))
    assert names_by_input(["cell"], 1) == tuple(f"cell.{name}" for name in analytic.NAMES)
