"""Networks that embed graphs: convolutions and attention on nodes, or on motifs (NAR, Sections 3.3 to 3.5).

Graphs go in without directions, each node with a loop (Eq. 3), and an embedding is the mean over nodes. As a graph
of motifs, a network's nodes are motifs whose features another encoder has made of their own graphs.

Legend: B graphs, N nodes of all of them, M motifs, O numbers of labels, D features of a node, F of an embedding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.graph import Label
from nge_search.errors import UserError
from nge_search.graph_attention import GraphAttention
from nge_search.graph_nn import GraphConvolution, SparseBatch, join_arrays
from nge_search.retrieve.motifs import Motifs, Part
from nge_search.retrieve.ordered import OrderedGraph

#: How nodes hear of each other.
LAYERS = ("convolution", "attention")


@dataclass(frozen=True)
class LabelNumbers:
    """Numbers for labels as texts, from 1; 0 for one that is unknown.

    With attributes in `names`, a label that is unknown with its attributes counts as the operation alone.
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        """O, with that of unknown labels."""
        return len(self.names) + 1

    @staticmethod
    def of(graphs: Iterable[OrderedGraph], attributes: bool = False) -> LabelNumbers:
        """Those of all labels of some graphs: operations' names, and with `attributes` also the whole labels."""
        labels = {label for graph in graphs for label in graph.labels}
        names = {label.name for label in labels} | ({str(label) for label in labels} if attributes else set())
        return LabelNumbers(tuple(sorted(names)))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names, 1)}

    def number(self, label: Label) -> int:
        return self._numbers.get(str(label)) or self._numbers.get(label.name, 0)

    def numbers(self, graph: OrderedGraph) -> np.ndarray:
        """Of the nodes of a graph: int64 [N]."""
        return np.array([self.number(label) for label in graph.labels], np.int64)[graph.label_N]


def batch_of_graphs(graphs: Sequence[OrderedGraph], labels: LabelNumbers, normalised: bool = True) -> SparseBatch:
    """Whole graphs without directions, with loops; `normalised` as in `SparseBatch.both_ways`."""
    nodes = [labels.numbers(graph) for graph in graphs]
    sources, targets = [graph.source_E for graph in graphs], [graph.target_E for graph in graphs]
    return join_arrays(nodes, sources, targets).both_ways(normalised)


def batch_of_parts(
    parts: Sequence[tuple[OrderedGraph, Part]], labels: LabelNumbers, normalised: bool = True
) -> SparseBatch:
    """Pieces of graphs, as `batch_of_graphs`."""
    numbers: dict[int, np.ndarray] = {}
    nodes = []
    for graph, part in parts:
        if id(graph) not in numbers:
            numbers[id(graph)] = labels.numbers(graph)
        nodes.append(numbers[id(graph)][part.place_N])
    sources, targets = [part.source_E for _, part in parts], [part.target_E for _, part in parts]
    return join_arrays(nodes, sources, targets).both_ways(normalised)


def batch_of_macro_graphs(divided: Sequence[Motifs], normalised: bool = True) -> SparseBatch:
    """Graphs of motifs, as `batch_of_graphs`; nodes have no labels."""
    edges = [motifs.macro_edges for motifs in divided]
    nodes = [np.zeros(len(motifs), np.int64) for motifs in divided]
    return join_arrays(nodes, [ends[0] for ends in edges], [ends[1] for ends in edges]).both_ways(normalised)


class GraphEncoder(nn.Module):
    """Layers by which nodes hear of each other, with ELU between them, then the mean over nodes.

    Args:
        inputs: D; of labels O, which go in as one-hot vectors, those that are unknown as zeros.
        width: F.
        layers: how many; the published ones have 3.
        kind: one of `LAYERS`.
        dropout: before each layer.
        heads: of attention.
    """

    def __init__(
        self,
        inputs: int,
        width: int = 512,
        layers: int = 3,
        kind: str = "convolution",
        dropout: float = 0.0,
        heads: int = 1,
    ):
        super().__init__()
        if kind not in LAYERS:
            raise UserError(f"layers of an encoder are one of {', '.join(LAYERS)}, not '{kind}'")
        if width % heads:
            raise UserError(f"an encoder of width {width} cannot have {heads} heads; choose a divisor")
        self.inputs, self.width, self.kind, self.dropout = inputs, width, kind, dropout
        sizes = [inputs] + [width] * layers
        self.layers = nn.ModuleList(
            GraphConvolution(*pair) if kind == "convolution" else GraphAttention(*pair, heads)
            for pair in itertools.pairwise(sizes)
        )

    @property
    def normalised(self) -> bool:
        """Whether edges of its batches weigh 1 / sqrt(degrees): attention finds its own weights."""
        return self.kind == "convolution"

    def forward(self, batch: SparseBatch, x_ND: Tensor | None = None) -> Tensor:
        """Embeddings [B, F].

        Args:
            batch: with loops.
            x_ND: features of the nodes; None: their labels.
        """
        h_NF = self.one_hot(batch.node_N) if x_ND is None else x_ND
        for done, layer in enumerate(self.layers):
            h_NF = functional.elu(h_NF) if done else h_NF
            h_NF = layer(functional.dropout(h_NF, self.dropout, self.training), batch)
        return batch.mean(h_NF)

    def one_hot(self, node_N: Tensor) -> Tensor:
        """[N, O], float; rows of unknown labels are 0."""
        found_NO = functional.one_hot(node_N, self.inputs).to(next(self.parameters()).dtype)
        found_NO[:, 0] = 0
        return found_NO


class MotifTable:
    """Embeddings of motifs by what they are, so that one that recurs in all networks is encoded once.

    Args:
        encoder: F_s; is not trained any more.
        labels: numbers of the labels that it knows.
    """

    _AT_ONCE = 2048

    def __init__(self, encoder: GraphEncoder, labels: LabelNumbers):
        self.encoder, self.labels = encoder, labels
        self._row: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._row)

    @torch.no_grad()
    def __call__(self, divided: Sequence[Motifs]) -> Tensor:
        """Features of all motifs of some graphs, one behind the other: [M, D]."""
        new: dict[int, tuple[OrderedGraph, Part]] = {}
        for motifs in divided:
            for motif, content in enumerate(motifs.content_M.tolist()):
                if content not in self._row and content not in new:
                    new[content] = motifs.graph, motifs.part(motif)
        self.encoder.eval()
        names, parts = list(new), list(new.values())
        for start in range(0, len(parts), self._AT_ONCE):
            batch = batch_of_parts(parts[start : start + self._AT_ONCE], self.labels, self.encoder.normalised)
            rows = self.encoder(batch.to(next(self.encoder.parameters()).device)).cpu()
            self._row.update(zip(names[start : start + self._AT_ONCE], rows))
        return torch.stack([self._row[content] for motifs in divided for content in motifs.content_M.tolist()])
