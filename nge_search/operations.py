"""The candidate operations and the building blocks of cells, as DARTS defines them (cnn/operations.py).

The same classes serve the supernet (batch normalisation without affine parameters) and derived networks
(with them). Shapes: x_BCHW in, B x C_out x ceil(H / stride) x ceil(W / stride) out.

Rates. A network may keep the resolution that a stride would halve. What comes behind then has a rate, by which it
is dilated: on every rate-th pixel it computes what the strided network would have (atrous convolution). Operations
take the rate of their input and that of their output, which is twice as large where their own stride was removed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search import operation_registry
from nge_search.architecture.genotype import PARAMETER_FREE
from nge_search.own_operations import Rates, build_own
from nge_search.registry import resolve

Module = TypeVar("Module", bound=nn.Module)
Member = TypeVar("Member", bound=nn.Module, covariant=True)

if TYPE_CHECKING:

    class ModuleList(nn.ModuleList, Generic[Member]):
        """`nn.ModuleList` of modules of one class, which PyTorch's own types do not tell."""

        def __init__(self, modules: Iterable[Member] | None = None): ...

        @overload
        def __getitem__(self, idx: slice) -> ModuleList[Member]: ...

        @overload
        def __getitem__(self, idx: int) -> Member: ...

        def __getitem__(self, idx: int | slice) -> Member | ModuleList[Member]: ...

        def __iter__(self) -> Iterator[Member]: ...

else:
    ModuleList = nn.ModuleList


def _part(layers: nn.Sequential, position: int, kind: type[Module]) -> Module:
    """The layer at a position, which is of a class."""
    layer = layers[position]
    assert isinstance(layer, kind)
    return layer


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

    @property
    def convolution(self) -> nn.Conv2d:
        return _part(self, 1, nn.Conv2d)

    @property
    def bn(self) -> nn.BatchNorm2d:
        return _part(self, 2, nn.BatchNorm2d)


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

    @property
    def depthwise(self) -> nn.Conv2d:
        return _part(self, 1, nn.Conv2d)

    @property
    def pointwise(self) -> nn.Conv2d:
        return _part(self, 2, nn.Conv2d)


class SepConv(nn.Sequential):
    """Two depthwise-separable convolutions; the stride is in the first."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool = True, rates: Rates = (1, 1)):
        super().__init__(
            DilConv(channels, kernel, stride, rates[0], affine),
            DilConv(channels, kernel, 1, rates[1], affine),
        )

    @property
    def steps(self) -> tuple[DilConv, DilConv]:
        return _part(self, 0, DilConv), _part(self, 1, DilConv)


class Conv7x1And1x7(nn.Sequential):
    """ReLU, 1x7 convolution, 7x1 convolution, batch normalisation (AmoebaNet's factorised 7x7)."""

    def __init__(self, channels: int, stride: int, affine: bool = True, rate: int = 1):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3 * rate), rate, bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3 * rate, 0), rate, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halve the resolution with two 1x1 convolutions, the second on the image shifted by one pixel.

    On odd sizes the shifted branch is zero-padded by one row and column at the right and bottom, so that
    both branches agree in size; even sizes give exactly what DARTS gives.

    With a stride of 1 the resolution is kept, and the shift is by the `rate` of the input.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True, stride: int = 2, rate: int = 1):
        super().__init__()
        self.shift = rate
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def extra_repr(self) -> str:
        return f"shift={self.shift}"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.relu(x_BCHW)
        shift, stride = self.shift, self.even.stride[0]
        shifted = x_BCHW[:, :, shift:, shift:]
        if torch.compiler.is_exporting():  # of sides that are symbols; no tap of even ones reads the margin
            shifted = functional.pad(shifted, (0, shift, 0, shift))
            return self.bn(torch.cat([self.even(x_BCHW), self.odd(shifted)], dim=1))
        sides = zip(x_BCHW.shape[-2:], shifted.shape[-2:])
        bottom, right = (side - left if stride == 1 else side % 2 for side, left in sides)
        if bottom or right:
            shifted = functional.pad(shifted, (0, right, 0, bottom))
        return self.bn(torch.cat([self.even(x_BCHW), self.odd(shifted)], dim=1))


class DilatedMaxPool(nn.Module):
    """3x3 max pooling of stride 1 whose taps are `rate` pixels apart; those outside the image do not count."""

    def __init__(self, rate: int):
        super().__init__()
        self.rate = rate

    def extra_repr(self) -> str:
        return f"rate={self.rate}"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        padded = functional.pad(x_BCHW, (self.rate,) * 4, value=-math.inf)
        return functional.max_pool2d(padded, 3, 1, dilation=self.rate)


class DilatedAvgPool(DilatedMaxPool):
    """3x3 average pooling of stride 1 whose taps are `rate` pixels apart; those outside the image do not count."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        channels, rate = x_BCHW.shape[1], self.rate
        ones_C133 = x_BCHW.new_ones(channels, 1, 3, 3)
        taps = functional.conv2d(torch.ones_like(x_BCHW[:1, :1]), ones_C133[:1], padding=rate, dilation=rate)
        return functional.conv2d(x_BCHW, ones_C133, padding=rate, dilation=rate, groups=channels) / taps


#: What a cell does to an input first.
Preprocess = ReLUConvBN | FactorizedReduce


def build_preprocess(
    c_in: int, c_out: int, halve: bool, affine: bool = True, stride: int = 2, rate: int = 1
) -> Preprocess:
    """What a cell does to an input first: a 1x1 convolution to its width, and half the resolution if `halve`.

    `stride` 1 keeps the resolution where it would be halved; `rate` is that of the input.
    """
    return FactorizedReduce(c_in, c_out, affine, stride, rate) if halve else ReLUConvBN(c_in, c_out, affine=affine)


def skip(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    if stride == 1 and rates[0] == rates[1]:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine, stride, rates[0])


def max_pool(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1) if rates[0] == 1 else DilatedMaxPool(rates[0])


def avg_pool(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    plain = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    return plain if rates[0] == 1 else DilatedAvgPool(rates[0])


def sep_conv_3x3(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return SepConv(channels, 3, stride, affine, rates)


def sep_conv_5x5(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return SepConv(channels, 5, stride, affine, rates)


def sep_conv_7x7(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return SepConv(channels, 7, stride, affine, rates)


def dil_conv_3x3(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return DilConv(channels, 3, stride, 2 * rates[0], affine)


def dil_conv_5x5(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return DilConv(channels, 5, stride, 2 * rates[0], affine)


def conv_7x1_1x7(channels: int, stride: int, affine: bool, rates: Rates) -> nn.Module:
    return Conv7x1And1x7(channels, stride, affine, rates[0])


def build_operation(name: str, channels: int, stride: int, affine: bool = True, rates: Rates = (1, 1)) -> nn.Module:
    """The operation `name` on `channels` channels; with a stride of 1 from a rate to another, that of stride 2.

    Pools stand alone, as in a derived network; the supernet adds a normalisation to them itself.

    Raises:
        UserError: an operation of a plugin that does not build what `register_operation` asks for.
    """
    operation = operation_registry.find(name)
    if operation.plugin:
        return build_own(name, operation, channels, stride, affine, rates)
    assert isinstance(operation.build, str)
    return resolve(operation.build)(channels, stride, affine, rates)


def is_pool(name: str) -> bool:
    """Whether it is one of the package's own pools."""
    return name in PARAMETER_FREE and name != "skip_connect"
