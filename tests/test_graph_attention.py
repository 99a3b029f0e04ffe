"""Attention between the nodes of graphs, against loops over nodes and edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nge_search.architecture.graph import INPUT, OUTPUT, Graph
from nge_search.graph_attention import DenseGraphAttention, GraphAttention
from nge_search.graph_nn import Vocabulary, join

NODES = Vocabulary((INPUT, "conv", "pool", OUTPUT))
EDGES = Vocabulary(("", "sep", "skip"))
GRAPHS = [
    Graph.build([INPUT, "conv", "pool", OUTPUT], [(0, 1), (0, 2, "sep"), (1, 3), (2, 3, "skip"), (0, 3)], [0], [3]),
    Graph.build([INPUT, OUTPUT], [(0, 1, "sep"), (0, 1, "skip")], [0], [1]),
    Graph.build([INPUT, "pool", OUTPUT], [(0, 1, "sep"), (1, 2), (1, 2), (1, 2, "sep")], [0], [2]),
    Graph.build([INPUT, OUTPUT], [], [0], [1]),
]


def attention_by_loops(layer: DenseGraphAttention, member: int, h_VD: Tensor, hears_VV: Tensor) -> Tensor:
    """Velickovic et al.'s equations, a node after the other."""
    s = [h @ layer.weight_MDF[member] for h in h_VD]
    rows = []
    for i in range(len(s)):
        heard = [j for j in range(len(s)) if j == i or hears_VV[i, j]]
        scores = []
        for j in heard:
            score = (
                layer.heard_MF[member] @ s[j] + layer.hearing_MF[member] @ s[i]
                if layer.attention
                else torch.zeros((), dtype=h_VD.dtype)
            )
            scores.append(torch.exp(score if score > 0 else 0.2 * score))
        rows.append(sum(a / sum(scores) * s[j] for a, j in zip(scores, heard)) + layer.bias_MF[member])
    return torch.stack(rows)


@pytest.mark.parametrize("attention", [True, False])
def test_attention_against_loops(attention: bool) -> None:
    torch.manual_seed(0)
    layer = DenseGraphAttention(3, 4, members=2, attention=attention).double()
    torch.nn.init.normal_(layer.bias_MF)
    h_MBVD = torch.randn(2, 3, 5, 3, dtype=torch.float64)
    hears_MBVV = torch.rand(2, 3, 5, 5) < 0.3
    found = layer(h_MBVD, hears_MBVV)
    for m in range(2):
        for b in range(3):
            expected = attention_by_loops(layer, m, h_MBVD[m, b], hears_MBVV[m, b])
            torch.testing.assert_close(found[m, b], expected, rtol=1e-12, atol=1e-12)
    found.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


def test_attention_against_a_loop() -> None:
    torch.manual_seed(0)
    batch = join(GRAPHS, NODES, EDGES).both_ways(normalised=False)
    layer = GraphAttention(3, 4, heads=2, slope=0.3).double()
    layer.bias_F.data.normal_()
    h_ND = torch.randn(len(batch.node_N), 3, dtype=torch.float64, requires_grad=True)
    found = layer(h_ND, batch)
    s_NHG = (h_ND @ layer.lift.weight.T).reshape(-1, 2, 2)
    for node in range(len(h_ND)):
        edges = [e for e in range(len(batch.target_E)) if batch.target_E[e] == node]
        for head in range(2):
            scores = []
            for e in edges:
                value = s_NHG[batch.source_E[e], head] @ layer.source_HG[head]
                value = value + s_NHG[node, head] @ layer.target_HG[head]
                scores.append(value if value > 0 else 0.3 * value)
            weights = torch.stack(scores).softmax(dim=0)
            heard = sum(w * s_NHG[batch.source_E[e], head] for w, e in zip(weights, edges))
            torch.testing.assert_close(
                found[node, 2 * head : 2 * head + 2], heard + layer.bias_F[2 * head : 2 * head + 2]
            )
    assert torch.autograd.gradcheck(lambda h: layer(h, batch), h_ND)


def test_attention_of_large_scores() -> None:
    """The largest is taken off before powers are taken."""
    batch = join(GRAPHS[:1], NODES, EDGES).both_ways(normalised=False)
    score_EH = torch.full((len(batch.source_E), 1), 1e4)
    sums = torch.zeros(4, 1).index_add(0, batch.target_E, batch.softmax(score_EH))
    torch.testing.assert_close(sums, torch.ones(4, 1))
