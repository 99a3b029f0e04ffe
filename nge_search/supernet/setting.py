"""What all operations of a cell share in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nge_search.engine.distributed import sum_over_ranks
from nge_search.supernet.kernels.contract import Kernels


@dataclass(frozen=True)
class Setting:
    """How a cell computes.

    Attributes:
        observe: whether moments are those of the batch; synchronised: over all ranks.
        kernels: what computes on maps, and has memory for them.
        differentiate: whether there may be a backward pass.
    """

    observe: bool
    synchronised: bool
    kernels: Kernels
    differentiate: bool = True

    def add_ranks(self, sums: Sequence[Tensor], positions: int) -> Tensor:
        """Sum in place what each rank summed over its positions; returns the number of all positions, [1]."""
        count = sums[0].new_full((1,), positions)
        if self.synchronised:
            sum_over_ranks([*sums, count])
        return count
