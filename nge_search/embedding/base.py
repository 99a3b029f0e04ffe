"""What all embeddings share: from node vectors to the matrices of probabilities, for each kind of cell.

Graph convolutions average what they connect, so that the vectors of all edges are nearly the same when a search
starts, and a step moves P alike on all of them. Two ways to tell edges apart stand beside the paper's: `split_rows`
shows the classifier what edges have in common and what sets each apart at equal size, and jumping connections
(Xu et al., 2018) show heads the learned vectors of the vertices beside what the layers make of them.

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
from nge_search.settings.embedding import EmbeddingSection

#: Root mean square below which vectors count as zero.
_LEAST_RMS = 1e-6

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


def split_rows(v_EK: Tensor) -> Tensor:
    """[E, 2 K]: the mean of all rows, the same in each row, and the row's deviation from it, both of rms 1.

    The deviations have one rms for all rows together, so their sizes relative to each other stay. What scales all
    rows changes nothing; what is added to all alike changes the first half alone.
    """
    mean_K = v_EK.mean(dim=0)
    parts = mean_K.expand_as(v_EK), v_EK - mean_K
    return torch.cat([part * torch.rsqrt(part.square().mean() + _LEAST_RMS**2) for part in parts], dim=1)


class Head(nn.Module):
    """Node vectors to the logits of one matrix of probabilities: a two-layer MLP per row (Eq. 9), and a classifier.

    A row's input is the vectors of its vertices: an edge's source and target, or a vertex alone. Shared by all
    rows. Eq. 10's softmax follows in `Embedding.forward` and nowhere else.
    """

    members_EM: Tensor

    def __init__(
        self, space: CellSpace, table: Table, node_dim: int, config: EmbeddingSection, initialise: Initialise
    ):
        super().__init__()
        members = space.chosen_edges if table.on == "edges" else [(vertex,) for vertex in space.labelled]
        self.register_buffer("members_EM", torch.tensor(members), persistent=False)
        self.split, width = config.edges == "split", config.edge_dim
        self.hidden = linear(len(members[0]) * node_dim, width, initialise)
        self.embed = linear(width, width, initialise)
        self.classify = linear(2 * width if self.split else width, len(table.options), initialise)
        if self.split or config.uniform_start:
            nn.init.zeros_(self.classify.weight)

    def extra_repr(self) -> str:
        return f"rows={len(self.members_EM)}, split={self.split}"

    def forward(self, z_VF: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [E, O] and the activations of the hidden layer (for the share of dead units)."""
        hidden_EK = functional.relu(self.hidden(z_VF[self.members_EM].flatten(1)))
        edges_EK = self.embed(hidden_EK)
        return self.classify(split_rows(edges_EK) if self.split else edges_EK), hidden_EK


class Embedding(nn.Module, ABC):
    """What gives P."""

    @abstractmethod
    def logits(self) -> tuple[Tensor, ...]:
        """What P is the softmax of: one matrix [E, O] for each of `CellSpace.tables`."""

    def forward(self) -> tuple[Tensor, ...]:
        """The matrices of `CellSpace.tables`, each [E, O]; rows sum to one (Eq. 10)."""
        return tuple(torch.softmax(logits_EO, dim=1) for logits_EO in self.logits())

    @abstractmethod
    def node_vectors(self) -> list[nn.Parameter]:
        """The X matrices: the parameters that embedding.weight_decay_on_x may exempt."""

    @abstractmethod
    def dead_share(self) -> Tensor:
        """Share of hidden ReLU units that are zero for every vertex or edge of all kinds of cell."""


class Layers(nn.Module, ABC):
    """What turns the X of one kind of cell into logits; subclasses say how vertices exchange information.

    Attributes:
        jumping: heads read X beside what `propagate` gives.
    """

    jumping = False

    def add_heads(
        self, space: CellSpace, node_dim: int, config: EmbeddingSection, initialise: Initialise, jumping: bool
    ) -> None:
        """To be called last, as the order of what is made decides the initial values."""
        self.jumping = jumping
        width = node_dim + config.input_dim * jumping
        self.head, *more = (
            Head(space, table, width, config, initialise) for table in space.tables if table.kind == space.kinds[0]
        )
        self.vertex_head = more[0] if more else None

    @abstractmethod
    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Node vectors [V, F], and the activations of hidden ReLU layers."""

    def forward(self, x_VD: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The kind's matrices of logits, and the activations of hidden ReLU layers."""
        z_VF, activations = self.propagate(x_VD)
        if self.jumping:
            z_VF = torch.cat([z_VF, x_VD], dim=1)
        found = [head(z_VF) for head in (self.head, self.vertex_head) if head is not None]
        return [logits_EO for logits_EO, _ in found], activations + [hidden_EK for _, hidden_EK in found]


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

    def logits(self) -> tuple[Tensor, ...]:
        return tuple(logits_EO for matrices, _ in self._run() for logits_EO in matrices)

    def node_vectors(self) -> list[nn.Parameter]:
        return [self.get_parameter(f"x_{kind}") for kind in self.kinds]

    @torch.no_grad()
    def dead_share(self) -> Tensor:
        activations = [torch.cat(layers) for layers in zip(*(hidden for _, hidden in self._run()))]
        dead = torch.cat([(layer <= 0).all(dim=0) for layer in activations])
        return dead.double().mean()
