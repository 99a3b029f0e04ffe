"""Graphs as arrays, and words for surroundings against nested tuples."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.architecture.graph import Graph, Label
from nge_search.errors import UserError
from nge_search.retrieve.ordered import OrderedGraph, mixed, refined


def classes(values: list[object]) -> list[int]:
    """The number of each value, by first occurrence."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values]


def slowly_refined(names: list[object], graph: Graph, parents: bool, children: bool, offsets: bool) -> list[object]:
    """One round with sorted multisets in place of sums; nodes are in topological order."""

    def side(node: int, others: list[int]) -> tuple[str, ...]:
        return tuple(sorted(repr((names[other], node - other if offsets else 0)) for other in others))

    return [
        (
            names[node],
            side(node, graph.sources(node)) if parents else (),
            side(node, graph.targets(node)) if children else (),
        )
        for node in range(len(graph.nodes))
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize(("parents", "children"), [(True, True), (True, False), (False, True), (False, False)])
def test_words_tell_apart_exactly_what_multisets_do(
    random_graph, seed: int, offsets: bool, parents: bool, children: bool
) -> None:
    """In two graphs at once: words are the same for the same surroundings in any graph."""
    graphs = [random_graph(seed), random_graph(seed + 100)]
    ordered = [OrderedGraph.of(graph) for graph in graphs]
    for detail, text in (("nothing", lambda label: ""), ("names", lambda label: label.name), ("attributes", str)):
        words = [graph.words(detail) for graph in ordered]
        names: list[list[object]] = [[text(label) for label in graph.nodes] for graph in graphs]
        for _ in range(3):
            assert classes([w for part in words for w in part.tolist()]) == classes([n for p in names for n in p])
            words = [refined(w, graph, parents, children, offsets) for w, graph in zip(words, ordered)]
            names = [slowly_refined(n, graph, parents, children, offsets) for n, graph in zip(names, graphs)]


def test_words_do_not_depend_on_the_process() -> None:
    """They are written into files: these values must not change."""
    graph = OrderedGraph.of(Graph.build(["conv", "relu"], [(0, 1)], [0], [1]))
    assert graph.words("names").tolist() == [13783593004412515012, 927388812018831281]
    assert mixed(np.array([0], np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_order_and_edges() -> None:
    """Nodes that are numbered against the edges are put in order; edges are sorted by target, then source."""
    graph = Graph.build(["out", "b", "a", "in"], [(1, 0), (3, 2), (3, 1), (2, 0), (3, 0), (3, 0)], [3], [0])
    ordered = OrderedGraph.of(graph)
    assert ordered.node_N.tolist() == [3, 1, 2, 0]
    assert [ordered.labels[number].name for number in ordered.label_N] == ["in", "b", "a", "out"]
    edges = list(zip(ordered.source_E.tolist(), ordered.target_E.tolist()))
    assert edges == [(0, 1), (0, 2), (0, 3), (0, 3), (1, 3), (2, 3)]
    assert ordered.first_heard.tolist() == [0, 0, 1, 2, 6]
    assert ordered.first_told.tolist() == [0, 4, 5, 6, 6]
    assert ordered.source_E[ordered.by_source].tolist() == [0, 0, 0, 0, 1, 2]
    kept = ordered.kept(np.array([True, False, True, True]))
    assert kept.node_N.tolist() == [3, 2, 0]
    assert list(zip(kept.source_E.tolist(), kept.target_E.tolist())) == [(0, 1), (0, 2), (0, 2), (1, 2)]


def test_what_cannot_be_put_in_a_row() -> None:
    with pytest.raises(UserError, match="operations_on_nodes"):
        OrderedGraph.of(Graph.build(["in", "out"], [(0, 1, Label("conv"))], [0], [1]))
    with pytest.raises(UserError, match="without nodes"):
        OrderedGraph.of(Graph.build([], [], [], []))
    with pytest.raises(ValueError, match="one of nothing, names, attributes"):
        OrderedGraph.of(Graph.build(["in"], [], [0], [0])).words("all")


@pytest.mark.parametrize("seed", range(6))
def test_operations_that_go_pass_on_what_they_hear(random_graph, seed: int) -> None:
    """Ways through operations that go, by products of matrices, are the edges of what stays."""
    graph = OrderedGraph.of(random_graph(seed))
    gone_N = np.array([graph.labels[label].name in ("norm", "relu") for label in graph.label_N])
    found = graph.without(("norm", "relu"))
    count_NN = np.zeros((len(graph), len(graph)), np.int64)
    np.add.at(count_NN, (graph.source_E, graph.target_E), 1)
    into_NN, total_NN = count_NN.copy(), count_NN.copy()
    for _ in range(len(graph)):
        into_NN = (into_NN * gone_N) @ count_NN
        total_NN += into_NN
    expected_NN = total_NN[~gone_N][:, ~gone_N]
    found_NN = np.zeros_like(expected_NN)
    np.add.at(found_NN, (found.source_E, found.target_E), 1)
    assert 0 < gone_N.sum() < len(graph)
    np.testing.assert_array_equal(found_NN, expected_NN)
    np.testing.assert_array_equal(found.node_N, graph.node_N[~gone_N])
    np.testing.assert_array_equal(found.words("attributes"), graph.words("attributes")[~gone_N])
    assert (np.diff(found.target_E) >= 0).all()
    assert graph.without(()) is graph
