"""The fast forms of layers equal PyTorch's own, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nge_search.engine.sync_batchnorm import synchronise_statistics
from nge_search.networks import fast_forms as layers
from nge_search.operations import build_operation, build_preprocess

#: Channels that fill registers and others; positions that fill groups and others.
SHAPES = [(4, 36, 16, 16), (3, 7, 5, 9), (2, 144, 8, 8), (5, 1, 3, 3), (1, 18, 33, 31)]


def image(shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 + mean
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def random_norm(channels: int, dtype: torch.dtype) -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels).to(dtype)
    norm.weight.data.uniform_(-1, 2)
    norm.bias.data.normal_()
    return norm


def results(function, modules: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients of a fixed functional of it, and buffers."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y.dtype)
    (y * weights).sum().backward()
    own = {name: p.grad for name, p in modules.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **own, **dict(modules.named_buffers())}


def largest_error(found: dict, expected: dict) -> float:
    assert found.keys() == expected.keys()
    return max(
        float((found[name].double() - value.double()).norm() / (1e-30 + value.double().norm()))
        for name, value in expected.items()
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rectify", [False, True])
def test_normalisation_in_float64(shape, rectify):
    norm = random_norm(shape[1], torch.float64)
    plain = copy.deepcopy(norm)
    x = image(shape, torch.float64, mean=3.0)
    found = results(lambda x: layers.normalise(norm, x, rectify=rectify), norm, x)
    expected = results(lambda x: torch.relu(plain(x)) if rectify else plain(x), plain, x)
    assert largest_error(found, expected) < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_normalisation_with_a_factor_per_image_and_another_map(shape, dropped, added):
    norm = random_norm(shape[1], torch.float64)
    plain, x = copy.deepcopy(norm), image(shape, torch.float64)
    factor = torch.arange(shape[0]).double()[:, None, None, None] if dropped else None

    def ours(x):
        return layers.normalise(norm, x, factor, x * x if added else None)

    def theirs(x):
        y = plain(x) * (1 if factor is None else factor)
        return y + x * x if added else y

    assert largest_error(results(ours, norm, x), results(theirs, plain, x)) < 1e-12


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_normalisation_in_float32_is_no_worse_than_pytorchs(mean):
    x = image((16, 36, 32, 32), torch.float32, mean)
    norm = random_norm(36, torch.float32)
    exact, plain = copy.deepcopy(norm).double(), copy.deepcopy(norm)
    truth = results(exact, exact, x.double())
    ours = largest_error(results(lambda x: layers.normalise(norm, x), norm, x), truth)
    assert ours < 2 * largest_error(results(plain, plain, x), truth) + 1e-6


def test_normalisation_does_not_depend_on_the_number_of_threads_in_float64():
    norm, x = random_norm(36, torch.float64), image((4, 36, 9, 9), torch.float64)
    twin, before = copy.deepcopy(norm), torch.get_num_threads()
    alone = results(lambda x: layers.normalise(norm, x, rectify=True), norm, x)
    try:
        torch.set_num_threads(3)
        together = results(lambda x: layers.normalise(twin, x, rectify=True), twin, x)
    finally:
        torch.set_num_threads(before)
    assert largest_error(together, alone) < 1e-13


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
@pytest.mark.parametrize("sides", [(8, 8), (6, 7)])
def test_depthwise_convolutions(kernel, dilation, sides):
    torch.manual_seed(0)
    padding = dilation * (kernel - 1) // 2
    layer = nn.Conv2d(6, 6, kernel, 1, padding, dilation, groups=6, bias=False).double()
    layer = layer.to(memory_format=torch.channels_last)
    plain, x = copy.deepcopy(layer), image((3, 6, *sides), torch.float64)
    found = results(lambda x: layers.convolve(layer, x), layer, x)
    assert largest_error(found, results(plain, plain, x)) < 1e-12


OPERATIONS = [
    build_preprocess(8, 6, halve=False),
    build_preprocess(8, 6, halve=True),
    *(build_operation(name, 8, stride) for name in ("sep_conv_5x5", "dil_conv_3x3") for stride in (1, 2)),
    build_operation("skip_connect", 8, 2),
    build_operation("max_pool_3x3", 8, 1),
    build_operation("conv_7x1_1x7", 8, 1),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("more", [False, True])
def test_operations_in_their_fast_form(operation, more):
    """`more`: with a factor per image, and a map to add."""
    operation = copy.deepcopy(operation).double().to(memory_format=torch.channels_last)
    plain, x = copy.deepcopy(operation), image((3, 8, 6, 6), torch.float64)
    given = ()
    if more:
        given = torch.tensor([0.0, 1.0, 2.0]).double()[:, None, None, None], image(plain(x).shape, torch.float64)
        plain = copy.deepcopy(operation)
    found = results(lambda x: layers.Shared()(operation, x, *given), operation, x)
    assert largest_error(found, results(lambda x: layers.plainly(plain, x, *given), plain, x)) < 1e-12


def test_a_map_is_rectified_once(monkeypatch):
    rectify, calls = torch.relu, []
    monkeypatch.setattr(torch, "relu", lambda x: calls.append(x) or rectify(x))
    shared, x = layers.Shared(), image((3, 8, 6, 6), torch.float64).requires_grad_()
    assert shared._rectify(x) is shared._rectify(x)
    assert len(calls) == 1
    assert shared._rectify(x.clone()) is not shared._rectify(x)


@pytest.mark.parametrize("sides", [(6, 6), (5, 6)])
@pytest.mark.parametrize("kinds", [(False, False, True), (True,), (True, False)], ids=str)
def test_readers_of_a_map_are_served_at_once(sides, kinds):
    """A map that ReLU, 1x1 convolution, normalisation read, with half the resolution or not; one reader twice."""
    torch.manual_seed(0)
    readers = [build_preprocess(8, 6 - i, halve) for i, halve in enumerate(kinds)]
    ours = nn.ModuleList(readers).double().to(memory_format=torch.channels_last)
    plain, x = copy.deepcopy(ours), image((3, 8, *sides), torch.float64)

    def fast(x):
        shared = layers.Shared()
        x = x.clone(memory_format=torch.preserve_format)
        shared.prepare(x, ours)
        return torch.cat([shared(reader, x).flatten() for reader in (*ours, ours[0])])

    found = results(fast, ours, x)
    expected = results(lambda x: torch.cat([reader(x).flatten() for reader in (*plain, plain[0])]), plain, x)
    assert largest_error(found, expected) < 1e-12


def test_a_stem_in_its_fast_form():
    convolutions = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 6, 1, bias=False)
    modules = convolutions[0], nn.BatchNorm2d(8), nn.ReLU(), convolutions[1], nn.BatchNorm2d(6)
    ours = layers.Stem(*modules).double().to(memory_format=torch.channels_last)
    plain, x = nn.Sequential(*copy.deepcopy(modules)).double(), image((9, 3, 34, 34), torch.float64)
    plain = plain.to(memory_format=torch.channels_last)
    assert largest_error(results(ours, ours, x), results(plain, plain, x)) < 1e-12
    ours.eval(), plain.eval()
    assert torch.allclose(ours(x), plain(x), atol=1e-12)


def test_where_the_fast_forms_apply():
    big = image((8, 16, 32, 32), torch.float32)
    assert layers.suits(big)
    assert not layers.suits(big.contiguous())
    assert not layers.suits(big[:1, :, :4, :4].contiguous(memory_format=torch.channels_last))
    assert not layers.suits(big.bfloat16())
    with torch.no_grad():
        assert not layers.suits(big)
    with torch.autocast("cpu", torch.bfloat16):
        assert not layers.suits(big)


def test_statistics_over_ranks_are_left_to_their_layer():
    norm = random_norm(4, torch.float64)
    synchronise_statistics(norm)
    called = []
    norm.forward = lambda x: called.append(x) or x
    x = image((2, 4, 3, 3), torch.float64)
    assert torch.equal(layers.normalise(norm, x, rectify=True), torch.relu(x))
    assert called
