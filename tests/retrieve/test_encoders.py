"""Encoders against dense matrices in float64, and motifs that are encoded once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from nge_search.architecture.graph import Graph, Label
from nge_search.errors import UserError
from nge_search.retrieve.encoders import (
    GraphEncoder,
    LabelNumbers,
    MotifTable,
    batch_of_graphs,
    batch_of_macro_graphs,
    batch_of_parts,
)
from nge_search.retrieve.motifs import MotifSettings, divide
from nge_search.retrieve.ordered import OrderedGraph


def adjacency(graph: Graph) -> torch.Tensor:
    """A + A' + I, edges counted."""
    a_NN = torch.eye(len(graph.nodes), dtype=torch.float64)
    for edge in graph.edges:
        a_NN[edge.source, edge.target] += 1
        a_NN[edge.target, edge.source] += 1
    return a_NN


def one_hot(graph: Graph, labels: LabelNumbers) -> torch.Tensor:
    x_NO = functional.one_hot(torch.tensor([labels.number(label) for label in graph.nodes]), len(labels)).double()
    x_NO[:, 0] = 0
    return x_NO


def slow_convolutions(encoder: GraphEncoder, graph: Graph, labels: LabelNumbers) -> torch.Tensor:
    """Equation 3."""
    a_NN, h_NF = adjacency(graph), one_hot(graph, labels)
    d_NN = torch.diag(a_NN.sum(dim=1) ** -0.5)
    for done, layer in enumerate(encoder.layers):
        h_NF = functional.elu(h_NF) if done else h_NF
        h_NF = d_NN @ a_NN @ d_NN @ h_NF @ layer.weight.T + layer.bias
    return h_NF.mean(dim=0)


def slow_attention(encoder: GraphEncoder, graph: Graph, labels: LabelNumbers) -> torch.Tensor:
    """With loops over nodes and heads; two edges between two nodes count twice."""
    a_NN, h_NF = adjacency(graph), one_hot(graph, labels)
    for done, layer in enumerate(encoder.layers):
        h_NF = functional.elu(h_NF) if done else h_NF
        s_NF = h_NF @ layer.lift.weight.T
        size = s_NF.shape[1] // layer.heads
        rows = []
        for j in range(len(graph.nodes)):
            heads = []
            for head in range(layer.heads):
                s_NG = s_NF[:, head * size : (head + 1) * size]
                score_N = s_NG @ layer.source_HG[head] + s_NG[j] @ layer.target_HG[head]
                weight_N = a_NN[j] * functional.leaky_relu(score_N, 0.2).exp()
                heads.append(weight_N @ s_NG / weight_N.sum())
            rows.append(torch.cat(heads) + layer.bias_F)
        h_NF = torch.stack(rows)
    return h_NF.mean(dim=0)


@pytest.mark.parametrize("kind", ["convolution", "attention"])
def test_against_matrices(random_graph, kind: str) -> None:
    graphs = [random_graph(seed, nodes=6 + seed) for seed in range(4)]
    ordered = [OrderedGraph.of(graph) for graph in graphs]
    labels = LabelNumbers.of(ordered[:1])
    torch.manual_seed(0)
    encoder = GraphEncoder(len(labels), 6, kind=kind, heads=2).double()
    batch = batch_of_graphs(ordered, labels, encoder.normalised)
    batch = type(batch)(**{**vars(batch), "weight_E": batch.weight_E.double()})
    if kind == "convolution":  # weights of float32 are those of the batch; here they are computed again
        degree_N = torch.bincount(batch.target_E).double()
        weight_E = (degree_N[batch.source_E] * degree_N[batch.target_E]) ** -0.5
        torch.testing.assert_close(batch.weight_E, weight_E, atol=1e-6, rtol=1e-6)
        batch = type(batch)(**{**vars(batch), "weight_E": weight_E})
    slow = slow_convolutions if kind == "convolution" else slow_attention
    expected = torch.stack([slow(encoder, graph, labels) for graph in graphs])
    torch.testing.assert_close(encoder(batch), expected)


