"""Channels that go by the operations of a cell (partial channels, `reference.PartialOperation`), without autograd.

Of K parts of a node's channels the first feeds the cell's stages. The others, halved by a 2x2 maximum where the
stage halves, are added up by the weights of the edges; then all are shuffled, which is the same for all edges and
so is done once for the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: An edge: the stage that it is in, its number there.
Edge = tuple[int, int]


class ByPass:
    """What goes by in one pass of a cell.

    Args:
        stages: of the cell, as `cell_function.Plan` has them.
        parts: K, at least two.
        weights_E: of the edges, by stage and number, wide.
    """

    def __init__(self, stages: Sequence[Any], parts: int, weights_E: Tensor):
        self.stages, self.parts, self.weights_E = stages, parts, weights_E
        self.d_weights_E = torch.zeros_like(weights_E)
        self.first = [sum(len(own.targets) for own in stages[:s]) for s in range(len(stages))]
        self.past: dict[int, Tensor] = {}
        self.pooled: dict[int, tuple[Tensor, Tensor]] = {}
        self.d_past: dict[int, Tensor] = {}

    def take(self, source: int, state: Tensor, halving: bool) -> Tensor:
        """What of a node [B, H, W, C] feeds its stage, [B, H, W, C / K]; keeps what goes by."""
        width = state.shape[-1] // self.parts
        past = state[..., width:]
        if halving:
            image = past.permute(0, 3, 1, 2)
            maxima, places = functional.max_pool2d_with_indices(image, [2, 2], ceil_mode=True)
            self.pooled[source] = image, places
            past = maxima.permute(0, 2, 3, 1)
        self.past[source] = past
        return state[..., :width].contiguous()

    def _edges(self, edges: Sequence[Edge]) -> list[tuple[Tensor, int, Tensor]]:
        """Of each edge its weight, its source, and its place among all edges' weights."""
        found = []
        for s, e in edges:
            stage, place = self.stages[s], self.first[s] + e
            source = stage.sources[e * len(stage.sources) // len(stage.targets)]
            found.append((self.weights_E[place], source, self.d_weights_E[place]))
        return found

    def node(self, mixed: Tensor, edges: Sequence[Edge]) -> Tensor:
        """A node [B, H, W, C] from the sum of its edges' operations, [B, H, W, C / K]."""
        total: Tensor | int = 0
        for weight, source, _ in self._edges(edges):
            total = total + weight.to(mixed.dtype) * self.past[source]
        assert isinstance(total, Tensor)
        parts = torch.cat([mixed, total], dim=-1).unflatten(-1, (self.parts, -1))
        return parts.transpose(-1, -2).flatten(-2)

    def spread(self, dy: Tensor, edges: Sequence[Edge]) -> Tensor:
        """Take up the gradient of a node [B, H, W, C]; returns that of the sum of its edges' operations."""
        parts = dy.unflatten(-1, (-1, self.parts)).transpose(-1, -2)
        own = parts[..., 1:, :].flatten(-2)
        for weight, source, d_weight in self._edges(edges):
            d_weight += (own * self.past[source]).sum(dtype=d_weight.dtype)
            change = weight.to(dy.dtype) * own
            before = self.d_past.get(source)
            self.d_past[source] = change if before is None else before.add_(change)
        return parts[..., 0, :].contiguous()

    def join(self, source: int, dx: Tensor) -> Tensor:
        """The gradient of a node [B, H, W, C], all of whose targets are done, from that of what fed its stage."""
        d_past = self.d_past.pop(source)
        if source in self.pooled:
            image, places = self.pooled.pop(source)
            given = d_past.permute(0, 3, 1, 2), image, [2, 2], [2, 2], [0, 0], [1, 1], True, places
            d_past = torch.ops.aten.max_pool2d_with_indices_backward(*given).permute(0, 2, 3, 1)
        return torch.cat([dx, d_past], dim=-1)
