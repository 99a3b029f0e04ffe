"""What all embeddings share: from node or edge vectors to P, for the normal and the reduction cell.

Legend: V vertices of the cell graph, E edges, O operations, D input, F output and K edge dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.graph import CellSpace

CELL_KINDS = ("normal", "reduce")

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


class EdgeHead(nn.Module):
    """Node vectors to operation probabilities: Eq. 9 (a two-layer MLP per edge) and Eq. 10 (softmax).

    Shared by all edges. The softmax is applied here and nowhere else.
    """

    def __init__(self, space: CellSpace, node_dim: int, edge_dim: int, initialise: Initialise):
        super().__init__()
        sources, targets = zip(*space.edges)
        self.register_buffer("sources_E", torch.tensor(sources), persistent=False)
        self.register_buffer("targets_E", torch.tensor(targets), persistent=False)
        self.hidden = linear(2 * node_dim, edge_dim, initialise)
        self.embed = linear(edge_dim, edge_dim, initialise)
        self.classify = linear(edge_dim, len(space.operations), initialise)

    def forward(self, z_VF: Tensor) -> tuple[Tensor, list[Tensor]]:
        """P [E, O] and the activations of the hidden layer (for the share of dead units)."""
        pairs = torch.cat([z_VF[self.sources_E], z_VF[self.targets_E]], dim=1)
        hidden_EK = functional.relu(self.hidden(pairs))
        return torch.softmax(self.classify(self.embed(hidden_EK)), dim=1), [hidden_EK]


class NodeEmbedding(nn.Module):
    """An embedding that starts from one learned vector per vertex: X [V, D], one matrix per kind of cell.

    Subclasses define how vertices exchange information, `propagate`. X starts as one-hot rows and learns.

    Args:
        space: the cell graph.
        build: makes the layers of one kind of cell, a module with `forward(x_VD) -> (p_EO, activations)`.
        input_dim: D, at least V.
        shared: one set of layers for both kinds of cell, else one each.
    """

    def __init__(self, space: CellSpace, build: Callable[[], nn.Module], input_dim: int, shared: bool):
        super().__init__()
        self.x_normal = nn.Parameter(torch.eye(space.vertices, input_dim))
        self.x_reduce = nn.Parameter(torch.eye(space.vertices, input_dim))
        self.layers = nn.ModuleList(build() for _ in range(1 if shared else 2))

    def _run(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        yield self.layers[0](self.x_normal)
        yield self.layers[-1](self.x_reduce)

    def forward(self) -> tuple[Tensor, Tensor]:
        """P of the normal and of the reduction cell, each [E, O]; rows sum to one."""
        p_normal_EO, p_reduce_EO = (p_EO for p_EO, _ in self._run())
        return p_normal_EO, p_reduce_EO

    def node_vectors(self) -> list[nn.Parameter]:
        """The X matrices: the parameters that embedding.weight_decay_on_x may exempt."""
        return [self.x_normal, self.x_reduce]

    @torch.no_grad()
    def dead_share(self) -> Tensor:
        """Share of hidden ReLU units that are zero for every vertex or edge of both kinds of cell."""
        activations = [torch.cat(pair) for pair in zip(*(hidden for _, hidden in self._run()))]
        dead = torch.cat([(layer <= 0).all(dim=0) for layer in activations])
        return dead.double().mean()
