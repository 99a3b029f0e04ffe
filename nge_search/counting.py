"""The size of a module: its parameters and its mult-adds; and what counts as a number of something."""

from __future__ import annotations

import copy
import numbers
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nge_search.errors import UserError, plain


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


def sizes_of(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """A network's parameters, "params", and its mult-adds on an input of `shape`, "macs".

    Raises:
        UserError: it does not take such an input, as an operation of a plugin may not take small maps.
    """
    try:
        macs = multiply_adds(network, shape)
    except Exception as error:  # a plugin's code may raise anything
        raise UserError(
            f"the network does not take images of {list(shape[1:])} (channels, height, width): "
            f"{plain(str(error), 200)}; an operation of a plugin may need larger ones, or fewer cells"
        ) from None
    return {"params": count_parameters(network), "macs": macs}


def is_whole(given: Any) -> bool:
    """Whether it is a whole number, of Python's or of NumPy's, and not True or False."""
    return isinstance(given, numbers.Integral) and not isinstance(given, bool)
