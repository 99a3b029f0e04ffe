"""The layers of a cell in the forms that train fastest on a CPU; the same functions as PyTorch's.

Maps are channels-last [B, C, H, W]. `Shared` runs the operations of a cell: it rectifies a node once for all that
read it, normalises with the kernels of `normalise_cpu`, and gives dilated and 5x5 depthwise convolutions a backward
pass out of PyTorch's fast parts. Where its forms do not apply, operations run as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.engine.parallel import run
from nge_search.operations import DilConv, FactorizedReduce, ReLUConvBN, SepConv

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


class Shared:
    """Runs operations on maps, and rectifies each map once."""

    def __init__(self) -> None:
        self._rectified: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, operation: nn.Module, x_BCHW: Tensor) -> Tensor:
        if isinstance(operation, SepConv):
            inner, outer = operation
            return _separable(outer, _separable(inner, self._rectify(x_BCHW), rectify=True))
        if isinstance(operation, DilConv):
            return _separable(operation, self._rectify(x_BCHW))
        if isinstance(operation, ReLUConvBN):
            _, convolution, norm = operation
            return normalise(norm, convolution(self._rectify(x_BCHW)))
        if isinstance(operation, FactorizedReduce):
            return normalise(operation.bn, operation.halves(self._rectify(x_BCHW)))
        return operation(x_BCHW)

    def _rectify(self, x_BCHW: Tensor) -> Tensor:
        # The map is kept, so that no other one can get its identity.
        return self._rectified.setdefault(id(x_BCHW), (x_BCHW, torch.relu(x_BCHW)))[1]


def _separable(layers: DilConv, x_BCHW: Tensor, rectify: bool = False) -> Tensor:
    """What follows the ReLU of a DilConv, and then another ReLU if `rectify`."""
    _, depthwise, pointwise, norm = layers
    return normalise(norm, pointwise(convolve(depthwise, x_BCHW)), rectify)


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


def normalise(norm: nn.BatchNorm2d, x_BCHW: Tensor, rectify: bool = False) -> Tensor:
    """`norm` in training, and then a ReLU if `rectify`."""
    ours = type(norm) is nn.BatchNorm2d and x_BCHW.is_contiguous(memory_format=torch.channels_last)
    if not ours:  # statistics over ranks, for example
        y_BCHW = norm(x_BCHW)
        return torch.relu(y_BCHW) if rectify else y_BCHW
    y_BCHW, mean_C, variance_C = _Normalise.apply(x_BCHW, norm.weight, norm.bias, norm.eps, rectify)
    with torch.no_grad():
        count = x_BCHW.numel() // x_BCHW.shape[1]
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), norm.momentum)
        norm.running_var.lerp_((variance_C * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)
    return y_BCHW


class _Normalise(torch.autograd.Function):
    """Batch normalisation (Ioffe and Szegedy, 2015), optionally with the ReLU behind it.

    Returns the map, and mean and biased variance of the batch in float64, [C].
    """

    @staticmethod
    def forward(
        ctx, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, rectify: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        from nge_search.networks import normalise_cpu  # imports the compiler: only where it is used

        shape = _Shape(x_BCHW)
        shift_C = x_BCHW[0, :, 0, 0].double()  # near enough to the mean for sums of squares to keep their digits
        sums_2C = shape.sum(normalise_cpu.moments, x_BCHW, shape.rows(shift_C))
        first_C, second_C = (sums_2C / shape.count).unbind(0)
        mean_C, variance_C = shift_C + first_C, (second_C - first_C.square()).clamp_min(0)
        inverse_C = torch.rsqrt(variance_C + eps)
        scale_C = weight_C.double() * inverse_C
        rows = shape.rows(scale_C, bias_C.double() - mean_C * scale_C, mean_C)
        y_BCHW = torch.empty_like(x_BCHW)
        run(normalise_cpu.forward(shape.dtype), *shape.words, int(rectify), *_addresses(x_BCHW, rows, y_BCHW))
        ctx.save_for_backward(x_BCHW, scale_C, inverse_C, rows)
        ctx.shape, ctx.rectify = shape, rectify
        ctx.mark_non_differentiable(mean_C, variance_C)
        return y_BCHW, mean_C, variance_C

    @staticmethod
    def backward(ctx, dy_BCHW: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        from nge_search.networks import normalise_cpu

        x_BCHW, scale_C, inverse_C, rows = ctx.saved_tensors
        shape, rectify = ctx.shape, int(ctx.rectify)
        dy_BCHW = dy_BCHW.contiguous(memory_format=torch.channels_last)
        sums_2C = shape.sum(normalise_cpu.changes, x_BCHW, dy_BCHW, rows, rectify=rectify)
        d_bias_C, product_C = sums_2C.unbind(0)
        slope_C = -scale_C * inverse_C.square() * product_C / shape.count
        more = shape.rows(slope_C, -scale_C * d_bias_C / shape.count)
        dx_BCHW = torch.empty_like(x_BCHW)
        rows = torch.cat([rows, more])
        run(normalise_cpu.backward(shape.dtype), *shape.words, rectify, *_addresses(x_BCHW, dy_BCHW, rows, dx_BCHW))
        dtype = x_BCHW.dtype
        return dx_BCHW, (product_C * inverse_C).to(dtype), d_bias_C.to(dtype), None, None


class _Shape:
    """How a channels-last map is gone through: its positions, channels, and the width of groups of positions."""

    def __init__(self, x_BCHW: Tensor):
        from nge_search.networks.normalise_cpu import GROUP

        self.channels = x_BCHW.shape[1]
        self.count = x_BCHW.numel() // self.channels
        self.dtype = x_BCHW.detach()[:0].numpy().dtype
        self._like, self._group, self._threads = x_BCHW.detach()[:0], GROUP, torch.get_num_threads()
        self.words = self._threads, self.count, self.channels, GROUP * self.channels

    def rows(self, *values_C: Tensor) -> Tensor:
        """[values, width] of the map's type: each repeated over a group."""
        return torch.stack(values_C).to(self._like.dtype).repeat(1, self._group)

    def sum(self, task, *tensors: Tensor, rectify: int | None = None) -> Tensor:
        """[2, C] in float64: what a summing task finds, over all threads."""
        sums = torch.zeros(self._threads, 2, self.channels, dtype=torch.float64)
        more = () if rectify is None else (rectify,)
        run(task(self.dtype), *self.words, *more, *_addresses(*tensors, sums))
        return sums.sum(dim=0)


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
