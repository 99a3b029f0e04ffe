"""Neural networks on graphs: batches of graphs as tensors, and the layers by which nodes hear of each other.

A batch comes in two forms with one result. `DenseBatch` pads small graphs (cells) to a common number of nodes, so
that a step is a few batched products. `SparseBatch` joins graphs of any size into one list of edges and sums over
segments; its memory is linear in nodes and edges.

`EdgeBatch` holds the edges of a dense one by themselves, for what computes on edges.

Legend: B graphs, V nodes of the largest, N nodes of all graphs together, E edges of all graphs together, K the most
edges between two nodes, P places of edges that some graph of a batch has, D and F features, G features of a gate, O
options of a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError, nearest


@dataclass(frozen=True)
class Vocabulary:
    """Numbers for the names of labels, from 1 in the order of `names`; 0 stands for what is not there."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        """O: how many numbers there are, with that of what is not there."""
        return len(self.names) + 1

    def number(self, name: str) -> int:
        """The number of a name; UserError for one that is unknown."""
        try:
            return self.names.index(name) + 1
        except ValueError:
            hint = nearest(name, self.names)
            raise UserError(f"label '{name}' is none of {', '.join(self.names)}{hint}") from None


@dataclass(frozen=True)
class DenseBatch:
    """Small graphs, padded to V nodes. Rows of matrices hear, columns are heard.

    Attributes:
        node_BV: numbers of the nodes' labels, int64; 0 where a graph has fewer nodes.
        edge_BKVV: numbers of the edges' labels, int64; 0: no edge. K slots hold edges between the same two nodes.
        a_BVV: weights with which nodes hear each other; by default the number of edges.
    """

    node_BV: Tensor
    edge_BKVV: Tensor
    a_BVV: Tensor

    @property
    def present_BV(self) -> Tensor:
        """Which nodes are there, bool."""
        return self.node_BV > 0

    def reversed(self) -> DenseBatch:
        """The graphs with their edges turned round."""
        return DenseBatch(self.node_BV, self.edge_BKVV.transpose(2, 3), self.a_BVV.transpose(1, 2))

    def hear(self, s_BVF: Tensor, gate_BKVVF: Tensor | None = None) -> Tensor:
        """For each node the sum of what its edges bring: [B, V, F].

        Args:
            s_BVF: what nodes say.
            gate_BKVVF: a factor for each edge; None: the weights of `a_BVV`.
        """
        if gate_BKVVF is None:
            return self.a_BVV @ s_BVF
        there_BKVV1 = (self.edge_BKVV > 0).unsqueeze(-1)
        return torch.where(there_BKVV1, gate_BKVVF * s_BVF[:, None, None], 0).sum(dim=(1, 3))

    def per_edge(self, value_OF: Tensor) -> Tensor:
        """A row of a table for each edge by its label: [B, K, V, V, F]."""
        return value_OF[self.edge_BKVV]

    def per_node(self, value_OF: Tensor) -> Tensor:
        """A row of a table for each node by its label: [B, V, F]."""
        return value_OF[self.node_BV]

    def mean(self, h_BVF: Tensor) -> Tensor:
        """The mean over each graph's nodes: [B, F]."""
        present_BV1 = self.present_BV.unsqueeze(-1)
        total_BF = torch.where(present_BV1, h_BVF, 0).sum(dim=1)
        return total_BF / present_BV1.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class EdgeBatch:
    """The edges of padded graphs alone, by the places between nodes that any of the graphs uses.

    What is on edges then takes [B, P, ...] in place of [B, K, V, V, ...], of which acyclic graphs leave most empty.

    Attributes:
        edge_BP: numbers of the edges' labels, int64; 0: no edge.
        source_P, target_P: ends of the places.
        slot_P: which of several edges between two nodes it is.
    """

    edge_BP: Tensor
    source_P: Tensor
    target_P: Tensor
    slot_P: Tensor

    @staticmethod
    def of(batch: DenseBatch) -> EdgeBatch:
        """The edges of a dense batch."""
        slot_P, target_P, source_P = (batch.edge_BKVV > 0).any(dim=0).nonzero(as_tuple=True)
        return EdgeBatch(batch.edge_BKVV[:, slot_P, target_P, source_P], source_P, target_P, slot_P)

    def reversed(self) -> EdgeBatch:
        """The graphs with their edges turned round; edges keep their places among P."""
        return EdgeBatch(self.edge_BP, self.target_P, self.source_P, self.slot_P)

    def messages(self, s_BVF: Tensor, gate_BPF: Tensor) -> Tensor:
        """What edges bring, [B, P, F]: what their sources say, times a factor of their own; 0 where none is."""
        return torch.where((self.edge_BP > 0).unsqueeze(-1), gate_BPF * s_BVF.index_select(1, self.source_P), 0)

    def arriving(self, message_BPF: Tensor, nodes: int) -> Tensor:
        """For each of V nodes the sum of what its edges bring: [B, V, F]."""
        empty_BVF = message_BPF.new_zeros(len(message_BPF), nodes, message_BPF.shape[2])
        return empty_BVF.index_add(1, self.target_P, message_BPF)

    def hear(self, s_BVF: Tensor, gate_BPF: Tensor | None = None) -> Tensor:
        """For each node the sum of what its edges bring: [B, V, F]; as `DenseBatch.hear`."""
        gate_BPF = torch.ones_like(s_BVF.index_select(1, self.source_P)) if gate_BPF is None else gate_BPF
        return self.arriving(self.messages(s_BVF, gate_BPF), s_BVF.shape[1])


