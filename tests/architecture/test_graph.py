"""The graph of an architecture: order, pruning, operations on nodes, and names that isomorphic graphs share."""

from __future__ import annotations

import itertools
import random

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nge_search.architecture.graph import CONCAT, INPUT, OUTPUT, SUM, Graph, Label
from nge_search.architecture.isomorphism import EXACT_NODES, colours, distinct, isomorphic
from nge_search.errors import UserError


def networkx_graph(graph: Graph) -> networkx.MultiDiGraph:
    found = networkx.MultiDiGraph()
    for node, label in enumerate(graph.nodes):
        roles = [tuple(i for i, m in enumerate(members) if m == node) for members in (graph.inputs, graph.outputs)]
        found.add_node(node, what=(label, *roles))
    for source, target, label in graph.edges:
        found.add_edge(source, target, what=label)
    return found


def oracle(first: Graph, second: Graph) -> bool:
    """networkx's exact search (VF2) with labels of nodes and of all edges of a pair."""
    node_match = networkx.algorithms.isomorphism.categorical_node_match("what", None)

    def edge_match(one: dict, other: dict) -> bool:
        return sorted(edge["what"] for edge in one.values()) == sorted(edge["what"] for edge in other.values())

    return networkx.is_isomorphic(networkx_graph(first), networkx_graph(second), node_match, edge_match)


def shuffled(graph: Graph, seed: int) -> Graph:
    """The same graph, numbered otherwise, with its edges in another order."""
    chance = random.Random(seed)
    order = list(range(len(graph.nodes)))
    chance.shuffle(order)
    moved = graph.renumbered(order)
    edges = list(moved.edges)
    chance.shuffle(edges)
    return Graph(moved.nodes, tuple(edges), moved.inputs, moved.outputs)


@st.composite
def graphs(draw: st.DrawFn, most: int = 6) -> Graph:
    """Small graphs with few labels, so that many are symmetric or alike; some pairs have two edges."""
    count = draw(st.integers(2, most))
    pairs = list(itertools.combinations(range(count), 2))
    edges = draw(st.lists(st.tuples(st.sampled_from(pairs), st.sampled_from("ab")), max_size=2 * count))
    labels = draw(st.lists(st.sampled_from("xy"), min_size=count, max_size=count))
    return Graph.build(labels, [(*pair, label) for pair, label in edges], [0], [count - 1])


