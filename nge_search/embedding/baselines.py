"""The paper's baselines for what turns a cell graph into P (Table 4): direct, plain and rnn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding.base import Embedding, Initialise, Layers


class DirectParameters(Embedding):
    """DARTS' free parameters: one number per edge and operation and a softmax (Eq. 2); no embedding.

    They start at 1e-3 times a standard normal, as in DARTS.
    """

    def __init__(self, space: CellSpace):
        super().__init__()
        self.names = [f"alpha_{table.name}" for table in space.tables]
        for name, table in zip(self.names, space.tables):
            self.register_parameter(name, nn.Parameter(1e-3 * torch.randn(table.shape)))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.names)

    def forward(self) -> tuple[Tensor, ...]:
        return tuple(torch.softmax(self.get_parameter(name), dim=1) for name in self.names)

    def node_vectors(self) -> list[nn.Parameter]:
        return []

    def dead_share(self) -> Tensor:
        """Zero: there are no hidden units."""
        return torch.zeros((), dtype=torch.float64)


class PlainLayers(Layers):
    """Node vectors straight into the heads: no relation between nodes is modelled."""

    def __init__(self, space: CellSpace, input_dim: int, edge_dim: int, initialise: Initialise):
        super().__init__()
        self.add_heads(space, input_dim, edge_dim, initialise)

    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x_VD, []


class RecurrentLayers(Layers):
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
        self.add_heads(space, output_dim, edge_dim, initialise)

    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.lstm(x_VD)[0], []
