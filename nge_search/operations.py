"""The candidate operations and the building blocks of cells, as DARTS defines them (cnn/operations.py).

The same classes serve the supernet (batch normalisation without affine parameters) and derived networks
(with them). Shapes: x_BCHW in, B x C_out x ceil(H / stride) x ceil(W / stride) out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.genotype import OPERATION_NAMES, PARAMETER_FREE


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution, batch normalisation."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, padding: int = 0, affine: bool = True
    ):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )


class DilConv(nn.Sequential):
    """ReLU, dilated depthwise convolution, pointwise convolution, batch normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int, affine: bool = True):
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class SepConv(nn.Sequential):
    """Two depthwise-separable convolutions; the stride is in the first."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool = True):
        super().__init__(
            DilConv(channels, kernel, stride, 1, affine),
            DilConv(channels, kernel, 1, 1, affine),
        )


class Conv7x1And1x7(nn.Sequential):
    """ReLU, 1x7 convolution, 7x1 convolution, batch normalisation (AmoebaNet's factorised 7x7)."""

    def __init__(self, channels: int, stride: int, affine: bool = True):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halve the resolution with two 1x1 convolutions, the second on the image shifted by one pixel.

    On odd sizes the shifted branch is zero-padded by one row and column at the right and bottom, so that
    both branches agree in size; even sizes give exactly what DARTS gives.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True):
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.relu(x_BCHW)
        height, width = x_BCHW.shape[-2:]
        shifted = x_BCHW[:, :, 1:, 1:]
        if height % 2 or width % 2:
            shifted = functional.pad(shifted, (0, width % 2, 0, height % 2))
        return self.bn(torch.cat([self.even(x_BCHW), self.odd(shifted)], dim=1))


def build_preprocess(c_in: int, c_out: int, halve: bool, affine: bool = True) -> nn.Module:
    """What a cell does to an input first: a 1x1 convolution to its width, and half the resolution if `halve`."""
    return FactorizedReduce(c_in, c_out, affine) if halve else ReLUConvBN(c_in, c_out, affine=affine)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


_FACTORIES: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "skip_connect": _skip,
    "max_pool_3x3": lambda c, stride, affine: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda c, stride, affine: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "sep_conv_3x3": lambda c, stride, affine: SepConv(c, 3, stride, affine),
    "sep_conv_5x5": lambda c, stride, affine: SepConv(c, 5, stride, affine),
    "dil_conv_3x3": lambda c, stride, affine: DilConv(c, 3, stride, 2, affine),
    "dil_conv_5x5": lambda c, stride, affine: DilConv(c, 5, stride, 2, affine),
    "sep_conv_7x7": lambda c, stride, affine: SepConv(c, 7, stride, affine),
    "conv_7x1_1x7": lambda c, stride, affine: Conv7x1And1x7(c, stride, affine),
}
assert tuple(_FACTORIES) == OPERATION_NAMES


def build_operation(name: str, channels: int, stride: int, affine: bool = True) -> nn.Module:
    """The operation `name` on `channels` channels.

    Pools stand alone, as in a derived network; the supernet adds a normalisation to them itself.
    """
    return _FACTORIES[name](channels, stride, affine)


def is_pool(name: str) -> bool:
    return name in PARAMETER_FREE and name != "skip_connect"