@given(graphs(), graphs(), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_names_are_shared_exactly_by_isomorphic_graphs(first: Graph, second: Graph, seed: int) -> None:
    same = shuffled(first, seed)
    assert same.digest == first.digest
    assert isomorphic(first, same)
    assert (first.digest == second.digest) == oracle(first, second) == isomorphic(first, second)


def regular(ring_lengths: list[int]) -> Graph:
    """Nodes of two layers joined in rings: each hears two and tells two, so that refinement sees no difference."""
    nodes, edges = ["node"] * (2 * sum(ring_lengths)), []
    start = 0
    for length in ring_lengths:
        for k in range(length):
            above, below = start + k, start + length + k
            edges += [(above, below), (above, start + length + (k + 1) % length)]
        start += 2 * length
    return Graph.build(nodes, edges, [], [])


def test_rings_that_refinement_cannot_tell_apart() -> None:
    """Two rings of 4 and one of 8 (16 nodes): one name, but not isomorphic; with 8 nodes the names differ."""
    one, two = regular([8]), regular([4, 4])
    assert len(one.nodes) > EXACT_NODES
    assert sorted(colours(one)) == sorted(colours(two))
    assert one.digest == two.digest
    assert not isomorphic(one, two)
    assert not oracle(one, two)
    assert isomorphic(two, shuffled(two, 3))
    assert distinct([one, two, shuffled(one, 1), shuffled(two, 2)], lambda graph: graph) == [one, two]
    small, halves = regular([4]), regular([2, 2])
    assert len(small.nodes) <= EXACT_NODES
    assert small.digest != halves.digest


@given(graphs(most=14), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_larger_graphs_are_compared_node_by_node(graph: Graph, seed: int) -> None:
    chance = random.Random(seed)
    same = shuffled(graph, seed)
    assert isomorphic(graph, same)
    edges = list(same.edges)
    if edges:
        position = chance.randrange(len(edges))
        edges[position] = edges[position]._replace(label=Label("other"))
        other = Graph(same.nodes, tuple(edges), same.inputs, same.outputs)
        assert not isomorphic(graph, other)


def test_many_equal_branches_are_named_at_once() -> None:
    """Eight equal nodes side by side have 40,320 orders, of which one is looked at."""
    edges = [(0, node) for node in range(1, 9)] + [(node, 9) for node in range(1, 9)]
    graph = Graph.build([INPUT, *["conv"] * 8, OUTPUT], edges, [0], [9])
    assert graph.digest == shuffled(graph, 5).digest
    assert graph.digest != Graph.build([INPUT, *["conv"] * 8, OUTPUT], edges[:-1], [0], [9]).digest


def test_thousands_of_nodes() -> None:
    """A chain of blocks, five thousand nodes: named and compared, and a change in one of them is seen."""
    blocks = 1_250
    nodes, edges = [INPUT], []
    for _ in range(blocks):
        last = len(nodes) - 1
        nodes += ["conv", "conv", "norm", "add"]
        edges += [
            (last, last + 1),
            (last, last + 2),
            (last + 1, last + 3),
            (last + 2, last + 4),
            (last + 3, last + 4),
        ]
    graph = Graph.build(nodes, edges, [0], [len(nodes) - 1])
    assert isomorphic(graph, shuffled(graph, 1))
    nodes[4 * (blocks // 2) + 3] = "relu"
    assert not isomorphic(graph, Graph.build(nodes, edges, [0], [len(nodes) - 1]))


def test_roles_and_attributes_count() -> None:
    cell = Graph.build([INPUT, INPUT, SUM], [(0, 2, "conv"), (1, 2, "pool")], [0, 1], [2])
    swapped = Graph.build([INPUT, INPUT, SUM], [(1, 2, "conv"), (0, 2, "pool")], [0, 1], [2])
    assert cell.digest != swapped.digest  # the input before the last and the last are not the same
    three, five = (Graph.build([INPUT, Label.of("conv", kernel=k, groups=1)], [(0, 1)], [0], [1]) for k in (3, 5))
    assert three.digest != five.digest
    assert Label.of("conv", kernel=3, groups=1) == Label.of("conv", groups=1, kernel=3)
    assert str(Label.of("conv", kernel=3, groups=1)) == "conv(groups=1, kernel=3)"
    once = Graph.build([INPUT, OUTPUT], [(0, 1, "conv")], [0], [1])
    twice = Graph.build([INPUT, OUTPUT], [(0, 1, "conv"), (0, 1, "conv")], [0], [1])
    assert once.digest != twice.digest


def test_order_and_depths() -> None:
    graph = Graph.build("abcde", [(4, 0), (4, 2), (2, 1), (0, 1), (1, 3)], [4], [3])
    assert graph.order == (4, 0, 2, 1, 3)
    assert graph.depths == (1, 2, 1, 3, 0)
    assert graph.sources(1) == [2, 0]
    assert graph.targets(4) == [0, 2]


@given(graphs(most=8))
@settings(max_examples=60, deadline=None)
def test_pruned_keeps_exactly_the_nodes_on_paths(graph: Graph) -> None:
    start, end = graph.inputs[0], graph.outputs[0]
    plain = networkx.DiGraph((edge.source, edge.target) for edge in graph.edges)
    paths = list(networkx.all_simple_paths(plain, start, end)) if {start, end} <= set(plain) else []
    pruned = graph.pruned()
    assert (pruned is None) == (not paths)
    if pruned is not None:
        kept = sorted({node for path in paths for node in path})
        assert [graph.nodes[node] for node in kept] == list(pruned.nodes)
        assert pruned.edges == tuple(
            edge._replace(source=kept.index(edge.source), target=kept.index(edge.target))
            for edge in graph.edges
            if edge.source in kept and edge.target in kept
        )


def test_an_unused_input_stays() -> None:
    cell = Graph.build([INPUT, INPUT, SUM, SUM, CONCAT], [(0, 2, "a"), (1, 3, "b"), (3, 4)], [0, 1], [4])
    pruned = cell.pruned()
    assert pruned is not None
    assert [label.name for label in pruned.nodes] == [INPUT, INPUT, SUM, CONCAT]
    assert pruned.inputs == (0, 1)
    assert Graph.build([INPUT, OUTPUT], [], [0], [1]).pruned() is None


def test_operations_move_from_edges_to_nodes() -> None:
    """NAS-Bench-201's cell in small: two sums, three operations; without `none` and what it cuts off."""
    cell = Graph.build([INPUT, SUM, SUM], [(0, 1, "a"), (0, 2, "b"), (1, 2, "c")], [0], [2])
    moved = cell.operations_on_nodes()
    expected = Graph.build(
        [INPUT, "a", "b", "c", SUM], [(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)], inputs=[0], outputs=[4]
    )
    assert isomorphic(moved, expected)
    assert len(cell.without(["b"]).operations_on_nodes().nodes) == 4
    on_nodes = Graph.build([INPUT, "conv", OUTPUT], [(0, 1), (1, 2)], [0], [2])
    assert isomorphic(on_nodes.operations_on_nodes(), on_nodes)


@pytest.mark.parametrize(
    ("edges", "inputs", "words"),
    [
        ([(0, 1), (1, 2), (2, 0)], [0], "lead in a circle"),
        ([(1, 1)], [0], "lead in a circle"),
        ([(0, 7)], [0], "from 0 to 7"),
        ([(0, -1)], [0], "from 0 to -1"),
        ([(0, 1)], [5], "input or output of the graph is node 5"),
    ],
)
def test_what_is_no_architecture(edges: list, inputs: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Graph.build("abc", edges, inputs, [2])
