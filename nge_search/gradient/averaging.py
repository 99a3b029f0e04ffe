"""The mean of what cells are derived from, over the epochs in which P has learned.

Where two operations are about as good, P goes back and forth between them from epoch to epoch, and NGE's on all
edges at once; the last P is then a matter of chance. Its mean over epochs is less so: the average of a stochastic
method's iterates varies less than the last one (Polyak and Juditsky, 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.errors import UserError
from nge_search.json_reader import Reader

_MOST_EPOCHS = 2**31 - 1


class EpochMean:
    """The mean of matrices [E, O] of each kind of cell over epochs, in float64 on the CPU.

    Attributes:
        epochs: how many have been added.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]):
        self.epochs = 0
        self._sums = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]

    def value(self, *, beside: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """The mean of the epochs that were added, and of `beside` as one more."""
        sums = self._sums if beside is None else self._sum(beside)
        return tuple(sum_EO / (self.epochs + (beside is not None)) for sum_EO in sums)

    def add(self, matrices: Sequence[Tensor]) -> None:
        """Take up an epoch that has ended. Reads back to the host."""
        self._sums, self.epochs = self._sum(matrices), self.epochs + 1

    def _sum(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        return [sum_EO + x_EO.double().cpu() for sum_EO, x_EO in zip(self._sums, matrices)]

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "sums": self._sums}

    def load_state_dict(self, state: Any, source: str) -> None:
        """Raises UserError, naming `source`, for what `state_dict` never gave."""
        given = state if isinstance(state, dict) else {}
        self.epochs, sums = Reader(source, given).integer("epochs", 0, _MOST_EPOCHS), given.get("sums")
        shapes = [sum_EO.shape for sum_EO in self._sums]
        if not isinstance(sums, list) or [getattr(own, "shape", None) for own in sums] != shapes:
            raise UserError(f"{source} is damaged: 'sums' holds no sums of P")
        self._sums = [own.double().cpu() for own in sums]
