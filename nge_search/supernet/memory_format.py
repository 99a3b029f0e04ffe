"""The memory layout in which a depthwise convolution runs fastest, measured where it is used.

On GPUs the answer depends on device, type and shape: PyTorch computes depthwise convolutions itself for images
stored channel by channel (NCHW) and hands those with channels last (NHWC) to cuDNN. So a network's first
convolution of a shape is timed in both, forward and backward, with the copies that NCHW costs here, and the faster
one is kept. On CPUs it is always channels last (experiments/RESULTS.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

#: Stride, padding and dilation, as conv2d takes them.
Settings = tuple[Sequence[int], Sequence[int], Sequence[int]]

_LAYOUTS = (torch.channels_last, torch.contiguous_format)


class Layouts:
    """Those that one network's convolutions are computed in."""

    def __init__(self) -> None:
        self._chosen: dict[tuple, torch.memory_format] = {}

    def fastest(self, x: Tensor, weight: Tensor, settings: Settings) -> torch.memory_format:
        """For depthwise convolutions of images [B, C, H, W], which are given with channels last.

        Args:
            weight: [C, 1, K, K].
        """
        if x.device.type == "cpu":
            return torch.channels_last
        key = x.device, x.dtype, x.shape, weight.shape, str(settings)
        if key not in self._chosen:
            if torch.cuda.is_current_stream_capturing():  # nothing can be timed now
                return torch.channels_last
            self._chosen[key] = choose(x, weight, settings)
        return self._chosen[key]


def choose(x: Tensor, weight: Tensor, settings: Settings) -> torch.memory_format:
    """The faster layout for a pass forward and backward."""
    x, weight = x.detach(), weight.detach()

    def both_ways(layout: torch.memory_format) -> None:
        y = convolve(x, weight, settings, layout)
        convolve_backward(y, x, weight, settings, layout, [True, True, False])

    return min(_LAYOUTS, key=lambda layout: _seconds(lambda: both_ways(layout), x.device))


def convolve(x: Tensor, weight: Tensor, settings: Settings, layout: torch.memory_format) -> Tensor:
    """Computed in a layout; the result has channels last."""
    y = functional.conv2d(x.contiguous(memory_format=layout), weight, None, *settings, groups=len(weight))
    return y.contiguous(memory_format=torch.channels_last)


def convolve_backward(
    dy: Tensor, x: Tensor, weight: Tensor, settings: Settings, layout: torch.memory_format, need: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias, as far as they are needed; that of x has channels last."""
    dy, x = dy.contiguous(memory_format=layout), x.contiguous(memory_format=layout)
    dx, *others = torch.ops.aten.convolution_backward(
        dy, x, weight, None, *settings, False, [0, 0], len(weight), need
    )
    return dx if dx is None else dx.contiguous(memory_format=torch.channels_last), *others


def _seconds(action: Callable[[], None], device: torch.device, count: int = 3) -> float:
    """The shortest of some calls, after one that warms up."""
    found = []
    for _ in range(1 + count):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
