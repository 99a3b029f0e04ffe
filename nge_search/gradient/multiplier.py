"""The multiplier by which a search comes to a wanted size, moved at every step of P, on the device.

Let x = ln(size / wanted) of the cells that P stands for at a step. Each of an epoch's T steps adds 2 x / T to
a multiplier (dual ascent, as for a constrained optimisation), and what acts is the multiplier and 4 x: this
answers at once, and damps the swings of the other. The gradient of the expected size is added so many times, at the
length of the loss's own gradient: how steep a loss is differs by orders of magnitude between searches.

Legend: E edges, O operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.architecture.genotype import EDGES_PER_NODE
from nge_search.errors import UserError
from nge_search.networks.operation_sizes import OperationSizes

#: What the multiplier gains in an epoch, and what acts beside it, for x = 1.
_GAINED, _AT_ONCE = 2.0, 4.0
#: Neither it nor what acts goes beyond.
_MOST = 4.0
#: Below this a direction is none.
_LEAST = 1e-12


class SizeMultiplier:
    """The multiplier of the expected size of derived networks.

    Args:
        sizes: of the networks.
        wanted: the size that they should have.
        steps: of P in an epoch.
        dtype: of P.

    Attributes:
        value: a scalar on the device; negative where cells were too small.
        directions: gradients of the expected size with respect to each P, [E, O].
    """

    def __init__(self, sizes: OperationSizes, wanted: float, steps: int, device: torch.device, dtype: torch.dtype):
        self.value = torch.zeros((), device=device, dtype=dtype)
        self.directions = [gradient_EO.to(device, dtype) for gradient_EO in sizes.expected_gradients()]
        self._sizes = [matrix_EO.to(device, dtype) for matrix_EO in sizes.matrices]
        self._rest, self._wanted, self._rate = float(sizes.rest), wanted, _GAINED / max(steps, 1)
        space = sizes.space.cell_space
        self._nodes = [slice(edges.start, edges.stop) for edges in map(space.incoming, space.inner)]

    @torch.no_grad()
    def push(self, gradients: Sequence[Tensor], strengths: Sequence[Tensor], directions: Sequence[Tensor]) -> None:
        """Move the multiplier, and add to gradients of a loss, in place, what leads to the wanted size.

        Args:
            gradients: with respect to what mixtures are made of, [E, O] for each kind of cell.
            strengths: what cells are derived from, [E, O].
            directions: gradients of the expected size, with respect to the same as `gradients`.
        """
        scale = self._step(strengths) * _length(gradients) / _length(directions).clamp_min(_LEAST)
        for gradient_EO, direction_EO in zip(gradients, directions):
            gradient_EO += scale * direction_EO

    def _step(self, strengths: Sequence[Tensor]) -> Tensor:
        """What acts at a step, a scalar, behind which the multiplier has moved."""
        off = (self.size(strengths) / self._wanted).log()
        self.value.copy_((self.value + self._rate * off).clamp(-_MOST, _MOST))
        return (self.value + _AT_ONCE * off).clamp(-_MOST, _MOST)

    def size(self, strengths: Sequence[Tensor]) -> Tensor:
        """Of the network of the cells that DARTS' rule derives, a scalar on the device."""
        total = torch.full_like(self.value, self._rest)
        for strength_EO, size_EO in zip(strengths, self._sizes):
            best_E, at_E = strength_EO.max(dim=1)
            own_E = size_EO.gather(1, at_E[:, None])[:, 0]
            for rows in self._nodes:
                total += own_E[rows].gather(0, best_E[rows].topk(EDGES_PER_NODE).indices).sum()
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.value}

    def load_state_dict(self, state: Any, source: str) -> None:
        """Raises UserError, naming `source`, for what `state_dict` never gave."""
        given = state.get("multiplier") if isinstance(state, dict) else None
        scalar = isinstance(given, Tensor) and given.shape == () and given.is_floating_point()
        value = float(given) if scalar and given is not None else math.nan
        if not abs(value) <= _MOST:
            raise UserError(f"{source} is damaged: 'multiplier' holds no number of up to {_MOST:g}")
        self.value.fill_(value)


def _length(matrices: Sequence[Tensor]) -> Tensor:
    """The sum of absolute values, a scalar."""
    return torch.stack([x_EO.abs().sum() for x_EO in matrices]).sum()
