"""Several depthwise convolutions in one call, forward and backward, by whatever computes them best on a device.

On CPUs these are the compiled kernels of `depthwise_cpu`: PyTorch's weight gradients of 5x5 kernels and its input
gradients of strided or dilated ones are several times slower. Everywhere else, and for types that the kernels do
not know, they are PyTorch's.

Images are views [B, H, W, C] of channels-last memory: C adjacent, positions a constant step apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_scratch = torch.empty(0, dtype=torch.uint8)


def depthwise(
    inputs: Sequence[Tensor], weights: Tensor, outputs: Sequence[Tensor], stride: int, dilation: int
) -> None:
    """outputs[j] = depthwise convolution of relu(inputs[i]) with weights[j], "same" padding.

    Args:
        inputs: n views [B, H, W, C].
        weights: [m, C, 1, K, K], K odd; m a multiple of n: input i serves j = i * m/n to (i + 1) * m/n - 1.
        outputs: m views [B, ceil(H / stride), ceil(W / stride), C], overwritten.
    """
    if _is_compiled(inputs[0]):
        call, taps = _Call(inputs, weights, stride, dilation), _taps_first(weights)
        images = _addresses(inputs), _step(inputs)
        call.kernels.forward(*call.common, *images, _addresses(taps), _addresses(outputs), _step(outputs))
        return
    for output, x, w in zip(outputs, _repeat(inputs, len(weights)), weights):
        output.copy_(_convolve(functional.relu(_nchw(x)), w, stride, dilation).permute(0, 2, 3, 1))


def depthwise_backward(
    inputs: Sequence[Tensor],
    weights: Tensor,
    gradients: Sequence[Tensor],
    stride: int,
    dilation: int,
    input_gradients: Sequence[Tensor] | None,
    accumulate: bool,
    need_weights: bool,
) -> Tensor | None:
    """Gradients of `depthwise`.

    Args:
        gradients: m views, of the loss with respect to the outputs.
        input_gradients: n views that receive, or with `accumulate` add, those with respect to the inputs (through
            the ReLU); None: not wanted.
        need_weights: whether the gradient of `weights` is wanted.

    Returns:
        The gradient of `weights`, or None.
    """
    if _is_compiled(inputs[0]):
        call, taps = _Call(inputs, weights, stride, dilation), _taps_first(weights)
        sums = taps.new_zeros(call.threads, len(taps) if need_weights else 0, *taps.shape[1:])
        images = _addresses(inputs), _step(inputs), _addresses(gradients), _step(gradients)
        targets = input_gradients or inputs[:0]
        call.kernels.backward(
            *call.common,
            *images,
            _addresses(taps),
            _addresses(targets),
            _step(targets) if targets else 0,
            accumulate,
            _addresses(sums.flatten(0, 1)).reshape(call.threads, -1),
        )
        return sums.sum(dim=0).transpose(1, 2).reshape(weights.shape) if need_weights else None
    padding = dilation * (weights.shape[-1] - 1) // 2
    per_input = len(weights) // len(inputs)
    found = []
    for i, x in enumerate(inputs):
        rectified = functional.relu(_nchw(x))
        total = None
        for j in range(i * per_input, (i + 1) * per_input):
            dx, dw, _ = torch.ops.aten.convolution_backward(
                _nchw(gradients[j]),
                rectified,
                weights[j],
                None,
                [stride] * 2,
                [padding] * 2,
                [dilation] * 2,
                False,
                [0, 0],
                len(weights[j]),
                [input_gradients is not None, need_weights, False],
            )
            if input_gradients is not None:
                total = dx if total is None else total + dx
            found.append(dw)
        if input_gradients is not None:
            masked = torch.where(rectified > 0, total, torch.zeros_like(total)).permute(0, 2, 3, 1)
            input_gradients[i].add_(masked) if accumulate else input_gradients[i].copy_(masked)
    return torch.stack(found) if need_weights else None


class _Call:
    """A compiled kernel's first arguments, for some images."""

    def __init__(self, inputs: Sequence[Tensor], weights: Tensor, stride: int, dilation: int):
        global _scratch
        from nge_search.supernet import depthwise_cpu, lanes  # compiles: only where it is used

        self.kernels = depthwise_cpu
        shape, taps = tuple(inputs[0].shape), (weights.shape[-1], dilation, stride)
        block = next(size for size in (16, 8, 4, 2, 1) if shape[3] % size == 0)
        strip = lanes.Strip(block, 4, 8 * inputs[0].element_size())
        self.threads = torch.get_num_threads()
        size = depthwise_cpu.scratch_bytes(strip, shape, taps)
        if _scratch.numel() < size * self.threads:
            _scratch = torch.empty(size * self.threads, dtype=torch.uint8)
        self.common = (strip, self.threads, _scratch.data_ptr(), size, shape, taps)


def _taps_first(weights: Tensor) -> Tensor:
    """[m, C, 1, K, K] -> [m, K * K, C]."""
    return weights.detach().flatten(2).transpose(1, 2).contiguous()


def _is_compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _addresses(tensors: Sequence[Tensor] | Tensor) -> np.ndarray:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def _step(images: Sequence[Tensor]) -> int:
    """Bytes between positions, after a check that memory is laid out as the kernels expect."""
    _, height, width, _ = images[0].shape
    step = images[0].stride(2) if width > 1 else images[0].stride(1) if height > 1 else images[0].stride(0)
    for image in images:
        expected = (height * width * step, width * step, step, 1)
        assert all(size == 1 or a == b for size, a, b in zip(image.shape, image.stride(), expected)), image.stride()
    return step * images[0].element_size()


def _repeat(inputs: Sequence[Tensor], count: int) -> list[Tensor]:
    return [x for x in inputs for _ in range(count // len(inputs))]


def _nchw(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.permute(0, 3, 1, 2)


def _convolve(x_BCHW: Tensor, w: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (w.shape[-1] - 1) // 2
    return functional.conv2d(x_BCHW, w, None, stride, padding, dilation, groups=len(w))
