"""The layers of a cell in the forms that train fastest on a CPU; the same functions as PyTorch's.

Maps are channels-last [B, C, H, W]. `Shared` runs the operations of a cell: it rectifies a node once for all that
read it, normalises with the kernels of `native.normalise`, and gives dilated and 5x5 depthwise convolutions a
backward pass out of PyTorch's fast parts. `Stem` does so for what stands before the cells. Where these forms do not
apply, operations run as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.native.threads import run
from nge_search.operations import DilConv, FactorizedReduce, Preprocess, ReLUConvBN, SepConv

_SMALLEST = 1 << 15  # numbers in a map from which on calling a kernel of our own is worth it


def suits(x_BCHW: Tensor) -> bool:
    """Whether the forms of this module apply to a map, and to those computed from it."""
    return (
        x_BCHW.device.type == "cpu"
        and x_BCHW.dtype in (torch.float32, torch.float64)
        and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        and x_BCHW.numel() >= _SMALLEST
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.is_grad_enabled()
    )


class Stem(nn.Sequential):
    """Convolutions, normalisations and ReLUs in a row, the last two in one pass where they follow each other."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        rectified = False
        for layer, next_ in zip(self, [*self[1:], None]):
            if isinstance(layer, nn.BatchNorm2d) and layer.training and suits(x_BCHW):
                rectified = isinstance(next_, nn.ReLU)
                x_BCHW = normalise(layer, x_BCHW, rectify=rectified)
            elif rectified:
                rectified = False
            else:
                x_BCHW = layer(x_BCHW)
        return x_BCHW


class Shared:
    """Runs operations on maps, and rectifies each map once."""

    def __init__(self) -> None:
        self._rectified: dict[int, tuple[Tensor, Tensor]] = {}
        self._products: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def prepare(self, x_BCHW: Tensor, readers: Sequence[nn.Module]) -> None:
        """Compute at once what those of `readers` that begin with a ReLU and a 1x1 convolution will ask for.

        Going back, the gradients of all of them are one sum, made where it is needed.
        """
        asked = [_pointwise(reader, x_BCHW) for reader in readers]
        parts = iter(_multiply([product for own in asked for product in own], x_BCHW, rectify=True))
        for reader, own in zip(readers, asked):
            self._products[id(x_BCHW), id(reader)] = tuple(next(parts) for _ in own)

    def __call__(
        self,
        operation: nn.Module,
        x_BCHW: Tensor,
        factor_B111: Tensor | None = None,
        addend_BCHW: Tensor | None = None,
    ) -> Tensor:
        """The result of an operation, times a factor per image, plus a map."""
        more = factor_B111, addend_BCHW
        if isinstance(operation, SepConv):
            inner, outer = operation.steps
            return _separable(outer, _separable(inner, self._rectify(x_BCHW), rectify=True), *more)
        if isinstance(operation, DilConv):
            return _separable(operation, self._rectify(x_BCHW), *more)
        own = _pointwise(operation, x_BCHW)
        if not own or not isinstance(operation, Preprocess):
            return combine(operation(x_BCHW), *more)
        parts = self._products.pop((id(x_BCHW), id(operation)), None) or _multiply(own, self._rectify(x_BCHW))
        norm = operation[2] if isinstance(operation, ReLUConvBN) else operation.bn
        return normalise(norm, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), *more)

    def _rectify(self, x_BCHW: Tensor) -> Tensor:
        if id(x_BCHW) not in self._rectified:
            # The map is kept, so that no other one can get its identity.
            self._rectified[id(x_BCHW)] = x_BCHW, torch.relu(x_BCHW)
        return self._rectified[id(x_BCHW)][1]


def plainly(
    operation: nn.Module,
    x_BCHW: Tensor,
    factor_B111: Tensor | None = None,
    addend_BCHW: Tensor | None = None,
) -> Tensor:
    """What `Shared` computes, by PyTorch's own operations alone."""
    return combine(operation(x_BCHW), factor_B111, addend_BCHW)


def combine(y_BCHW: Tensor, factor_B111: Tensor | None, addend_BCHW: Tensor | None) -> Tensor:
    """A map times a factor per image, plus another map, as far as these are given."""
    if factor_B111 is None:
        return y_BCHW if addend_BCHW is None else addend_BCHW + y_BCHW
    if addend_BCHW is None:
        return y_BCHW * factor_B111
    return torch.addcmul(addend_BCHW, y_BCHW, factor_B111)


def _separable(
    layers: DilConv,
    x_BCHW: Tensor,
    factor_B111: Tensor | None = None,
    addend_BCHW: Tensor | None = None,
    rectify: bool = False,
) -> Tensor:
    """What follows the ReLU of a DilConv, and then another ReLU if `rectify`."""
    (z_BCHW,) = _multiply([_Product(layers.pointwise.weight)], convolve(layers.depthwise, x_BCHW))
    return normalise(layers[3], z_BCHW, factor_B111, addend_BCHW, rectify)


