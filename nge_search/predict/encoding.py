"""How the architectures of a space become tensors: one way for all spaces, and for every predictor of ours.

Cells come as graphs by kind (`Space.graphs`). `Form` says how a space writes them down; `Form.batch` pads them,
kind by kind, for networks on graphs; `Form.decisions` writes them as small integers, for all that takes no graph.

Legend: C kinds of cells, N architectures (R = C N graphs), V nodes of a cell, L decisions of an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nge_search.architecture.graph import CONCAT, INPUT, OUTPUT, PLAIN, SUM, Graph
from nge_search.errors import UserError
from nge_search.graph_nn import DenseBatch, Vocabulary, pad
from nge_search.spaces.base import EdgeSpace, Space

#: Of edges that are left out of graphs.
_NONE = "none"

#: An architecture: its cells by kind.
Cells = Mapping[str, Graph]


@dataclass(frozen=True)
class Form:
    """How the cells of a space are written down.

    Attributes:
        kinds: of cells, in the order in which they are batched.
        inputs: nodes of a cell that are given.
        width: V, the output counted; cells may have fewer nodes.
        on_edges: whether operations are on edges.
        nodes, edges: labels that nodes and edges have.
        reads: edges that every inner node reads, with an operation each; 0: any number.
    """

    kinds: tuple[str, ...]
    inputs: int
    width: int
    on_edges: bool
    nodes: Vocabulary
    edges: Vocabulary
    reads: int = 0

    @staticmethod
    def of(space: Space) -> Form:
        """The form of a space's cells."""
        cell = space.cell_space
        operations = tuple(name for name in cell.operations if name != _NONE)
        if not isinstance(space, EdgeSpace):
            nodes, edges = Vocabulary((INPUT, *operations, OUTPUT)), Vocabulary((PLAIN.name,))
            return Form(cell.kinds, cell.inputs, cell.vertices, False, nodes, edges)
        reads = 0 if space.kept == len(cell.edges) else space.kept // cell.nodes
        nodes, edges = Vocabulary((INPUT, SUM, CONCAT)), Vocabulary((PLAIN.name, *operations))
        # Where every node reads a part of the earlier ones, the output that joins them is a node of its own.
        return Form(cell.kinds, cell.inputs, cell.vertices + (reads > 0), True, nodes, edges, reads)

    @property
    def labels(self) -> Vocabulary:
        """The vocabulary of the operations."""
        return self.edges if self.on_edges else self.nodes

    def batch(self, architectures: Sequence[Cells]) -> DenseBatch:
        """The cells, padded to V nodes: first all of the first kind, then those of the second.

        Inputs come first and the output last; the nodes between keep their order.

        Raises:
            UserError: cells of another space: other kinds, inputs, outputs, labels, or more nodes.
        """
        graphs = [self._checked(kind, cells) for kind in self.kinds for cells in architectures]
        return pad(graphs, self.nodes, self.edges, self.width)

    def _checked(self, kind: str, cells: Cells) -> Graph:
        if set(cells) != set(self.kinds):
            raise UserError(f"an architecture of this space has cells {_listed(self.kinds)}, not {_listed(cells)}")
        graph = cells[kind]
        if len(graph.inputs) != self.inputs or len(graph.outputs) != 1 or len(graph.nodes) > self.width:
            raise UserError(
                f"{kind}: a cell of this space has {self.inputs} inputs, 1 output and at most {self.width} nodes, "
                f"not {len(graph.inputs)}, {len(graph.outputs)} and {len(graph.nodes)}"
            )
        if graph.inputs == tuple(range(self.inputs)):
            return graph
        others = [node for node in range(len(graph.nodes)) if node not in graph.inputs]
        return graph.renumbered([*graph.inputs, *others])

    @property
    def options(self) -> tuple[int, ...]:
        """How many values each of the L decisions can take."""
        pairs, inner = self.pairs, self.width - 1 - self.inputs
        if not self.on_edges:
            cell = (2,) * len(pairs) + (len(self.nodes),) * inner
        elif self.reads:
            cell = (self.width, len(self.edges)) * (self.reads * inner)
        else:
            cell = (len(self.edges),) * len(pairs)
        return cell * len(self.kinds)

    def decisions(self, batch: DenseBatch) -> Tensor:
        """What tells the cells of `batch` from others of the space: int64 [N, L], a kind behind the other.

        With operations on nodes: which edges are there, by target and then by source, and the inner nodes'
        operations. On edges: the operation of each, 0 for none; or, where nodes read a fixed number, the source and
        the operation of each that an inner node reads, by source. A matter of form: isomorphic cells may differ.
        """
        source_P, target_P = torch.tensor(self.pairs).unbind(dim=1)
        if not self.on_edges:
            there_RP = (batch.edge_BKVV > 0).any(dim=1)[:, target_P, source_P].long()
            cell = torch.cat([there_RP, batch.node_BV[:, self.inputs : -1]], dim=1)
        elif self.reads:
            cell = torch.stack(self.read(batch), dim=-1).flatten(start_dim=1)
        else:
            cell = batch.edge_BKVV[:, 0, target_P, source_P]
        return torch.cat(cell.chunk(len(self.kinds)), dim=1)

    def read(self, batch: DenseBatch) -> tuple[Tensor, Tensor]:
        """Sources and operations of what inner nodes read, by source: int64 [R, inner nodes, reads] each."""
        arriving_RIVK = batch.edge_BKVV[:, :, self.inputs : -1].permute(0, 2, 3, 1)
        slots = arriving_RIVK.shape[-1]
        number_RIE = arriving_RIVK.flatten(start_dim=2)
        place_RIr = (number_RIE == 0).long().argsort(dim=-1, stable=True)[..., : self.reads]
        return place_RIr // slots, number_RIE.gather(-1, place_RIr)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(source, target) of two nodes that an edge may join, by target and then by source."""
        return [(source, target) for target in range(self.inputs, self.width) for source in range(target)]


def _listed(kinds: Sequence[str] | Cells) -> str:
    return ", ".join(sorted(kinds)) or "none"
