"""The paper's baselines for what turns a cell graph into P (Table 4): direct, plain and rnn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding.base import Embedding, Initialise, Layers
from nge_search.settings.embedding import EmbeddingSection


class DirectParameters(Embedding):
    """DARTS' free parameters: one number per edge and operation and a softmax (Eq. 2); no embedding.

    They start at 1e-3 times a standard normal, as in DARTS, or at zero.
    """

    def __init__(self, space: CellSpace, uniform_start: bool = False):
        super().__init__()
        self.names = [f"alpha_{table.name}" for table in space.tables]
        for name, table in zip(self.names, space.tables):
            start = 1e-3 * torch.randn(table.shape)
            self.register_parameter(name, nn.Parameter(torch.zeros_like(start) if uniform_start else start))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.names)

    def logits(self) -> tuple[Tensor, ...]:
        return tuple(self.get_parameter(name) for name in self.names)

    def node_vectors(self) -> list[nn.Parameter]:
        return []

    def dead_share(self) -> Tensor:
        """Zero: there are no hidden units."""
        return torch.zeros((), dtype=torch.float64)


class PlainLayers(Layers):
    """Node vectors straight into the heads: no relation between nodes is modelled, and nothing to jump over."""

    def __init__(self, space: CellSpace, config: EmbeddingSection, initialise: Initialise):
        super().__init__()
        self.add_heads(space, config.input_dim, config, initialise, jumping=False)

    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        return x_VD, []


class RecurrentLayers(Layers):
    """An LSTM that reads the vertices in order takes the place of the graph convolutions."""

    def __init__(self, space: CellSpace, config: EmbeddingSection, initialise: Initialise):
        super().__init__()
        layers = config.recurrent_layers
        self.lstm = nn.LSTM(config.input_dim, config.output_dim, num_layers=layers, bias=False)
        for weight in self.lstm.parameters():
            initialise(weight.data)
        self.add_heads(space, config.output_dim, config, initialise, config.jumping)

    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.lstm(x_VD)[0], []