def test_every_parameter_learns(random_graph) -> None:
    ordered = [OrderedGraph.of(random_graph(seed)) for seed in range(3)]
    labels = LabelNumbers.of(ordered)
    for kind in ("convolution", "attention"):
        encoder = GraphEncoder(len(labels), 8, kind=kind)
        encoder(batch_of_graphs(ordered, labels, encoder.normalised)).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_dropout_only_while_training(random_graph) -> None:
    ordered = [OrderedGraph.of(random_graph(0))]
    labels = LabelNumbers.of(ordered)
    torch.manual_seed(0)
    encoder = GraphEncoder(len(labels), 8, dropout=0.5)
    batch = batch_of_graphs(ordered, labels)
    assert not torch.equal(encoder(batch), encoder(batch))
    encoder.eval()
    assert torch.equal(encoder(batch), encoder(batch))


def test_numbers_of_labels() -> None:
    """What is unknown with its attributes counts as the operation; an unknown operation as none."""
    three, five = Label.of("conv", kernel=3), Label.of("conv", kernel=5)
    graph = OrderedGraph.of(Graph.build([three, "relu", three], [(0, 1), (1, 2)], [0], [2]))
    names, whole = LabelNumbers.of([graph]), LabelNumbers.of([graph], attributes=True)
    assert names.names == ("conv", "relu")
    assert names.numbers(graph).tolist() == [1, 2, 1]
    assert whole.names == ("conv", "conv(kernel=3)", "relu")
    assert whole.numbers(graph).tolist() == [2, 3, 2]
    assert [whole.number(label) for label in (five, Label("pool"))] == [1, 0]
    assert len(whole) == 4


def test_motifs_are_encoded_once(stacked) -> None:
    """The table holds what every motif's own graph gives, however often it recurs."""
    divided = [divide(OrderedGraph.of(stacked("conv norm relu", depth)), MotifSettings()) for depth in (4, 9)]
    labels = LabelNumbers.of([motifs.graph for motifs in divided])
    torch.manual_seed(0)
    encoder = GraphEncoder(len(labels), 5)
    table = MotifTable(encoder, labels)
    found = table(divided)
    parts = [(motifs.graph, motifs.part(m)) for motifs in divided for m in range(len(motifs))]
    torch.testing.assert_close(found, encoder(batch_of_parts(parts, labels)).detach())
    assert len(table) == len({content for motifs in divided for content in motifs.content_M.tolist()})
    assert torch.equal(table(divided[1:]), found[len(divided[0]) :])
    assert not found.requires_grad


def test_macro_graphs(stacked) -> None:
    settings = MotifSettings("node_number", size=3)
    divided = [divide(OrderedGraph.of(stacked("conv norm", depth)), settings) for depth in (2, 3)]
    batch = batch_of_macro_graphs(divided, normalised=False)
    assert torch.bincount(batch.graph_N).tolist() == [len(motifs) for motifs in divided]
    edges = set(zip(batch.source_E.tolist(), batch.target_E.tolist()))
    expected = set()
    first = 0
    for motifs in divided:
        for a, b in zip(*(ends.tolist() for ends in motifs.macro_edges)):
            expected |= {(first + a, first + b), (first + b, first + a)}
        expected |= {(first + m, first + m) for m in range(len(motifs))}
        first += len(motifs)
    assert edges == expected
    assert len(batch.source_E) == len(edges)
    x_ND = torch.randn(first, 4)
    assert GraphEncoder(4, 8)(batch, x_ND).shape == (2, 8)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="one of convolution, attention"):
        GraphEncoder(3, 4, kind="gcn")
    with pytest.raises(UserError, match="cannot have 3 heads"):
        GraphEncoder(3, 4, heads=3)


def test_tens_of_thousands_of_nodes() -> None:
    """Linear in nodes: a matrix of so many would take gigabytes."""
    count = 37_000
    graph = Graph.build(["conv", "norm"] * (count // 2), [(i, i + 1) for i in range(count - 1)], [0], [count - 1])
    ordered = OrderedGraph.of(graph)
    labels = LabelNumbers.of([ordered])
    encoder = GraphEncoder(len(labels), 4, kind="attention")
    with torch.no_grad():
        found = encoder(batch_of_graphs([ordered], labels, normalised=False))
    assert np.isfinite(found.numpy()).all()
