"""The large operations of a cell, by whatever computes them best where the data are.

Three operations touch maps, which are images [B, H, W, C] of one node or of one edge and kind of convolution:

* `Convolution`: all depthwise convolutions that read some maps, with the sums that their moments are made of;
* `pool`: the pools of some maps, likewise;
* `combine`: a node, as a sum of matrix products and of scaled maps.

On CPUs, in float32 and float64, `compiled` computes them: PyTorch's weight gradients of 5x5 kernels and its
input gradients of strided or dilated ones are several times slower there, and every step goes through memory.
Everything else (bfloat16, other devices) runs in `pytorch`. experiments/RESULTS.md has the measurements.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from nge_search.supernet.kernels import pytorch


def choose(x: Tensor) -> ModuleType:
    """The module with `Convolution`, `pool` and `combine` for maps like x."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        from nge_search.supernet.kernels import compiled  # imports the compiler: only where it is used

        return compiled
    return pytorch
