"""What all embeddings share: from node vectors to the matrices of probabilities, for each kind of cell.

Legend: V vertices of the cell graph, E rows (edges), O options (operations), D input, F output, K edge dimensions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace, Table

Initialise = Callable[[Tensor], Tensor]


def normal_initialiser(scheme: str, std: float) -> Initialise:
    """An in-place initialiser of linear weights [out, in]: "he" (std sqrt(2 / in)) or "normal" (std `std`)."""

    def initialise(weight: Tensor) -> Tensor:
        scale = math.sqrt(2.0 / weight.shape[1]) if scheme == "he" else std
        return nn.init.normal_(weight, std=scale)

    return initialise


def linear(fan_in: int, fan_out: int, initialise: Initialise) -> nn.Linear:
    """A fully connected layer without bias (the paper: "All the FC layers use no bias")."""
    layer = nn.Linear(fan_in, fan_out, bias=False)
    initialise(layer.weight.data)
    return layer


class Head(nn.Module):
    """Node vectors to one matrix of probabilities: Eq. 9 (a two-layer MLP per row) and Eq. 10 (softmax).

    A row's input is the vectors of its vertices: an edge's source and target, or a vertex alone. Shared by all
    rows. The softmax is applied here and nowhere else.
    """

    members_EM: Tensor

    def __init__(self, space: CellSpace, table: Table, node_dim: int, edge_dim: int, initialise: Initialise):
        super().__init__()
        members = space.chosen_edges if table.on == "edges" else [(vertex,) for vertex in space.labelled]
        self.register_buffer("members_EM", torch.tensor(members), persistent=False)
        self.hidden = linear(len(members[0]) * node_dim, edge_dim, initialise)
        self.embed = linear(edge_dim, edge_dim, initialise)
        self.classify = linear(edge_dim, len(table.options), initialise)

    def extra_repr(self) -> str:
        return f"rows={len(self.members_EM)}"

    def forward(self, z_VF: Tensor) -> tuple[Tensor, Tensor]:
        """P [E, O] and the activations of the hidden layer (for the share of dead units)."""
        hidden_EK = functional.relu(self.hidden(z_VF[self.members_EM].flatten(1)))
        return torch.softmax(self.classify(self.embed(hidden_EK)), dim=1), hidden_EK


class Embedding(nn.Module, ABC):
    """What gives P."""

    @abstractmethod
    def forward(self) -> tuple[Tensor, ...]:
        """The matrices of `CellSpace.tables`, each [E, O]; rows sum to one."""

    @abstractmethod
    def node_vectors(self) -> list[nn.Parameter]:
        """The X matrices: the parameters that embedding.weight_decay_on_x may exempt."""

    @abstractmethod
    def dead_share(self) -> Tensor:
        """Share of hidden ReLU units that are zero for every vertex or edge of all kinds of cell."""


class Layers(nn.Module, ABC):
    """What turns the X of one kind of cell into its matrices; subclasses say how vertices exchange information."""

    def add_heads(self, space: CellSpace, node_dim: int, edge_dim: int, initialise: Initialise) -> None:
        """To be called last, as the order of what is made decides the initial values."""
        self.head, *more = (
            Head(space, table, node_dim, edge_dim, initialise)
            for table in space.tables
            if table.kind == space.kinds[0]
        )
        self.vertex_head = more[0] if more else None

    @abstractmethod
    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Node vectors [V, F], and the activations of hidden ReLU layers."""

    def forward(self, x_VD: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The kind's matrices of probabilities, and the activations of hidden ReLU layers."""
        z_VF, activations = self.propagate(x_VD)
        found = [head(z_VF) for head in (self.head, self.vertex_head) if head is not None]
        return [p_EO for p_EO, _ in found], activations + [hidden_EK for _, hidden_EK in found]


class NodeEmbedding(Embedding):
    """An embedding that starts from one learned vector per vertex: X [V, D], one matrix per kind of cell.

    X starts as one-hot rows and learns.

    Args:
        space: the cell graph.
        build: makes the layers of one kind of cell.
        input_dim: D, at least V.
        shared: one set of layers for all kinds of cell, else one each.
    """

    def __init__(self, space: CellSpace, build: Callable[[], Layers], input_dim: int, shared: bool):
        super().__init__()
        self.kinds = space.kinds
        for kind in self.kinds:
            self.register_parameter(f"x_{kind}", nn.Parameter(torch.eye(space.vertices, input_dim)))
        self.layers = nn.ModuleList(build() for _ in range(1 if shared else len(self.kinds)))

    def extra_repr(self) -> str:
        shared = len(self.layers) < len(self.kinds)
        return f"kinds=({', '.join(self.kinds)}), x={tuple(self.node_vectors()[0].shape)}, shared={shared}"

    def _run(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        for position, x_VD in enumerate(self.node_vectors()):
            yield self.layers[min(position, len(self.layers) - 1)](x_VD)

    def forward(self) -> tuple[Tensor, ...]:
        return tuple(p_EO for matrices, _ in self._run() for p_EO in matrices)

    def node_vectors(self) -> list[nn.Parameter]:
        return [self.get_parameter(f"x_{kind}") for kind in self.kinds]

    @torch.no_grad()
    def dead_share(self) -> Tensor:
        activations = [torch.cat(layers) for layers in zip(*(hidden for _, hidden in self._run()))]
        dead = torch.cat([(layer <= 0).all(dim=0) for layer in activations])
        return dead.double().mean()