class _Product(NamedTuple):
    """A 1x1 convolution [C_out, C, 1, 1] of every `step`-th pixel, from (`start`, `start`) on."""

    weight: Tensor
    start: int = 0
    step: int = 1


def _pointwise(operation: nn.Module, x_BCHW: Tensor) -> list[_Product]:
    """The products in an operation that is a ReLU, 1x1 convolutions side by side and a normalisation; else none."""
    if isinstance(operation, ReLUConvBN):
        return [_Product(operation.convolution.weight)]
    odd = x_BCHW.shape[2] % 2 or x_BCHW.shape[3] % 2
    if isinstance(operation, FactorizedReduce) and operation.even.stride == (2, 2) and not odd:
        return [_Product(operation.even.weight, 0, 2), _Product(operation.odd.weight, 1, 2)]
    return []


def _multiply(products: Sequence[_Product], x_BCHW: Tensor, rectify: bool = False) -> tuple[Tensor, ...]:
    """1x1 convolutions of a map, or of its positive part."""
    if not products:
        return ()
    weights, *picks = zip(*products)
    return _Products.apply(x_BCHW, rectify, tuple(zip(*picks)), *weights)


class _Products(torch.autograd.Function):
    """1x1 convolutions as the matrix products that they are where positions are rows; faster above all backward."""

    @staticmethod
    def forward(
        ctx, x_BCHW: Tensor, rectify: bool, picks: tuple[tuple[int, int], ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        x_BCHW = torch.relu(x_BCHW) if rectify else x_BCHW
        ctx.save_for_backward(x_BCHW, *weights)
        ctx.known = rectify, picks
        pixels = [_pick(x_BCHW.permute(0, 2, 3, 1), *pick) for pick in picks]
        return tuple(functional.linear(x, w.flatten(1)).permute(0, 3, 1, 2) for x, w in zip(pixels, weights))

    @staticmethod
    def backward(ctx, *dz_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, *weights = ctx.saved_tensors
        rectify, picks = ctx.known
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        dx_BHWC, whole = x_BHWC.new_empty(x_BHWC.shape), [step == 1 for _, step in picks]
        if not any(whole):
            dx_BHWC.zero_()
        d_weights: list[Tensor | None] = [None] * len(picks)
        # Products of all pixels come first: the first of them writes what the others are added to.
        for done, i in enumerate(sorted(range(len(picks)), key=whole.__getitem__, reverse=True)):
            dz_BHWC, weight = dz_BCHW[i].permute(0, 2, 3, 1), weights[i].flatten(1)
            dz_PC = dz_BHWC.flatten(0, 2)
            d_weights[i] = _sum_of_products(dz_PC, _pick(x_BHWC, *picks[i]).flatten(0, 2)).view_as(weights[i])
            if whole[i]:
                dx_BHWC.flatten(0, 2).addmm_(dz_PC, weight, beta=1 if done else 0)
            else:
                _pick(dx_BHWC, *picks[i]).add_((dz_PC @ weight).view(*dz_BHWC.shape[:3], -1))
        if rectify:
            torch.ops.aten.threshold_backward.grad_input(dx_BHWC, x_BHWC, 0, grad_input=dx_BHWC)
        return dx_BHWC.permute(0, 3, 1, 2), None, None, *d_weights


def _pick(x_BHWC: Tensor, start: int, step: int) -> Tensor:
    return x_BHWC[:, start::step, start::step]


def _sum_of_products(a_PM: Tensor, b_PN: Tensor) -> Tensor:
    """The transpose of `a` times `b`, as a sum over parts: long sums are what BLAS is slow at."""
    parts = math.gcd(len(a_PM), 8)
    a_KMP, b_KPN = a_PM.unflatten(0, (parts, -1)).transpose(1, 2), b_PN.unflatten(0, (parts, -1))
    return torch.bmm(a_KMP, b_KPN).sum(dim=0)


def convolve(layer: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """A depthwise convolution."""
    slow_backward = layer.stride == (1, 1) and (layer.dilation != (1, 1) or layer.kernel_size != (3, 3))
    if slow_backward and x_BCHW.requires_grad:
        return _Depthwise.apply(x_BCHW, layer.weight, layer.padding, layer.dilation)
    return layer(x_BCHW)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 that keeps the image's size."""

    @staticmethod
    def forward(ctx, x_BCHW: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight)
        ctx.geometry = padding, dilation
        return functional.conv2d(x_BCHW, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx, dy_BCHW: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_BCHW, weight = ctx.saved_tensors
        padding, dilation = ctx.geometry
        # The gradient of the input is a convolution with the kernel turned by 180 degrees.
        dx_BCHW = functional.conv2d(dy_BCHW, weight.flip(2, 3), None, 1, padding, dilation, len(weight))
        if dilation == (2, 2) and not (x_BCHW.shape[2] % 2 or x_BCHW.shape[3] % 2):
            # A kernel of dilation 2 never mixes even with odd pixels: it is a plain one on each of four images.
            x_BCHW, dy_BCHW = _four_images(x_BCHW), _four_images(dy_BCHW)
            padding, dilation = (padding[0] // 2, padding[1] // 2), (1, 1)
        _, d_weight, _ = torch.ops.aten.convolution_backward(
            dy_BCHW,
            x_BCHW,
            weight,
            None,
            (1, 1),
            padding,
            dilation,
            False,
            (0, 0),
            len(weight),
            (False, True, False),
        )
        return dx_BCHW, d_weight, None, None


def _four_images(x_BCHW: Tensor) -> Tensor:
    """The pixels with even and odd rows and columns as images of their own: [4 B, C, H / 2, W / 2]."""
    batch, channels, height, width = x_BCHW.shape
    parts = x_BCHW.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    parts = parts.permute(2, 4, 0, 1, 3, 5).reshape(4 * batch, height // 2, width // 2, channels)
    return parts.permute(0, 3, 1, 2)


def normalise(
    norm: nn.Module,
    x_BCHW: Tensor,
    factor_B111: Tensor | None = None,
    addend_BCHW: Tensor | None = None,
    rectify: bool = False,
) -> Tensor:
    """A normalisation in training, times a factor per image, plus a map, as far as given; or with a ReLU behind."""
    maps = (x_BCHW,) if addend_BCHW is None else (x_BCHW, addend_BCHW)
    dense = all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in maps)
    if not dense or type(norm) is not nn.BatchNorm2d:  # statistics over ranks, for example
        y_BCHW = norm(x_BCHW)
        return torch.relu(y_BCHW) if rectify else combine(y_BCHW, factor_B111, addend_BCHW)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return _Normalise.apply(x_BCHW, norm.weight, norm.bias, norm, factor_B111, addend_BCHW, rectify)


class _Normalise(torch.autograd.Function):
    """Batch normalisation (Ioffe and Szegedy, 2015), with what comes behind it."""

    @staticmethod
    def forward(
        ctx,
        x_BCHW: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        norm: nn.BatchNorm2d,
        factor_B111: Tensor | None,
        addend_BCHW: Tensor | None,
        rectify: bool,
    ) -> Tensor:
        from nge_search.native import normalise as kernels  # imports the compiler: only where it is used

        batch, channels, height, width = x_BCHW.shape
        count, threads = batch * height * width, torch.get_num_threads()
        dtype = x_BCHW[:0].numpy().dtype
        sums = torch.zeros(threads, 2, channels, dtype=torch.float64)
        run(kernels.moments(dtype), threads, count=count, channels=channels, **_addresses(x=x_BCHW, sums=sums))
        facts = torch.empty(2, channels, dtype=torch.float64)
        rows = x_BCHW.new_empty(kernels.ROWS, kernels.GROUP * channels)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        running = norm.running_mean.numpy(), norm.running_var.numpy()
        given = sums.numpy(), count, x_BCHW[0, :, 0, 0].numpy(), weight_C.numpy(), bias_C.numpy()
        kernels.describe(*given, norm.eps, norm.momentum, *running, facts.numpy(), rows.numpy())
        factors = x_BCHW.new_ones(batch) if factor_B111 is None else factor_B111.flatten().to(x_BCHW.dtype)
        factors, y_BCHW = factors.contiguous(), torch.empty_like(x_BCHW)
        added = x_BCHW if addend_BCHW is None else addend_BCHW
        run(
            kernels.forward(dtype), threads, images=batch, count=height * width, channels=channels,
            rectify=int(rectify), added=int(addend_BCHW is not None),
            **_addresses(x=x_BCHW, rows=rows, factors=factors, addend=added, y=y_BCHW),
        )  # fmt: skip
        ctx.save_for_backward(x_BCHW)
        ctx.known = threads, dtype, facts, rows, factors, int(rectify), addend_BCHW is not None
        return y_BCHW

    @staticmethod
    def backward(ctx, dy_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        from nge_search.native import normalise as kernels

        (x_BCHW,) = ctx.saved_tensors
        threads, dtype, facts, rows, factors, rectify, added = ctx.known
        rows = rows.clone()  # another backward pass may come
        batch, channels, height, width = x_BCHW.shape
        dy_BCHW = dy_BCHW.contiguous(memory_format=torch.channels_last)
        sizes = {"images": batch, "count": height * width, "channels": channels, "rectify": rectify}
        given = {**sizes, **_addresses(x=x_BCHW, rows=rows, factors=factors, dy=dy_BCHW)}
        sums = torch.zeros(threads, 2, channels, dtype=torch.float64)
        run(kernels.changes(dtype), threads, **given, **_addresses(sums=sums))
        d_weight_C, d_bias_C = x_BCHW.new_empty(channels), x_BCHW.new_empty(channels)
        found = d_weight_C.numpy(), d_bias_C.numpy(), rows.numpy()
        kernels.describe_backward(sums.numpy(), batch * height * width, facts.numpy(), *found)
        dx_BCHW = torch.empty_like(x_BCHW)
        run(kernels.backward(dtype), threads, **given, **_addresses(dx=dx_BCHW))
        return dx_BCHW, d_weight_C, d_bias_C, None, None, dy_BCHW if added else None, None


def _addresses(**tensors: Tensor) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}
