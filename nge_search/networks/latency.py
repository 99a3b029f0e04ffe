"""How long a network takes on this device: seconds of a batch, as they are and not as mult-adds would have it."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.engine.environment import device_name
from nge_search.engine.precision import allow_tf32
from nge_search.errors import UserError, plain

WARM_UP, PASSES = 3, 15


@dataclass(frozen=True)
class Latency:
    """What was measured where.

    Attributes:
        seconds: median of a forward pass of a batch, in evaluation mode, in fp32.
        fastest, slowest: of the passes.
        passes: how many were measured, behind WARM_UP others.
        batch: images of a pass.
        threads: of the CPU that compute.
        device: its name.
    """

    seconds: float
    fastest: float
    slowest: float
    passes: int
    batch: int
    threads: int
    device: str

    def line(self) -> str:
        return (
            f"latency {1e3 * self.seconds:.4g} ms a batch of {self.batch} ({1e3 * self.fastest:.4g} to "
            f"{1e3 * self.slowest:.4g}; median of {self.passes} passes behind {WARM_UP}), fp32, "
            f"{self.threads} {'thread' if self.threads == 1 else 'threads'}, {self.device}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warm_up": WARM_UP}


@torch.inference_mode()
def measure_latency(
    network: nn.Module,
    image_size: int,
    device: torch.device,
    batch: int = 1,
    passes: int = PASSES,
    image_channels: int = 3,
) -> Latency:
    """The time of forward passes on images; the network is left on the device, in evaluation.

    They are of noise, since zeros take less of a GPU's power; and products are of whole fp32, here and afterwards.

    Raises:
        UserError: so many images, or so large ones, do not fit the memory.
    """
    allow_tf32(False)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    shape = batch, image_channels, image_size, image_size
    try:
        images_BCHW = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        laps = pass_seconds(network, images_BCHW, passes)
    except RuntimeError as error:  # torch's kinds of having no memory are this, too
        raise UserError(
            f"the network cannot be measured on images {list(shape)}: {plain(str(error), 200)}; take fewer or "
            "smaller ones"
        ) from None
    threads, name = torch.get_num_threads(), device_name(device)
    return Latency(statistics.median(laps), min(laps), max(laps), passes, batch, threads, name)


@torch.inference_mode()
def pass_seconds(network: nn.Module, images_BCHW: Tensor, passes: int) -> list[float]:
    """Seconds of each of so many forward passes, behind WARM_UP others."""
    laps = []
    for _ in range(WARM_UP + passes):
        _wait(images_BCHW.device)
        start = time.perf_counter()
        network(images_BCHW)
        _wait(images_BCHW.device)
        laps.append(time.perf_counter() - start)
    return laps[WARM_UP:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
