"""Other depths of a network are the networks of that depth, and pieces of it are pieces."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.architecture.graph import Edge, Graph
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.views import (
    random_depth,
    random_subgraph,
    random_view,
    repetitions,
    without_repetition,
)


def whole(ordered: OrderedGraph) -> Graph:
    """As a graph, its first node given and its last one the result."""
    edges = tuple(Edge(*map(int, ends)) for ends in zip(ordered.source_E, ordered.target_E))
    nodes = tuple(ordered.labels[number] for number in ordered.label_N)
    return Graph(nodes, edges, (0,), (len(nodes) - 1,))


BLOCKS = ["conv norm relu", "norm linear gelu linear", "conv norm relu conv norm relu conv norm"]


@pytest.mark.parametrize("block", BLOCKS)
def test_without_a_block(stacked, block: str) -> None:
    """Whichever block is taken out: the network with one block fewer."""
    graph = OrderedGraph.of(stacked(block, 6))
    found = repetitions(graph)
    size = len(block.split()) + 1
    once = [run for run in found if run[1] == size]
    assert [first for first, _ in once] == [2 + size * i for i in range(1, 5)]
    for first, length in once:
        assert whole(without_repetition(graph, first, length)).is_isomorphic(stacked(block, 5))
    twice = [run for run in found if run[1] == 2 * size]
    assert twice
    for first, length in twice:
        assert whole(without_repetition(graph, first, length)).is_isomorphic(stacked(block, 4))


def test_whoever_hears_all_blocks_hears_those_that_are_left() -> None:
    """As where a head reads every block: an edge less, none twice."""

    def read_by_the_last(depth: int) -> Graph:
        names = ["stem"] + ["a", "b", "c"] * depth + ["join"]
        edges = [(i, i + 1) for i in range(3 * depth)]
        edges += [(3 * block, 3 * depth + 1) for block in range(1, depth + 1)]
        return Graph.build(names, edges, [0], [3 * depth + 1])

    graph = OrderedGraph.of(read_by_the_last(5))
    first, length = next(run for run in repetitions(graph) if run[1] == 3)
    assert whole(without_repetition(graph, first, length)).is_isomorphic(read_by_the_last(4))


def test_random_depths(stacked) -> None:
    graph = OrderedGraph.of(stacked("conv norm relu", 7))
    sizes = set()
    for seed in range(30):
        found = random_depth(graph, 2, np.random.default_rng(seed))
        assert (len(graph) - len(found)) % 4 == 0
        assert whole(found).is_isomorphic(stacked("conv norm relu", 7 - (len(graph) - len(found)) // 4))
        sizes.add(len(found))
    assert len(sizes) > 2
    chain = OrderedGraph.of(Graph.build(["a", "b", "c", "d"], [(0, 1), (1, 2), (2, 3)], [0], [3]))
    assert random_depth(chain, 5, np.random.default_rng(0)) is chain


def test_pieces(random_graph) -> None:
    graph = random_graph(0, nodes=20)
    ordered = OrderedGraph.of(graph)
    firsts = set()
    for seed in range(20):
        found = random_subgraph(ordered, 0.4, np.random.default_rng(seed))
        assert len(found) == 8
        first = int(found.node_N[0])
        assert found.node_N.tolist() == list(range(first, first + 8))
        inside = [e for e in graph.edges if first <= e.source and e.target < first + 8]
        ends = zip(found.source_E.tolist(), found.target_E.tolist())
        assert sorted(ends) == sorted((e.source - first, e.target - first) for e in inside)
        firsts.add(first)
    assert len(firsts) > 5
    assert len(random_subgraph(ordered, 0.0, np.random.default_rng(0))) == 1


def test_views_repeat_themselves(stacked) -> None:
    graph = OrderedGraph.of(stacked("conv norm relu", 6))
    views = [random_view(graph, 0.5, 2, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    assert views[0].node_N.tolist() == views[1].node_N.tolist()
    assert len({len(view) for view in views}) > 2
    assert all(len(view) >= 0.5 * (len(graph) - 2 * 12) for view in views)
