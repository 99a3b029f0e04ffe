"""The paper's baselines for what turns a cell graph into P (Table 4): direct, plain and rnn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.embedding.base import EdgeHead, Initialise
from nge_search.graph import CellSpace


class DirectParameters(nn.Module):
    """DARTS' free parameters: one number per edge and operation and a softmax (Eq. 2); no embedding.

    They start at 1e-3 times a standard normal, as in DARTS.
    """

    def __init__(self, space: CellSpace):
        super().__init__()
        self.alpha_normal = nn.Parameter(1e-3 * torch.randn(space.shape))
        self.alpha_reduce = nn.Parameter(1e-3 * torch.randn(space.shape))

    def forward(self) -> tuple[Tensor, Tensor]:
        """P of the normal and of the reduction cell, each [E, O]."""
        return torch.softmax(self.alpha_normal, dim=1), torch.softmax(self.alpha_reduce, dim=1)

    def node_vectors(self) -> list[nn.Parameter]:
        return []

    def dead_share(self) -> Tensor:
        """Zero: there are no hidden units."""
        return torch.zeros((), dtype=torch.float64)


class PlainLayers(nn.Module):
    """Node vectors straight into the edge head: no relation between nodes is modelled."""

    def __init__(self, space: CellSpace, input_dim: int, edge_dim: int, initialise: Initialise):
        super().__init__()
        self.head = EdgeHead(space, input_dim, edge_dim, initialise)

    def forward(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.head(x_VD)


class RecurrentLayers(nn.Module):
    """An LSTM that reads the vertices in order takes the place of the graph convolutions."""

    def __init__(
        self,
        space: CellSpace,
        input_dim: int,
        output_dim: int,
        layers: int,
        edge_dim: int,
        initialise: Initialise,
    ):
        super().__init__()
        self.lstm = nn.LSTM(input_dim, output_dim, num_layers=layers, bias=False)
        for weight in self.lstm.parameters():
            initialise(weight.data)
        self.head = EdgeHead(space, output_dim, edge_dim, initialise)

    def forward(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        z_VF, _ = self.lstm(x_VD)
        return self.head(z_VF)