@dataclass(frozen=True)
class SparseBatch:
    """Graphs of any size, joined: their nodes one behind the other, and lists of edges.

    Attributes:
        node_N: numbers of the nodes' labels, int64.
        graph_N: the graph that each node belongs to, int64.
        source_E, target_E: ends of the edges, as positions among the N nodes.
        edge_E: numbers of the edges' labels, int64.
        weight_E: weights with which targets hear sources.
        graphs: B.
    """

    node_N: Tensor
    graph_N: Tensor
    source_E: Tensor
    target_E: Tensor
    edge_E: Tensor
    weight_E: Tensor
    graphs: int

    def reversed(self) -> SparseBatch:
        """The graphs with their edges turned round."""
        ends = self.target_E, self.source_E
        return SparseBatch(self.node_N, self.graph_N, *ends, self.edge_E, self.weight_E, self.graphs)

    def both_ways(self, normalised: bool = True) -> SparseBatch:
        """The graphs without directions: each edge also turned round, and a loop at every node.

        Args:
            normalised: edges weigh 1 / sqrt(degrees of their ends), loops counted: D^-1/2 (A + I) D^-1/2 of Kipf
                and Welling (2017); else 1.
        """
        loop_N = torch.arange(len(self.node_N), device=self.node_N.device)
        source_E = torch.cat([self.source_E, self.target_E, loop_N])
        target_E = torch.cat([self.target_E, self.source_E, loop_N])
        edge_E = torch.cat([self.edge_E, self.edge_E, torch.zeros_like(loop_N)])
        weight_E = torch.ones(len(source_E), dtype=self.weight_E.dtype, device=self.weight_E.device)
        if normalised:
            share_N = torch.bincount(target_E, minlength=len(loop_N)).to(weight_E.dtype).rsqrt()
            weight_E = share_N[source_E] * share_N[target_E]
        return SparseBatch(self.node_N, self.graph_N, source_E, target_E, edge_E, weight_E, self.graphs)

    def to(self, device: torch.device | str) -> SparseBatch:
        """The same on another device."""
        nodes = self.node_N.to(device), self.graph_N.to(device)
        ends = self.source_E.to(device), self.target_E.to(device)
        return SparseBatch(*nodes, *ends, self.edge_E.to(device), self.weight_E.to(device), self.graphs)

    def softmax(self, score_EH: Tensor) -> Tensor:
        """Of edges' scores, over the edges that end at the same node: [E, H]."""
        shape = len(self.node_N), score_EH.shape[1]
        index_EH = self.target_E[:, None].expand_as(score_EH)
        most_NH = score_EH.new_full(shape, -torch.inf).scatter_reduce(0, index_EH, score_EH.detach(), "amax")
        power_EH = (score_EH - most_NH[self.target_E]).exp()
        sum_NH = score_EH.new_zeros(shape).index_add(0, self.target_E, power_EH)
        return power_EH / sum_NH[self.target_E]

    def hear(self, s_NF: Tensor, gate_EF: Tensor | None = None) -> Tensor:
        """For each node the sum of what its edges bring: [N, F]; as `DenseBatch.hear`."""
        factor_EF = self.weight_E[:, None].to(s_NF.dtype) if gate_EF is None else gate_EF
        return torch.zeros_like(s_NF).index_add(0, self.target_E, factor_EF * s_NF[self.source_E])

    def per_edge(self, value_OF: Tensor) -> Tensor:
        """A row of a table for each edge by its label: [E, F]."""
        return value_OF[self.edge_E]

    def per_node(self, value_OF: Tensor) -> Tensor:
        """A row of a table for each node by its label: [N, F]."""
        return value_OF[self.node_N]

    def mean(self, h_NF: Tensor) -> Tensor:
        """The mean over each graph's nodes: [B, F]."""
        total_BF = h_NF.new_zeros(self.graphs, h_NF.shape[1]).index_add(0, self.graph_N, h_NF)
        return total_BF / torch.bincount(self.graph_N, minlength=self.graphs).clamp(min=1)[:, None]


