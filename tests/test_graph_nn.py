"""Batches of graphs and graph convolutions: padded and joined forms agree, and both with loops over edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nge_search.architecture.graph import INPUT, OUTPUT, Graph
from nge_search.errors import UserError
from nge_search.graph_nn import (
    DenseBatch,
    EdgeBatch,
    GatedConvolution,
    GraphConvolution,
    SparseBatch,
    Vocabulary,
    join,
    join_arrays,
    pad,
)

NODES = Vocabulary((INPUT, "conv", "pool", OUTPUT))
EDGES = Vocabulary(("", "sep", "skip"))
GRAPHS = [
    Graph.build([INPUT, "conv", "pool", OUTPUT], [(0, 1), (0, 2, "sep"), (1, 3), (2, 3, "skip"), (0, 3)], [0], [3]),
    Graph.build([INPUT, OUTPUT], [(0, 1, "sep"), (0, 1, "skip")], [0], [1]),
    Graph.build([INPUT, "pool", OUTPUT], [(0, 1, "sep"), (1, 2), (1, 2), (1, 2, "sep")], [0], [2]),
    Graph.build([INPUT, OUTPUT], [], [0], [1]),
]
WIDTH = 4


def places(graph: Graph) -> list[int]:
    """Where a padded batch puts the nodes: the output last."""
    return [*range(len(graph.nodes) - 1), WIDTH - 1]


@pytest.fixture(params=["as they are", "reversed"])
def batches(request: pytest.FixtureRequest) -> tuple[DenseBatch, SparseBatch, list[Graph]]:
    dense, sparse, graphs = pad(GRAPHS, NODES, EDGES), join(GRAPHS, NODES, EDGES), GRAPHS
    if request.param == "reversed":
        graphs = [
            Graph.build(
                graph.nodes, [(e.target, e.source, e.label) for e in graph.edges], graph.inputs, graph.outputs
            )
            for graph in graphs
        ]
        dense, sparse = dense.reversed(), sparse.reversed()
    return dense, sparse, graphs


def joined(h_BVF: Tensor) -> Tensor:
    """Rows of a padded tensor in the order of a joined batch."""
    return torch.cat([h_BVF[b, places(graph)] for b, graph in enumerate(GRAPHS)])


def test_padding_stands_before_the_output() -> None:
    dense = pad(GRAPHS, NODES, EDGES)
    assert dense.node_BV.tolist() == [[1, 2, 3, 4], [1, 0, 0, 4], [1, 3, 0, 4], [1, 0, 0, 4]]
    assert dense.edge_BKVV.shape == (4, 3, WIDTH, WIDTH)
    assert dense.edge_BKVV[2, :, 3, 1].tolist() == [1, 1, 2]
    assert dense.a_BVV[1].tolist() == [[0] * 4, [0] * 4, [0] * 4, [2, 0, 0, 0]]


def test_what_nodes_hear(batches) -> None:
    dense, sparse, graphs = batches
    torch.manual_seed(0)
    s_BVF = torch.randn(len(graphs), WIDTH, 5)
    table_OF = torch.rand(len(EDGES), 5)
    plain, gated = dense.hear(s_BVF), dense.hear(s_BVF, dense.per_edge(table_OF))
    torch.testing.assert_close(sparse.hear(joined(s_BVF)), joined(plain))
    torch.testing.assert_close(sparse.hear(joined(s_BVF), sparse.per_edge(table_OF)), joined(gated))
    for b, graph in enumerate(graphs):
        place = places(graph)
        expected, with_gates = torch.zeros(WIDTH, 5), torch.zeros(WIDTH, 5)
        for source, target, label in graph.edges:
            expected[place[target]] += s_BVF[b, place[source]]
            with_gates[place[target]] += table_OF[EDGES.number(label.name)] * s_BVF[b, place[source]]
        torch.testing.assert_close(plain[b], expected)
        torch.testing.assert_close(gated[b], with_gates)


def test_edges_by_themselves(batches) -> None:
    """What nodes hear is the same, and edges keep their places when they are turned round."""
    dense, _, graphs = batches
    torch.manual_seed(0)
    edges = EdgeBatch.of(dense)
    s_BVF, table_OF = torch.randn(len(graphs), WIDTH, 5), torch.rand(len(EDGES), 5)
    torch.testing.assert_close(edges.hear(s_BVF), dense.hear(s_BVF))
    gate_BPF = table_OF[edges.edge_BP]
    torch.testing.assert_close(edges.hear(s_BVF, gate_BPF), dense.hear(s_BVF, dense.per_edge(table_OF)))
    back = dense.reversed()
    torch.testing.assert_close(edges.reversed().hear(s_BVF, gate_BPF), back.hear(s_BVF, back.per_edge(table_OF)))
    assert len(edges.source_P) == (dense.edge_BKVV > 0).any(dim=0).sum()
    assert torch.equal(dense.edge_BKVV[:, edges.slot_P, edges.target_P, edges.source_P], edges.edge_BP)


def test_means_leave_padding_out() -> None:
    dense, sparse = pad(GRAPHS, NODES, EDGES), join(GRAPHS, NODES, EDGES)
    h_BVF = torch.randn(len(GRAPHS), WIDTH, 3)
    expected = torch.stack([h_BVF[b, places(graph)].mean(dim=0) for b, graph in enumerate(GRAPHS)])
    torch.testing.assert_close(dense.mean(h_BVF), expected)
    torch.testing.assert_close(sparse.mean(joined(h_BVF)), expected)


def test_plain_convolution_by_hand() -> None:
    """Three nodes in a chain with numbers that a person can follow; a matrix in place of a batch."""
    layer = GraphConvolution(1, 1, bias=False)
    layer.weight.data.fill_(2.0)
    chain = Graph.build([INPUT, "conv", OUTPUT], [(0, 1), (1, 2), (0, 2)], [0], [2])
    h_BV1 = torch.tensor([[[1.0], [10.0], [100.0]]])
    assert layer(h_BV1, pad([chain], NODES, EDGES)).flatten().tolist() == [0.0, 2.0, 22.0]
    assert layer(h_BV1[0], join([chain], NODES, EDGES)).flatten().tolist() == [0.0, 2.0, 22.0]
    weights = torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 1]])
    assert layer(h_BV1[0], weights).flatten().tolist() == [2.0, 21.0, 200.0]


@pytest.mark.parametrize("on_edges", [False, True])
def test_gated_convolution_against_a_loop(batches, on_edges: bool) -> None:
    dense, sparse, graphs = batches
    torch.manual_seed(1)
    layer = GatedConvolution(3, 4, 6, bias=True).double()
    layer.bias_F.data.normal_()
    x_BVD = torch.randn(len(graphs), WIDTH, 3, dtype=torch.float64)
    table_OG = torch.randn(max(len(NODES), len(EDGES)), 6, dtype=torch.float64)
    itself_BV = torch.zeros(len(graphs), WIDTH, dtype=torch.float64)
    itself_BV[:, 0] = 1
    operations = dense.per_edge(table_OG) if on_edges else dense.per_node(table_OG)
    found = layer(x_BVD, dense_double(dense), operations, on_edges, itself_BV)
    operations = sparse.per_edge(table_OG) if on_edges else sparse.per_node(table_OG)
    again = layer(joined(x_BVD), sparse, operations, on_edges, joined(itself_BV))
    torch.testing.assert_close(again, joined(found))
    with torch.no_grad():
        for b, graph in enumerate(graphs):
            place = places(graph)
            for node, label in enumerate(graph.nodes):
                y_F = itself_BV[b, place[node]] * (x_BVD[b, place[node]] @ layer.weight_DF) + layer.bias_F
                for edge in (graph.edges[position] for position in graph.incoming[node]):
                    number = EDGES.number(edge.label.name) if on_edges else NODES.number(label.name)
                    gate_F = 1 / (1 + torch.exp(-(layer.gate.weight @ table_OG[number] + layer.gate.bias)))
                    y_F = y_F + gate_F * (x_BVD[b, place[edge.source]] @ layer.weight_DF)
                torch.testing.assert_close(found[b, place[node]], y_F)


def dense_double(dense: DenseBatch) -> DenseBatch:
    return DenseBatch(dense.node_BV, dense.edge_BKVV, dense.a_BVV.double())


def test_a_width_that_is_given() -> None:
    dense = pad(GRAPHS, NODES, EDGES, 6)
    assert dense.node_BV.tolist() == [
        [1, 2, 3, 0, 0, 4],
        [1, 0, 0, 0, 0, 4],
        [1, 3, 0, 0, 0, 4],
        [1, 0, 0, 0, 0, 4],
    ]
    assert pad(GRAPHS, NODES, EDGES, 2).node_BV.shape == (4, WIDTH)


def test_padding_changes_nothing() -> None:
    """A graph gives the same alone as beside larger ones, in values and in gradients."""
    layer = GatedConvolution(3, 4, 6)
    table_OG = torch.randn(len(NODES), 6)
    small = GRAPHS[2]
    x_VD = torch.randn(3, 3)
    wide_BVD = torch.full((2, WIDTH, 3), 7.0)
    wide_BVD[1, places(small)] = x_VD
    results = []
    for graphs, x_BVD, b, place in (
        ([small], x_VD[None], 0, [0, 1, 2]),
        ([GRAPHS[0], small], wide_BVD, 1, places(small)),
    ):
        batch, x_BVD = pad(graphs, NODES, EDGES), x_BVD.clone().requires_grad_()
        y_VF = layer(x_BVD, batch, batch.per_node(table_OG))[b, place]
        (gradient,) = torch.autograd.grad(y_VF.square().sum(), x_BVD)
        results.append((y_VF.detach(), gradient[b, place]))
    torch.testing.assert_close(results[0], results[1])


def test_labels_that_are_unknown() -> None:
    with pytest.raises(UserError, match=r"'cnov' is none of .*did you mean 'conv'"):
        pad([Graph.build([INPUT, "cnov", OUTPUT], [], [0], [2])], NODES, EDGES)
    with pytest.raises(UserError, match="'sap' is none of"):
        join([Graph.build([INPUT, OUTPUT], [(0, 1, "sap")], [0], [1])], NODES, EDGES)


def test_tens_of_thousands_of_nodes() -> None:
    """Memory is linear: a matrix of so many nodes would take 3.6 GB."""
    count = 30_000
    chain = Graph.build(
        [INPUT, *["conv"] * (count - 2), OUTPUT], [(i, i + 1) for i in range(count - 1)], [0], [count - 1]
    )
    batch = join([chain], NODES, EDGES)
    layer = GraphConvolution(2, 2, bias=False)
    h_NF = torch.randn(count, 2)
    torch.testing.assert_close(layer(h_NF, batch)[1:], h_NF[:-1] @ layer.weight.T)


def test_graphs_that_are_arrays() -> None:
    """As `join` makes of the same graphs, but for the labels of edges."""
    expected = join(GRAPHS, NODES, EDGES)
    nodes = [np.array([NODES.number(label.name) for label in graph.nodes]) for graph in GRAPHS]
    sources = [np.array([edge.source for edge in graph.edges], np.int64) for graph in GRAPHS]
    targets = [np.array([edge.target for edge in graph.edges], np.int64) for graph in GRAPHS]
    found = join_arrays(nodes, sources, targets)
    for name in ("node_N", "graph_N", "source_E", "target_E", "weight_E"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert found.graphs == len(GRAPHS)
    assert not found.edge_E.any()
    moved = found.to("meta")
    assert moved.node_N.device.type == moved.weight_E.device.type == "meta"


def test_graphs_without_directions() -> None:
    """D^-1/2 (A + A' + I) D^-1/2 as a matrix, edges counted."""
    batch = join(GRAPHS, NODES, EDGES)
    h_NF = torch.randn(len(batch.node_N), 3)
    a_NN = torch.eye(len(h_NF))
    for source, target in zip(batch.source_E.tolist(), batch.target_E.tolist()):
        a_NN[source, target] += 1
        a_NN[target, source] += 1
    torch.testing.assert_close(batch.both_ways(normalised=False).hear(h_NF), a_NN @ h_NF)
    d_N = a_NN.sum(dim=1).rsqrt()
    torch.testing.assert_close(batch.both_ways().hear(h_NF), d_N[:, None] * a_NN @ (d_N[:, None] * h_NF))
