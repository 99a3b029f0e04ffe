"""Depthwise convolutions in groups, compiled and PyTorch's, against one convolution at a time under autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nge_search.supernet import depthwise as module
from nge_search.supernet.depthwise import depthwise, depthwise_backward


def expected(inputs, weights, gradients, stride, dilation):
    """Outputs, input gradients and weight gradients, each convolution by itself."""
    leaves = [x.permute(0, 3, 1, 2).clone().requires_grad_() for x in inputs]
    kernels = weights.clone().requires_grad_()
    padding = dilation * (weights.shape[-1] - 1) // 2
    outputs = [
        functional.conv2d(functional.relu(x), w, None, stride, padding, dilation, groups=len(w))
        for x, w in zip([x for x in leaves for _ in range(len(weights) // len(leaves))], kernels)
    ]
    loss = sum((y * g.permute(0, 3, 1, 2)).sum() for y, g in zip(outputs, gradients))
    found = torch.autograd.grad(loss, [*leaves, kernels])
    return [y.permute(0, 2, 3, 1) for y in outputs], [g.permute(0, 2, 3, 1) for g in found[:-1]], found[-1]


def check(batch, height, width, channels, kernel, dilation, stride, inputs, per_input, dtype, tolerance):
    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    images = [draw(batch, height, width, channels) for _ in range(inputs)]
    count = inputs * per_input
    weights = draw(count, channels, 1, kernel, kernel)
    size = (batch, (height - 1) // stride + 1, (width - 1) // stride + 1)
    gradients = draw(*size, count * channels).split(channels, dim=3)  # slices: positions are a step apart
    outputs = torch.full((*size, count * channels), torch.nan, dtype=dtype).split(channels, dim=3)
    depthwise(images, weights, outputs, stride, dilation)
    base = [draw(batch, height, width, channels) for _ in images]
    added = [x.clone() for x in base]
    overwritten = [torch.full_like(x, torch.nan) for x in base]
    arguments = (images, weights, gradients, stride, dilation)
    d_weights = depthwise_backward(*arguments, overwritten, False, True)
    assert depthwise_backward(*arguments, added, True, False) is None
    only_weights = depthwise_backward(*arguments, None, False, True)
    y, dx, dw = expected(*arguments)
    close = {"rtol": tolerance, "atol": tolerance * batch * height * width}
    for found, target in zip(outputs, y):
        torch.testing.assert_close(found, target, **close)
    for found, more, start, target in zip(overwritten, added, base, dx):
        torch.testing.assert_close(found, target, **close)
        torch.testing.assert_close(more, start + target, **close)
    torch.testing.assert_close(d_weights, dw, **close)
    torch.testing.assert_close(only_weights, dw, **close)


@pytest.fixture(params=["compiled", "torch"])
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(module, "_is_compiled", lambda x: False)
    return request.param


SHAPES = [  # batch, height, width, channels, kernel, dilation, stride, inputs, kernels per input
    (2, 8, 8, 16, 3, 1, 1, 1, 4),
    (2, 7, 5, 4, 5, 2, 2, 1, 3),
    (3, 9, 11, 16, 5, 1, 1, 2, 1),
    (2, 8, 8, 4, 5, 1, 2, 1, 2),
    (1, 1, 1, 16, 3, 2, 1, 1, 1),
    (1, 17, 6, 32, 7, 1, 1, 2, 2),
    (2, 2, 2, 4, 5, 2, 2, 1, 2),
    (2, 1, 9, 4, 3, 1, 2, 2, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_one_convolution_at_a_time(shape, backend):
    check(*shape, torch.float64, 1e-13)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(5, 6, 7, 16, 5, 2, 1, 1, 3, torch.float64, 1e-13)
    finally:
        torch.set_num_threads(before)


def test_single_precision(backend):
    check(4, 12, 12, 16, 5, 2, 1, 1, 2, torch.float32, 1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    channels=st.sampled_from([4, 12, 16, 48]),
    kernel=st.sampled_from([3, 5, 7]),
    dilation=st.sampled_from([1, 2]),
    stride=st.sampled_from([1, 2]),
    inputs=st.integers(1, 3),
    per_input=st.integers(1, 3),
)
def test_random_shapes(batch, height, width, channels, kernel, dilation, stride, inputs, per_input):
    torch.manual_seed(0)
    check(batch, height, width, channels, kernel, dilation, stride, inputs, per_input, torch.float64, 1e-13)


def test_memory_that_is_laid_out_otherwise_is_refused():
    image = torch.randn(2, 4, 4, 16, dtype=torch.float64).transpose(1, 2)
    with pytest.raises(AssertionError):
        depthwise([image], torch.randn(1, 16, 1, 3, 3, dtype=torch.float64), [torch.empty(2, 4, 4, 16)], 1, 1)