Batch = DenseBatch | SparseBatch


def pad(graphs: Sequence[Graph], nodes: Vocabulary, edges: Vocabulary, width: int = 0) -> DenseBatch:
    """Graphs as a padded batch. Their outputs stand last: padding comes before the outputs, as NAS-Bench-101 pads.

    Args:
        nodes, edges: the labels there are.
        width: V, if no graph has more nodes.

    Raises:
        UserError: a label that a vocabulary lacks.
    """
    slots, widest = _dense_sizes(graphs)
    width = max(width, widest)
    # Arrays, as it takes several times as long to write single numbers into tensors.
    numbers_BV = np.zeros((len(graphs), width), dtype=np.int64)
    numbers_BKVV = np.zeros((len(graphs), slots, width, width), dtype=np.int64)
    for b, graph in enumerate(graphs):
        for node, position in enumerate(_places(graph, width)):
            numbers_BV[b, position] = nodes.number(graph.nodes[node].name)
        for edge, (slot, target, source) in zip(graph.edges, _edge_places(graph, width)):
            numbers_BKVV[b, slot, target, source] = edges.number(edge.label.name)
    node_BV, edge_BKVV = torch.from_numpy(numbers_BV), torch.from_numpy(numbers_BKVV)
    return DenseBatch(node_BV, edge_BKVV, (edge_BKVV > 0).sum(dim=1).to(torch.get_default_dtype()))


def pad_rows(graphs: Sequence[Graph], rows: Sequence[np.ndarray], on_edges: bool, width: int = 0) -> Tensor:
    """Numbers for each node, [B, V, F], or each edge, [B, K, V, V, F], where `pad` puts it; zeros elsewhere.

    Args:
        rows: for each graph [nodes, F], or [edges, F].
        width: V, if no graph has more nodes.
    """
    slots, widest = _dense_sizes(graphs)
    width = max(width, widest)
    features = rows[0].shape[1] if rows else 0
    shape = (slots, width, width) if on_edges else (width,)
    values = torch.zeros(len(graphs), *shape, features, dtype=torch.get_default_dtype())
    for b, (graph, own) in enumerate(zip(graphs, rows)):
        places = torch.tensor(_edge_places(graph, width) if on_edges else _places(graph, width), dtype=torch.int64)
        values[b][tuple(places.reshape(len(own), len(shape)).T)] = torch.from_numpy(own).to(values.dtype)
    return values


def _dense_sizes(graphs: Sequence[Graph]) -> tuple[int, int]:
    """K and V."""
    slots = max((_most_parallel(graph) for graph in graphs), default=1)
    return slots, max((len(graph.nodes) for graph in graphs), default=0)


def _edge_places(graph: Graph, width: int) -> list[tuple[int, int, int]]:
    """Where each edge stands in [K, V, V]."""
    place, found = _places(graph, width), []
    used: dict[tuple[int, int], int] = {}
    for edge in graph.edges:
        ends = place[edge.target], place[edge.source]
        slot = used.get(ends, 0)
        used[ends] = slot + 1
        found.append((slot, *ends))
    return found


def join(graphs: Sequence[Graph], nodes: Vocabulary, edges: Vocabulary) -> SparseBatch:
    """Graphs as one list of edges; nodes keep their order.

    Raises:
        UserError: a label that a vocabulary lacks.
    """
    node_N: list[int] = []
    graph_N: list[int] = []
    edge_E: list[int] = []
    ends: list[tuple[int, int]] = []
    for b, graph in enumerate(graphs):
        first = len(node_N)
        node_N += [nodes.number(label.name) for label in graph.nodes]
        graph_N += [b] * len(graph.nodes)
        ends += [(first + edge.source, first + edge.target) for edge in graph.edges]
        edge_E += [edges.number(edge.label.name) for edge in graph.edges]
    source_E, target_E = torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).unbind(dim=1)
    return SparseBatch(
        torch.tensor(node_N, dtype=torch.int64),
        torch.tensor(graph_N, dtype=torch.int64),
        source_E,
        target_E,
        torch.tensor(edge_E, dtype=torch.int64),
        torch.ones(len(ends)),
        len(graphs),
    )


