"""The size of networks that cells are stacked into, and the channels that bring one to a wanted size."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from nge_search.counting import count_parameters, multiply_adds
from nge_search.errors import UserError
from nge_search.networks.families import Trainable
from nge_search.settings.amounts import write_amount

#: What a size is of: keys of `nge show --json`, and their names.
SIZES = {"macs": "mult-adds", "params": "parameters"}
MOST_CHANNELS = 1024


def network_size(network: nn.Module, of: str, image_size: int, image_channels: int = 3) -> int:
    """Parameters ("params") or mult-adds per image ("macs") of a network; the auxiliary head counts as built."""
    if of == "params":
        return count_parameters(network)
    return multiply_adds(network, (1, image_channels, image_size, image_size))


def nearest_channels(
    build: Callable[[int], Trainable],
    of: str,
    image_size: int,
    target: float,
    key: str,
    image_channels: int = 3,
    least: int = 1,
) -> tuple[int, int]:
    """The number of channels with the size nearest to a target, of two the smaller, and that size.

    Args:
        build: the network of a number of channels; it is built on the meta device.
        of: "macs" or "params".
        key: the setting or flag that gave the target.
        least: the fewest channels that the network can have.

    Raises:
        UserError: the target is beyond what `least` to MOST_CHANNELS channels have.
    """

    @functools.cache
    def size(channels: int) -> int:
        with torch.device("meta"):
            return network_size(build(channels), of, image_size, image_channels)

    channels, guess = 0, 16
    while abs(guess - channels) > 1:  # sizes grow at least linearly and at most with the square: this converges
        channels = guess
        guess = round(min(max(channels * math.sqrt(target / size(channels)), least), MOST_CHANNELS))
    while size(channels) > target and channels > least:
        channels -= 1
    while channels < MOST_CHANNELS and size(channels + 1) <= target:
        channels += 1
    beyond = size(channels) > target or (channels == MOST_CHANNELS and size(channels) < target)
    if beyond:
        which = f"{least} to {MOST_CHANNELS} channels"
        raise out_of_range(key, target, of, size(least), size(MOST_CHANNELS), which)
    found = min((channels, min(channels + 1, MOST_CHANNELS)), key=lambda own: abs(size(own) - target))
    return found, size(found)


def out_of_range(key: str, target: float, of: str, low: float, high: float, which: str) -> UserError:
    """The error for a target that no network of this kind has: it names both ends."""
    return UserError(
        f"{key}={write_amount(target)}: {which} give {write_amount(low)} to {write_amount(high)} {SIZES[of]}"
    )
