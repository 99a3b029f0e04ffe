"""The large operations of a cell, compiled and PyTorch's, against plain operations one at a time under autograd."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nge_search.native import threads as parallel
from nge_search.native.compiled import Task, record
from nge_search.supernet import folding
from nge_search.supernet import memory_format as layouts
from nge_search.supernet.kernels import contract
from nge_search.supernet.kernels.backends import Backends
from nge_search.supernet.kernels.compiled import CompiledKernels
from nge_search.supernet.kernels.memory import Memory
from nge_search.supernet.kernels.pytorch import TorchKernels
from nge_search.tables.tfrecord import _crc32c, masked_crc32c

BACKENDS = {"compiled": CompiledKernels, "torch": TorchKernels}


@pytest.fixture(params=sorted(BACKENDS))
def backend(request):
    return BACKENDS[request.param](Memory())


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def require_close(found, target, tolerance=1e-12):
    """Relative to the norm."""
    assert found.shape == target.shape
    assert float((found - target).norm()) <= tolerance * max(float(target.norm()), 1.0)


def nchw(x_BHWC):
    return x_BHWC.permute(0, 3, 1, 2)


def check_convolution(
    backend, *, batch, height, width, channels, kinds, per_input, stride, mixed, dtype, tolerance
):
    """Several kinds of convolutions; edge e reads input e // per_input, or with `mixed` each reads its own."""
    edges = 2 * per_input
    count = edges * len(kinds)
    inputs = count if mixed else 2
    first = list(range(count + 1)) if mixed else [i * per_input * len(kinds) for i in range(3)]
    taps = [draw(edges, channels, 1, kernel, kernel, dtype=dtype) for kernel, _ in kinds]
    images = [draw(batch, height, width, channels, dtype=dtype) for _ in range(inputs)]
    mix = None
    if mixed:
        mix = draw(inputs, channels, channels, dtype=dtype) / channels**0.5, draw(inputs, channels, dtype=dtype)
    convolution = backend.convolution(taps, [dilation for _, dilation in kinds], first, stride)
    z, shares = convolution.forward(images, mix, True)
    sums = shares.sum(dim=0)  # of its own: the next call may use the memory of `shares` again
    assert convolution.forward(images, mix, False)[1] is None

    leaves = [tensor.clone().requires_grad_() for tensor in (*images, *taps, *(mix or ()))]
    # What convolutions read, before the ReLU.
    read = [leaves[i] if mix is None else leaves[i] @ leaves[-2][i] + leaves[-1][i] for i in range(inputs)]
    for x in read:
        x.retain_grad()
    expected = []
    for j in range(count):
        e, k = divmod(j, len(kinds))
        kernel, dilation = kinds[k]
        x = nchw(functional.relu(read[j if mixed else e // per_input]))
        padding = dilation * (kernel - 1) // 2
        y = functional.conv2d(x, leaves[inputs + k][e], None, stride, padding, dilation, groups=channels)
        expected.append(y.permute(0, 2, 3, 1))
    maps = [z[j % len(kinds)][j // len(kinds)] for j in range(count)]
    target = torch.stack(expected)
    require_close(torch.stack(maps), target.detach(), tolerance)
    wide = target.detach().double()
    require_close(sums[:, 0].double(), wide.sum(dim=(1, 2, 3)), tolerance * 10)
    require_close(sums[:, 1:].double().triu(), torch.einsum("nbhwc,nbhwd->ncd", wide, wide).triu(), tolerance)

    dy = [draw(*maps[0].shape, dtype=dtype) for _ in range(count)]
    matrices, slope, constant = (
        draw(count, *size, dtype=dtype) for size in ([channels] * 2, [channels] * 2, [channels])
    )
    owed = list(zip(dy, matrices.unbind(0)))
    target.backward(torch.stack([g @ m + y @ s + c for (g, m), y, s, c in zip(owed, maps, slope, constant)]))
    base = [draw(*image.shape, dtype=dtype) for image in images]
    dx = [x.clone() for x in base]
    given = (images, mix, z, owed, slope, constant)
    d_taps, d_mix = convolution.backward(*given, dx, not mixed, [True] * len(kinds))
    for found, start, x in zip(dx, base, read):
        require_close(found, x.grad + (0 if mixed else start), tolerance)
    for found, leaf in zip(d_taps, leaves[inputs:]):
        require_close(found, leaf.grad, tolerance)
    if mixed:
        require_close(d_mix[:, 1:].to(dtype), leaves[-2].grad, tolerance)
        require_close(d_mix[:, 0].to(dtype), leaves[-1].grad, tolerance)
    need = [k == 0 for k in range(len(kinds))]
    only, nothing = convolution.backward(*given, None, False, need)
    assert nothing is None
    assert [part is not None for part in only] == need
    require_close(only[0], leaves[inputs].grad, tolerance)


SHAPES = [  # batch, height, width, channels, kinds (kernel, dilation), edges per input, stride, mixed
    (2, 9, 13, 16, [(3, 1), (5, 1), (3, 2), (5, 2)], 2, 1, False),
    (3, 7, 7, 8, [(3, 1), (5, 1), (1, 1), (5, 2)], 1, 2, False),
    (2, 9, 8, 16, [(3, 1), (5, 1)], 1, 1, True),
    (1, 1, 1, 8, [(3, 2)], 3, 1, False),
    (2, 2, 3, 8, [(7, 1), (3, 1)], 1, 2, False),
    (2, 1, 21, 8, [(5, 1)], 1, 1, True),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_equal_one_at_a_time(backend, shape):
    torch.manual_seed(0)
    names = ("batch", "height", "width", "channels", "kinds", "per_input", "stride", "mixed")
    check_convolution(backend, **dict(zip(names, shape)), dtype=torch.float64, tolerance=1e-13)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_convolutions_of_random_shapes(data):
    torch.manual_seed(0)
    mixed = data.draw(st.booleans())
    check_convolution(
        CompiledKernels(Memory()),
        batch=data.draw(st.integers(1, 4)),
        height=data.draw(st.integers(1, 13)),
        width=data.draw(st.integers(1, 19)),
        channels=data.draw(st.sampled_from([8, 24])),
        kinds=data.draw(
            st.lists(st.sampled_from([(1, 1), (3, 1), (5, 1), (3, 2), (5, 2), (7, 1)]), min_size=1, max_size=3)
        ),
        per_input=data.draw(st.integers(1, 3)),
        stride=1 if mixed else data.draw(st.sampled_from([1, 2])),
        mixed=mixed,
        dtype=torch.float64,
        tolerance=1e-13,
    )


def test_convolutions_in_single_precision(backend):
    torch.manual_seed(0)
    names = ("batch", "height", "width", "channels", "kinds", "per_input", "stride", "mixed")
    check_convolution(backend, **dict(zip(names, SHAPES[0])), dtype=torch.float32, tolerance=2e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads, monkeypatch):
    """And without the OpenMP library: the same bits."""
    torch.manual_seed(0)
    images, taps = [draw(5, 6, 7, 8)], [draw(3, 8, 1, 5, 5)]
    convolution = CompiledKernels(Memory()).convolution(taps, [2], [0, 3], 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        z, sums = convolution.forward(images, None, True)
        sums = sums.clone()
        monkeypatch.setattr(parallel, "_launcher", lambda: parallel._on_python_threads)
        again, more = convolution.forward(images, None, True)
    finally:
        torch.set_num_threads(before)
    expected = functional.conv2d(
        functional.relu(nchw(images[0])), taps[0].flatten(0, 1)[:8], None, 1, 4, 2, groups=8
    ).permute(0, 2, 3, 1)
    require_close(z[0][0], expected, 1e-13)
    assert torch.equal(z[0], again[0])
    assert torch.equal(sums, more)


def test_nodes_equal_plain_sums(backend):
    torch.manual_seed(0)
    zs, xs = ([draw(2, 9, 17, 8) for _ in range(count)] for count in (5, 3))
    leaves = [tensor.requires_grad_() for tensor in (draw(5, 8, 8), draw(3, 8), draw(8))]
    matrices, scales, bias = leaves
    expected = sum(z @ m for z, m in zip(zs, matrices)) + sum(x * s for x, s in zip(xs, scales)) + bias
    stacks = (list(leaf.detach().split([2, 3 if leaf is matrices else 1])) for leaf in (matrices, scales))
    rights, parts = stacks
    require_close(backend.combine(zs, rights, xs, parts, bias.detach()), expected.detach())
    dy = draw(*expected.shape)
    expected.backward(dy)
    d_bias, d_scales, d_matrices = backend.combine_backward(zs, xs, dy)
    for found, leaf in ((d_bias, bias), (d_scales, scales), (d_matrices, matrices)):
        require_close(found, leaf.grad)
    only = backend.combine([], [], xs, [scales.detach()], bias.detach())
    require_close(only, sum(x * s for x, s in zip(xs, scales.detach())) + bias.detach())


@pytest.mark.parametrize("depths", [(8,), (16,), (8, 8), (8, 16)])
@pytest.mark.parametrize(("height", "width", "channels"), [(9, 17, 24), (8, 6, 8), (1, 1, 48)])
def test_pointwise_convolutions_equal_plain_ones(backend, height, width, channels, depths):
    """Of all pixels, or of the even and of the odd ones; with the gradient of a normalisation after them."""
    torch.manual_seed(0)
    nodes = [draw(2, height, width, channels).requires_grad_() for _ in range(3)]
    weights = [draw(3, depth, channels).requires_grad_() for depth in depths]
    x, parts, step = functional.relu(torch.cat(nodes, dim=3)), [], len(depths)
    for k, weight in enumerate(weights):
        padding = (0, 0, 0, step - 1, 0, step - 1)
        pixels = functional.pad(x, padding)[:, k::step, k::step][:, : -(-height // step), : -(-width // step)]
        parts.append(pixels @ weight.transpose(0, 1).flatten(1).t())
    expected = torch.cat(parts, dim=3)
    given = [x.detach() for x in nodes], [w.detach() for w in weights]
    y, sums = backend.pointwise(*given, True)
    require_close(y, expected.detach())
    require_close(sums[0], expected.detach().sum(dim=(0, 1, 2)))
    require_close(sums[1], (expected.detach() ** 2).sum(dim=(0, 1, 2)))
    assert backend.pointwise(*given, False)[1] is None
    dh, h, coefficients = draw(*y.shape), draw(*y.shape), draw(3, y.shape[3])
    expected.backward(coefficients[0] * dh + coefficients[1] * h + coefficients[2])
    d_nodes, d_weights = backend.pointwise_backward(*given, dh, h, coefficients, True, True)
    for found, leaf in zip((*d_nodes, *d_weights), (*nodes, *weights)):
        require_close(found, leaf.grad)
    assert backend.pointwise_backward(*given, dh, h, coefficients, False, False) == (None, None)
    for found, total in zip(backend.sums_with(dh, h), (dh, dh * h)):
        require_close(found, total.sum(dim=(0, 1, 2)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pools", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("ties", [False, True])
def test_pools_equal_plain_ones(backend, stride, pools, ties):
    """With ties, as on an even background, the first of equal maxima gets the gradient."""
    torch.manual_seed(0)
    images = [torch.randint(0, 3, (2, 9, 7, 8)).double() if ties else draw(2, 9, 7, 8) for _ in range(2)]
    leaves = [image.clone().requires_grad_() for image in images]
    x = torch.stack(leaves).flatten(0, 1)
    maxima = functional.max_pool2d(nchw(x), 3, stride, padding=1)
    averages = functional.avg_pool2d(nchw(x), 3, stride, padding=1, count_include_pad=False)
    expected = [y.permute(0, 2, 3, 1).unflatten(0, (2, -1)) for y in (maxima, averages)]
    found = [
        torch.full(y.shape, torch.nan, dtype=y.dtype) if wanted else None for y, wanted in zip(expected, pools)
    ]
    sums = backend.pool(images, stride, *found, True)
    for k, (own, target) in enumerate(zip(found, expected)):
        if own is not None:
            require_close(own, target.detach())
            require_close(sums[:, 2 * k], target.detach().sum(dim=(1, 2, 3)))
            require_close(sums[:, 2 * k + 1], (target.detach() ** 2).sum(dim=(1, 2, 3)))
    dys = [[draw(*expected[0].shape[1:]) for _ in range(3)] for _ in images]
    skip = stride == 1
    scales = [draw(2, 3, 8) if wanted else None for wanted in (*pools, skip)]
    slopes = draw(2, 4, 8)
    loss = 0
    for i, leaf in enumerate(leaves):
        for scale, y in zip(scales, (expected[0][i], expected[1][i], leaf)):
            if scale is not None:
                loss = loss + sum((dy * s * y).sum() for dy, s in zip(dys[i], scale[i]))
        for k, wanted in enumerate(pools):
            if wanted:
                y = expected[k][i]
                loss = loss + ((y.detach() * slopes[i, 2 * k] + slopes[i, 2 * k + 1]) * y).sum()
    if not skip and not any(pools):
        return  # nothing is read
    loss.backward()
    dx = [torch.full_like(image, torch.nan) for image in images]
    backend.pool_backward(images, stride, *found, dys, scales, slopes, dx)
    for own, leaf in zip(dx, leaves):
        require_close(own, leaf.grad)


@pytest.mark.parametrize("chances", [False, True])
def test_folded_normalisations_equal_plain_ones(backend, chances):
    """p * BN(W z) of some kinds of maps, and the gradients of W, of p and (through its moments) of z."""
    torch.manual_seed(0)
    kinds, first, last = 3, 1, 3  # maps j = e * kinds + k of two edges
    maps, p = draw(2, kinds, 50, 8), torch.rand(4).double().requires_grad_()
    z, weight = maps[:, first:last].flatten(0, 1).requires_grad_(), draw(4, 6, 8).requires_grad_()
    y = z @ weight.transpose(1, 2)
    variance, mean = torch.var_mean(y, dim=1, correction=0, keepdim=True)
    out = (y - mean) / (variance + 1e-3).sqrt() * (p[:, None, None] if chances else 1)
    change = draw(*out.shape)
    out.backward(change)
    every, count = maps.flatten(0, 1), torch.tensor([50.0], dtype=torch.float64)
    sums = torch.cat([every.sum(dim=1, keepdim=True), (every.transpose(1, 2) @ every).triu()], dim=1)
    with torch.no_grad():
        shares = torch.stack([sums * 0.25, sums * 0.75])
        of_z = backend.moments(shares, count, kinds, first, last)
        deviations = z - z.mean(dim=1, keepdim=True)
        require_close(of_z.mean, z.mean(dim=1))
        require_close(of_z.covariance, deviations.transpose(1, 2) @ deviations / 50)
        folded = backend.fold(weight.detach(), p.detach() if chances else None, of_z, 1e-3, torch.float64)
        require_close(z @ folded.right + folded.bias[:, None], out.detach())
        require_close(folded.matrix, folded.right.transpose(1, 2))
        require_close(folded.y_mean, mean[:, 0])
        require_close(folded.y_variance, variance[:, 0])
        d_right, d_bias = z.transpose(1, 2) @ change, draw(2, 6)
        found = backend.fold_backward(folded, d_right, change.sum(dim=1))
        require_close(found.weight, weight.grad)
        if chances:
            require_close(found.p, p.grad)
        slope, constant = torch.full((6, 8, 8), torch.nan).double(), torch.full((6, 8), torch.nan).double()
        backend.owe_moments(of_z, found.mean, found.covariance, slope, constant, kinds, first)
        own = [e * kinds + k for e in range(2) for k in range(first, last)]
        require_close(change @ folded.matrix + z @ slope[own] + constant[own, None], z.grad)
        assert torch.isnan(slope[::kinds]).all()
        shared = backend.fold_backward(folded, d_right, d_bias)  # by two products each
        apart = backend.fold_backward(folded, d_right, d_bias.repeat_interleave(2, dim=0))
        for name in ("weight", "p", "mean", "covariance"):
            require_close(getattr(shared, name), getattr(apart, name))
        given = folding.fold_given(weight.detach(), p.detach(), mean[:, 0], variance[:, 0], 1e-3, torch.float64)
        fixed = backend.fold_backward(given, d_right, d_bias)
        assert fixed.mean is None
        assert fixed.covariance is None


def test_memory_of_maps_is_used_again_only_when_nobody_reads_it():
    like, memory = torch.empty(0, dtype=torch.float32), Memory()
    first = memory.empty((512, 1031), like)
    view, address = first[3], first.data_ptr()
    assert address % 64 == 0
    del first
    gc.collect()
    assert memory.empty((512, 1031), like).data_ptr() != address  # the view still reads it
    del view
    gc.collect()
    assert address in {memory.empty((512, 1031), like).data_ptr() for _ in range(2)}
    small = memory.empty((3, 5), like)
    assert small.shape == (3, 5)
    assert small.is_contiguous()
    kept = [weakref.ref(block) for blocks in memory._idle.values() for block in blocks]
    lent = memory.empty((256, 1031), like)
    assert kept
    del memory  # while something is lent
    gc.collect()
    assert [block() for block in kept] == [None] * len(kept)
    lent.zero_()


def test_memory_that_is_laid_out_otherwise_is_refused():
    image = draw(2, 4, 4, 8).transpose(1, 2)
    with pytest.raises(AssertionError):
        CompiledKernels(Memory()).convolution([draw(1, 8, 1, 3, 3)], [1], [0, 1], 1).forward([image], None, False)
    task = Task(None, record("xs"))
    for values in ({"xs": np.zeros(3, dtype=np.float32)}, {"xs": np.zeros((3, 2), dtype=np.int64).T}, {}):
        with pytest.raises(AssertionError):
            parallel.run(task, 1, **values)
    with pytest.raises(KeyError):
        parallel.run(task, 1, ys=1)


def test_the_choice_of_kernels():
    backends = Backends()
    assert isinstance(backends.choose(draw(1)), CompiledKernels)
    assert backends.choose(draw(1).float()) is backends.compiled
    assert isinstance(backends.choose(draw(1).bfloat16()), TorchKernels)
    assert backends.choose(torch.empty(1, device="meta")) is backends.pytorch


def test_backends_offer_what_is_written_and_no_more(backend):
    """Names, arguments and types, of the kernels and of their convolutions."""
    convolution = backend.convolution([draw(1, 8, 1, 3, 3)], [1], [0, 1], 1)
    for found, written in ((backend, contract.Kernels), (convolution, contract.Convolution)):
        names = [name for name in vars(written) if not name.startswith("_")]
        assert sorted(names) == sorted(name for name in dir(found) if not name.startswith("_"))
        for name in names:
            method = getattr(written, name)
            assert method.__doc__, name
            expected = inspect.signature(method)
            others = [parameter for parameter in expected.parameters.values() if parameter.name != "self"]
            assert inspect.signature(getattr(found, name)) == expected.replace(parameters=others), name


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("stride", [1, 2])
def test_either_layout_gives_the_same(layout, stride):
    torch.manual_seed(0)
    x, weight = draw(2, 8, 9, 7).to(memory_format=torch.channels_last), draw(8, 1, 5, 5)
    settings = [stride] * 2, [4, 4], [2, 2]
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = functional.conv2d(*leaves, None, *settings, groups=8)
    y = layouts.convolve(x, weight, settings, layout)
    require_close(y, expected.detach())
    assert y.is_contiguous(memory_format=torch.channels_last)
    dy = draw(*y.shape)
    expected.backward(dy)
    dx, d_weight, _ = layouts.convolve_backward(dy, x, weight, settings, layout, [True, True, False])
    require_close(dx, leaves[0].grad)
    require_close(d_weight, leaves[1].grad)
    assert dx.is_contiguous(memory_format=torch.channels_last)
    assert layouts.convolve_backward(dy, x, weight, settings, layout, [False, True, False])[0] is None


def test_the_faster_layout_is_chosen_by_measurement(monkeypatch):
    """The one whose pass took less, whichever it is."""
    x, weight, settings = draw(1, 8, 4, 4).to(memory_format=torch.channels_last), draw(8, 1, 3, 3), ([1] * 2,) * 3
    ran = []
    plain = layouts.convolve

    def watched(x, weight, settings, layout):
        ran.append(layout)
        return plain(x, weight, settings, layout)

    monkeypatch.setattr(layouts, "convolve", watched)
    for fast in layouts._LAYOUTS:

        def seconds(action, device, fast=fast):
            action()
            return 1.0 if ran[-1] == fast else 2.0

        with monkeypatch.context() as patch:
            patch.setattr(layouts, "_seconds", seconds)
            assert layouts.choose(x, weight, settings) == fast
    assert layouts.choose(x, weight, settings) in layouts._LAYOUTS
    assert layouts.Layouts().fastest(x, weight, settings) == torch.channels_last  # nothing to choose on a CPU


def test_without_a_folder_for_compiled_code():
    """Where all folders are read-only, kernels are compiled in each process."""
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from nge_search.tables.tfrecord import _crc32c, masked_crc32c\n"
        "import numpy as np\n"
        "print(masked_crc32c(np.zeros(32, np.uint8)), _crc32c.stats.cache_path)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    checksum = masked_crc32c(np.zeros(32, np.uint8))
    assert ended.stdout == f"{checksum} None\n"
    assert Path(_crc32c.stats.cache_path).is_dir()
