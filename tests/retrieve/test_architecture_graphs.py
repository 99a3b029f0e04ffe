"""Graphs of searched architectures."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.load import load_architecture
from nge_search.counting import multiply_adds
from nge_search.errors import UserError
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.retrieve.architecture_graphs import (
    DARTS_LABELS,
    HEAD,
    STEM,
    cell_graphs,
    darts_network,
    trace_architecture,
)
from nge_search.spaces.darts import DartsSpace


def test_the_papers_networks_have_265_nodes_and_404_edges() -> None:
    space, random = DartsSpace(), np.random.default_rng(0)
    for _ in range(5):
        graph = darts_network(space.genotype(space.random(random)))
        assert (len(graph.nodes), len(graph.edges)) == (265, 404)
        assert {label.name for label in graph.nodes} <= set(DARTS_LABELS)
        assert graph.order == tuple(range(265))
        assert graph.pruned() is not None
    assert len(DARTS_LABELS) == 12


def test_two_cells_worked_out_by_hand() -> None:
    genotype = PUBLISHED["darts_v2"]
    graph = darts_network(genotype, cells=1)  # which reduces
    names = [label.name for label in graph.nodes]
    assert names[:3] == ["input", STEM, STEM]
    assert names[3:6] == [genotype.reduce.genes[0][0], genotype.reduce.genes[1][0], "sum"]
    assert names[-3:] == ["concat", HEAD, HEAD]
    assert graph.sources(3) == graph.sources(4) == [2]
    assert graph.sources(5) == [3, 4]
    assert sorted(graph.sources(15)) == [5, 8, 11, 14]
    two = darts_network(genotype, cells=2)
    inputs = {source for node in range(16, 28) for source in two.sources(node) if source < 16}
    assert inputs <= {2, 15}
    assert 15 in inputs


def test_reduction_cells_stand_at_thirds() -> None:
    genotype = PUBLISHED["darts_v2"]
    nodes = [label.name for label in darts_network(genotype).nodes[3:-2]]
    cells = [nodes[13 * n : 13 * n + 13] for n in range(20)]
    reduce = [operation for operation, _ in genotype.reduce.genes]
    found = [
        n for n, cell in enumerate(cells) if [name for name in cell if name not in ("sum", "concat")] == reduce
    ]
    assert found == [6, 13]


def test_cells_of_any_space() -> None:
    for notation in (
        "darts_v2",
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|",
    ):
        architecture = load_architecture(notation)
        found = cell_graphs(architecture)
        assert found.keys() == architecture.graphs.keys()
        for kind, graph in found.items():
            assert {edge.label.name for edge in graph.edges} == {""}
            edges = Counter(edge.label.name for edge in architecture.graphs[kind].edges if edge.label.name)
            names = Counter(label.name for label in graph.nodes)
            assert edges
            assert all(names[name] == count for name, count in edges.items())


def test_trained_networks_are_traced() -> None:
    architecture = load_architecture("darts_v2")
    found = trace_architecture(architecture, "imagenet")
    assert found.parameters == pytest.approx(4.7e6, rel=0.02)
    assert found.multiply_adds == multiply_adds(ImageNetNetwork(PUBLISHED["darts_v2"]), (1, 3, 224, 224))
    with pytest.raises(UserError, match="has no network 'imagnet'; known are cifar, imagenet; did you mean"):
        trace_architecture(architecture, "imagnet")
