"""The size of a module: its parameters and its mult-adds."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Mult-adds of one evaluation on an input of `shape`: half of what torch's flop counter returns.

    Convolutions and matrix products count, everything else is free. A copy runs on the meta device: nothing
    is computed and `module` is left alone.
    """
    twin = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2
