"""The large operations of a cell, by whatever computes them best where the data are.

Three operations touch maps, which are images [B, H, W, C] of one node or of one edge and kind of convolution:

* `Convolution`: all depthwise convolutions that read some maps, with the sums that their moments are made of;
* `pool`: the pools of some maps, likewise;
* `combine`: a node, as a sum of matrix products and of scaled maps.

On CPUs, in float32 and float64, `kernels_compiled` computes them: PyTorch's weight gradients of 5x5 kernels and its
input gradients of strided or dilated ones are several times slower there, and every step goes through memory.
Everything else (bfloat16, other devices) runs in `kernels_torch`. experiments/RESULTS.md has the measurements.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from nge_search.supernet import kernels_torch


def choose(x: Tensor) -> ModuleType:
    """The module with `Convolution`, `pool` and `combine` for maps like x."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        from nge_search.supernet import kernels_compiled  # imports the compiler: only where it is used

        return kernels_compiled
    return kernels_torch


class Buffers:
    """Memory of maps, used again from step to step: on CPUs fresh pages cost more than what is computed on them.

    What is given back must not be read any more. Copies start empty.
    """

    def __init__(self) -> None:
        self._idle: dict[tuple[tuple[int, ...], torch.dtype], list[Tensor]] = {}

    def take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An uninitialised contiguous tensor."""
        if like.device.type != "cpu":  # CUDA's allocator keeps memory itself
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        idle = self._idle.get((shape, like.dtype))
        if idle:
            return idle.pop()
        count = int(np.prod(shape)) * like.element_size()  # numpy asks for huge pages
        return torch.from_numpy(np.empty(count, dtype=np.uint8)).view(like.dtype).view(shape)

    def give_back(self, *tensors: Tensor | None) -> None:
        for tensor in tensors:
            if tensor is not None and tensor.device.type == "cpu":
                self._idle.setdefault((tuple(tensor.shape), tensor.dtype), []).append(tensor)

    def __deepcopy__(self, memo: object) -> Buffers:
        return Buffers()

    def __reduce__(self) -> tuple:
        return Buffers, ()
