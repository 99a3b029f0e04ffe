"""What a metric needs of the processes of a run to add up what each of them counted."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """The processes of a run; `engine.distributed.World` is one."""

    def gather_rows(self, row_N: Tensor) -> Tensor:
        """[ranks, N] on the CPU: the 1-d tensor of every rank."""
        ...