def join_arrays(
    nodes: Sequence[np.ndarray], sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> SparseBatch:
    """As `join`, from graphs that are arrays already: large ones, whose nodes are not looked at one by one.

    Args:
        nodes: for each graph the numbers of its nodes' labels.
        sources, targets: the ends of its edges, none of which has a label.
    """
    sizes_B = np.array([len(own) for own in nodes], np.int64)
    first_B = np.cumsum(sizes_B) - sizes_B
    source_E, target_E = (
        torch.from_numpy(np.concatenate([own + first for own, first in zip(ends, first_B)]).astype(np.int64))
        for ends in (sources, targets)
    )
    return SparseBatch(
        torch.from_numpy(np.concatenate(nodes).astype(np.int64)),
        torch.from_numpy(np.repeat(np.arange(len(nodes)), sizes_B)),
        source_E,
        target_E,
        torch.zeros_like(source_E),
        torch.ones(len(source_E)),
        len(nodes),
    )


def _places(graph: Graph, width: int) -> list[int]:
    """Where each node stands among `width`: outputs at the end, all others in their order from the front."""
    inner = [node for node in range(len(graph.nodes)) if node not in graph.outputs]
    place = dict(zip(inner, range(width)))
    place.update(zip(graph.outputs, range(width - len(graph.outputs), width)))
    return [place[node] for node in range(len(graph.nodes))]


def _most_parallel(graph: Graph) -> int:
    counts: dict[tuple[int, int], int] = {}
    for edge in graph.edges:
        counts[edge[:2]] = counts.get(edge[:2], 0) + 1
    return max(counts.values(), default=1)


class GraphConvolution(nn.Module):
    """Nodes hear of each other, then a linear layer: W (A h) (Kipf and Welling, 2017; no activation).

    Args:
        inputs, outputs: D and F.
        bias: add b.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        layer = nn.Linear(inputs, outputs, bias)
        self.weight, self.bias = layer.weight, layer.bias

    def extra_repr(self) -> str:
        outputs, inputs = self.weight.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"

    def forward(self, h: Tensor, batch: Batch | Tensor) -> Tensor:
        """[..., V, F] from [..., V, D]; `batch` may also be the matrix A [..., V, V] of weights alone."""
        heard = batch @ h if isinstance(batch, Tensor) else batch.hear(h)
        return functional.linear(heard, self.weight, self.bias)


class GatedConvolution(nn.Module):
    """An operation's embedding opens and closes the way of what passes it (GATES: Ning et al., 2020, Section 3.2).

    With S = X W, and r_j = 1 for the nodes that also hear themselves, it is

        y_j = sigmoid(U o_j + c) * sum_i S_i + r_j S_j + b

    with operations on nodes (a node's gate acts on all that it hears), and with operations on edges

        y_j = sum_e sigmoid(U o_e + c) * S_source(e) + r_j S_j + b.

    Args:
        inputs, outputs: D and F.
        gates: G, features of an operation's embedding.
        bias: add b.
    """

    def __init__(self, inputs: int, outputs: int, gates: int, bias: bool = False):
        super().__init__()
        self.weight_DF = nn.Parameter(torch.empty(inputs, outputs))
        bound = outputs**-0.5
        nn.init.uniform_(self.weight_DF, -bound, bound)
        self.gate = nn.Linear(gates, outputs)
        self.bias_F = nn.Parameter(torch.zeros(outputs)) if bias else None

    def extra_repr(self) -> str:
        return f"{self.weight_DF.shape[0]}, {self.weight_DF.shape[1]}, bias={self.bias_F is not None}"

    def gates(self, operations: Tensor, opened: Tensor | None = None) -> Tensor:
        """The factor by which each operation lets pass, of `operations`' form; 1 where it is `opened`, bool."""
        gate = torch.sigmoid(self.gate(operations))
        return gate if opened is None else gate.masked_fill(opened.unsqueeze(-1), 1)

    def forward(
        self,
        x: Tensor,
        batch: Batch | EdgeBatch,
        operations: Tensor,
        on_edges: bool = False,
        itself: Tensor | None = None,
        opened: Tensor | None = None,
    ) -> Tensor:
        """[B, V, F] or [N, F] of `batch`'s form.

        Args:
            x: what nodes hold, [B, V, D] or [N, D].
            operations: embeddings of the operations, [B, V, G] or [N, G]; on edges [B, K, V, V, G], [B, P, G] or
                [E, G].
            on_edges: whether they are on edges.
            itself: r, a number for each node, [B, V] or [N]; None: no node hears itself.
            opened: operations whose gate is 1 whatever their embedding, bool, as `operations` without G.
        """
        s = x @ self.weight_DF
        gate = self.gates(operations, opened)
        y = batch.hear(s, gate) if on_edges else gate * batch.hear(s)
        if itself is not None:
            y = y + itself.unsqueeze(-1) * s
        return y if self.bias_F is None else y + self.bias_F
