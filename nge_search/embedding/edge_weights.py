"""Weights of the edges into each node, from logits of their own (edge normalisation; PC-DARTS, Xu et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import CellSpace


class EdgeWeights(nn.Module):
    """One number for each edge and kind of cell, and a softmax over the edges that end in the same node.

    All start at zero: edges weigh alike.
    """

    def __init__(self, space: CellSpace):
        super().__init__()
        self.incoming = [space.incoming(node) for node in space.inner]
        self.names = [f"edges_{kind}" for kind in space.kinds]
        for name in self.names:
            self.register_parameter(name, nn.Parameter(torch.zeros(len(space.edges))))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.names)

    def forward(self) -> tuple[Tensor, ...]:
        """The weights [E] of each kind of cell, in the order of the space's edges."""
        return tuple(self._weights(self.get_parameter(name)) for name in self.names)

    def _weights(self, logits_E: Tensor) -> Tensor:
        return torch.cat([torch.softmax(logits_E[own.start : own.stop], dim=0) for own in self.incoming])
