"""Networks that are built for weights from files, without memory until these are known to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from nge_search.engine.checkpoint import require_same_tensors

Network = TypeVar("Network", bound=nn.Module)


def with_weights(build: Callable[[], Network], weights: Mapping[str, Tensor], source: str) -> Network:
    """The network that `build` makes, on the CPU and in evaluation mode, with these weights in their own type.

    Buffers that no file holds (`persistent=False`) are as `build` makes them.

    Raises:
        UserError: they do not fit; names `source`.
    """
    kinds = (one.dtype for one in weights.values() if isinstance(one, Tensor) and one.is_floating_point())
    dtype = next(kinds, torch.float32)
    with torch.device("meta"):  # takes no memory, whatever sizes the files claim
        network = build().to(dtype)
    require_same_tensors(network.state_dict(), dict(weights), source)
    if any(buffer.is_meta for buffer in _unsaved(network)):
        with torch.random.fork_rng(devices=[]):
            network = build().to(dtype)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def _unsaved(network: nn.Module) -> list[Tensor]:
    """The buffers that are not in the network's state."""
    saved = network.state_dict()
    return [buffer for name, buffer in network.named_buffers() if name not in saved]
