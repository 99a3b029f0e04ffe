"""The backends of a fused supernet, and which one computes where.

On CPUs, in float32 and float64, `compiled` computes: PyTorch's weight gradients of 5x5 kernels and its input
gradients of strided or dilated ones are several times slower there, and every step goes through memory. Everything
else (bfloat16, other devices) runs in `pytorch`. experiments/RESULTS.md has the measurements.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from nge_search.supernet.kernels.contract import Kernels
from nge_search.supernet.kernels.memory import Memory
from nge_search.supernet.kernels.pytorch import TorchKernels


class Backends:
    """Those of one network, with the memory of its maps; made when they are asked for.

    A copy of the network has its own.
    """

    def __init__(self) -> None:
        self._memory = Memory()

    def __deepcopy__(self, known: dict[int, Any]) -> Backends:
        return Backends()

    def choose(self, x: Tensor) -> Kernels:
        """What computes maps like x."""
        if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
            return self.compiled
        return self.pytorch

    @functools.cached_property
    def compiled(self) -> Kernels:
        # Imports the compiler: only where it is used.
        from nge_search.supernet.kernels.compiled import CompiledKernels

        return CompiledKernels(self._memory)

    @functools.cached_property
    def pytorch(self) -> Kernels:
        return TorchKernels(self._memory)
