"""The operations of `contract` on a CPU, for float32 and float64: tensors handed to `cpu` by address."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
from llvmlite import binding
from torch import Tensor

from nge_search.native.simd import Strip
from nge_search.native.threads import run
from nge_search.supernet import folding
from nge_search.supernet.folding import Folded, FoldGradients, Moments
from nge_search.supernet.kernels import cpu
from nge_search.supernet.kernels.memory import empty

_POSITIONS = 8  # sums kept in registers at a time: enough to hide the latency of an addition
_NONE = np.zeros(0, dtype=np.int64)

Mix = tuple[Tensor, Tensor]


@functools.cache
def _register_bytes() -> int:
    """Of the widest vector registers of this CPU."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


_strips: set[Strip] = set()  # that kernels are compiled for


def _strip(x: Tensor, *more_channels: int) -> Strip:
    """Blocks of as many channels as fit in a register and divide x's (and other numbers of) channels.

    Compiling takes some 12 s for each strip: a block that is in use already and fills half a register will do.
    """
    size = x.element_size()
    widest = _register_bytes() // size
    counts = x.shape[-1], *more_channels
    possible = [n for n in (16, 8, 4, 2, 1) if n <= widest and not any(count % n for count in counts)]
    strips = [Strip(n, _POSITIONS, 8 * size) for n in possible]
    strip = next((s for s in strips if 2 * s.channels >= widest and s in _strips), strips[0])
    _strips.add(strip)
    return strip


class _Scratch(threading.local):
    """Memory that calls use and leave; every calling thread has its own."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def words(self, size: int, shares: int) -> tuple[int, int]:
        """Address, and bytes for each share, at least `size`; both aligned to cache lines."""
        size = -(-size // 64) * 64
        if self._memory.numel() < size * shares + 64:
            self._memory = torch.empty(size * shares + 64, dtype=torch.uint8)
        return -(-self._memory.data_ptr() // 64) * 64, size


class _Sums(threading.local):
    """Sums of each share, apart, in memory that the next call uses again; every calling thread has its own."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.float64)

    def zeros(self, *shape: int) -> Tensor:
        count = math.prod(shape)
        if self._memory.numel() < count:
            self._memory = torch.empty(count, dtype=torch.float64)
        return self._memory[:count].zero_().view(shape)

    def wanted(self, wanted: bool, shares: int, *shape: int) -> tuple[Tensor, np.ndarray]:
        """Zeros for each share, and their addresses; if they are not wanted none, and zeros for addresses."""
        sums = self.zeros(shares if wanted else 0, *shape)
        return sums, _rows(sums) if wanted else np.zeros(shares, dtype=np.int64)


_scratch = _Scratch()
_sums = _Sums()


def _addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def _rows(tensor: Tensor, dimensions: int = 1) -> np.ndarray:
    """Addresses of the entries of a contiguous tensor's first dimensions."""
    assert tensor.is_contiguous()
    shape = tuple(tensor.shape[:dimensions])
    size = math.prod(tensor.shape[dimensions:]) * tensor.element_size()
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape) * size + tensor.data_ptr()


def _dense(images: Sequence[Tensor]) -> Sequence[Tensor]:
    assert all(image.is_contiguous() for image in images), [image.stride() for image in images]
    return images


class Convolution:
    """Kernels by their taps, and where each reads: what `convolve` and its gradient share.

    Args:
        weights: per kind [E, C, 1, K, K]; output j = e * kinds + k.
        dilations: per kind.
        first: input i serves outputs first[i] to first[i + 1] - 1.
    """

    def __init__(self, weights: Sequence[Tensor], dilations: Sequence[int], first: Sequence[int], stride: int):
        edges = len(weights[0])
        self.taps = [w.detach().flatten(2).transpose(1, 2).contiguous() for w in weights]
        self.ws = np.stack([_rows(taps) for taps in self.taps], axis=1).reshape(-1)
        self.kernels = [w.shape[-1] for w in weights]
        self.kinds = np.tile(np.array(list(zip(self.kernels, dilations)), dtype=np.int64), (edges, 1))
        self.first = np.array(first, dtype=np.int64)
        self.stride = stride
        self.border = max(d * (k - 1) // 2 for k, d in zip(self.kernels, dilations))

    def _common(self, images: Sequence[Tensor]) -> tuple:
        x = _dense(images)[0]
        strip, threads, shape = _strip(x), torch.get_num_threads(), tuple(x.shape)
        size = cpu.scratch_bytes(strip, shape, self.stride, self.border, max(self.kernels))
        return strip, threads, (*_scratch.words(size, threads), *shape, self.stride, self.border)

    def _words(self, images: Sequence[Tensor], mix: Mix | None, z: Sequence[Tensor]) -> tuple:
        addresses = _addresses(images), int(mix is not None), _mix(mix)
        return len(images), len(self.ws), *addresses, self.ws, self.kinds, self.first, self._maps(z)

    def _maps(self, z: Sequence[Tensor]) -> np.ndarray:
        return np.stack([_rows(part) for part in z], axis=1).reshape(-1)

    def forward(
        self, images: Sequence[Tensor], mix: Mix | None, observe: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The maps, per kind [E, B, H', W', C], and if observed sums [shares, E * kinds, 1 + C, C] of z and z z^T.

        Of the latter only the upper triangle is valid; all is overwritten by the next call.

        Args:
            mix: matrices [I, C_in, C_out] and biases [I, C_out]; input i is image i times its matrix, plus bias.
        """
        (strip, threads, common), (batch, height, width, channels) = self._common(images), images[0].shape
        edges = len(self.taps[0])
        shape = (
            len(self.taps),
            edges,
            batch,
            (height - 1) // self.stride + 1,
            (width - 1) // self.stride + 1,
            channels,
        )
        z = list(empty(shape, images[0]).unbind(0))
        count = edges * len(self.taps)
        sums, targets = _sums.wanted(observe, threads, count, channels + 1, channels)
        run(cpu.convolve(strip), threads, *common, *self._words(images, mix, z), targets)
        return z, sums if observe else None

    def backward(
        self,
        images: Sequence[Tensor],
        mix: Mix | None,
        z: Sequence[Tensor],
        owed: Sequence[tuple[Tensor, Tensor]],
        slope: Tensor | None,
        constant: Tensor,
        dx: Sequence[Tensor] | None,
        accumulate: bool,
        need_weights: Sequence[bool],
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """Gradients of the weights that need them, and with dx, which receives the inputs', of mix [I, 1 + C, C].

        Args:
            owed: per map j (dy, matrix [C_out, C_in]): its gradient is dy @ matrix + z_j @ slope[j] + constant[j].
        """
        (strip, threads, common), channels = self._common(images), images[0].shape[3]
        edges = len(self.taps[0])
        slopes = np.zeros((len(owed), 3), dtype=np.int64)
        slopes[:, 0] = _addresses([matrix for _, matrix in owed])
        if slope is not None:
            slopes[:, 1] = _rows(slope)
        slopes[:, 2] = _rows(constant)
        areas = [kernel**2 * channels * need for kernel, need in zip(self.kernels, need_weights)]
        weights = edges * sum(areas)
        mixing = (len(images), channels + 1, channels) if mix is not None and dx is not None else (0, 0, 0)
        sums = _sums.zeros(threads, weights + math.prod(mixing))
        dw, dmix = sums[:, :weights], sums[:, weights:].unflatten(1, mixing)
        starts = np.cumsum([0, *areas])[:-1] * edges
        places = 8 * (starts + np.arange(edges)[:, None] * np.array(areas)).reshape(-1)
        wanted = np.tile(np.array(need_weights, dtype=bool), edges)
        dws = np.where(wanted, sums.data_ptr() + 8 * sums.stride(0) * np.arange(threads)[:, None] + places, 0)
        mixes = np.arange(mixing[0]) * mixing[1] * mixing[2] + weights
        mixes = sums.data_ptr() + 8 * (sums.stride(0) * np.arange(threads)[:, None] + mixes)
        dys = _addresses(_dense([dy for dy, _ in owed]))
        dxs = _NONE if dx is None else _addresses(_dense(dx))
        words = (
            *common,
            *self._words(images, mix, z),
            dys,
            slopes,
            int(dx is not None),
            dxs,
            dws,
            mixes,
            int(accumulate),
        )
        run(cpu.convolve_backward(strip), threads, *words)
        parts = dw.sum(dim=0).to(images[0].dtype).split([edges * area for area in areas])
        d_weights = [
            part.view(edges, -1, channels).transpose(1, 2).reshape(edges, channels, 1, kernel, kernel)
            if need
            else None
            for part, kernel, need in zip(parts, self.kernels, need_weights)
        ]
        return d_weights, _total(dmix) if mixing[0] else None


def _mix(mix: Mix | None) -> np.ndarray:
    return np.zeros((0, 2), dtype=np.int64) if mix is None else np.stack([_rows(part) for part in mix], axis=1)


def _each(stacks: Sequence[Tensor]) -> np.ndarray:
    """Addresses of all entries of all stacks."""
    return np.concatenate([_NONE, *(_rows(stack) for stack in stacks)])


def combine(
    zs: Sequence[Tensor], rights: Sequence[Tensor], xs: Sequence[Tensor], scales: Sequence[Tensor], bias: Tensor
) -> Tensor:
    """bias [C] + sum of zs [B, H, W, C] times matrices [C_in, C_out] + sum of xs times scales [C].

    The matrices come in stacks, one after another, and so do scales.
    """
    first = (*zs, *xs)[0]
    batch, height, width, channels = first.shape
    out = empty(first.shape, first)
    run(
        cpu.combine(_strip(first)), torch.get_num_threads(), batch, height * width, channels, len(zs),
        len(xs), _addresses(_dense(zs)), _each(rights), _addresses(_dense(xs)), _each(scales),
        bias.data_ptr(), out.data_ptr(),
    )  # fmt: skip
    return out


def combine_backward(zs: Sequence[Tensor], xs: Sequence[Tensor], dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of bias [C], scales [D, C] and matrices [T, C_in, C_out]."""
    batch, height, width, channels = _dense([dy])[0].shape
    threads, strip = torch.get_num_threads(), _strip(dy)
    sums = _sums.zeros(threads, 1 + len(xs) + len(zs) * channels, channels)
    scratch = _scratch.words((channels + 1) * strip.channels * dy.element_size(), threads)
    run(
        cpu.combine_backward(strip), threads, *scratch, batch, height * width, channels, len(zs),
        len(xs), _addresses(_dense(zs)), _addresses(_dense(xs)), dy.data_ptr(), _rows(sums),
    )  # fmt: skip
    total = _total(sums)
    return total[0], total[1 : 1 + len(xs)], total[1 + len(xs) :].view(len(zs), channels, channels)


def _total(sums: Tensor) -> Tensor:
    """The sum over shares, in memory of its own."""
    return torch.sum(sums, dim=0, out=empty(sums.shape[1:], sums))


def _preprocessing(nodes: Sequence[Tensor], depths: Sequence[int]) -> tuple:
    """Strip, threads, and the words that both passes of a pointwise convolution begin with."""
    batch, height, width, channels = _dense(nodes)[0].shape
    threads, strip = torch.get_num_threads(), _strip(nodes[0], *depths)
    numbers = cpu.CHUNK * (channels + max(depths)) + (channels + 2) * strip.channels
    scratch = _scratch.words(numbers * nodes[0].element_size(), threads)
    shape = batch, height, width, channels, len(nodes), len(depths)
    return strip, threads, (*scratch, *shape, _addresses(nodes), np.array(depths, dtype=np.int64))


def pointwise(nodes: Sequence[Tensor], weights: Sequence[Tensor], observe: bool) -> tuple[Tensor, Tensor | None]:
    """Sum over nodes [B, H, W, C_in] of their ReLU times a weight, and if observed the result's sums [2, C_out].

    Args:
        weights: one [nodes, C_out, C_in], for all pixels, or two, for the pixels with even coordinates and those
            with odd ones (zeros beyond the border), whose results are concatenated.

    Returns:
        [B, H', W', C_out], and its sum and that of its squares.
    """
    depths, halves = [weight.shape[1] for weight in weights], len(weights)
    strip, threads, words = _preprocessing(nodes, depths)
    batch, height, width, _ = nodes[0].shape
    out = empty((batch, (height - 1) // halves + 1, (width - 1) // halves + 1, sum(depths)), nodes[0])
    sums, targets = _sums.wanted(observe, threads, 2, sum(depths))
    rights = [weight.transpose(1, 2).contiguous() for weight in weights]
    run(cpu.pointwise(strip), threads, *words, _each(rights), out.data_ptr(), targets)
    return out, sums.sum(dim=0) if observe else None


def sums_with(dh: Tensor, h: Tensor) -> Tensor:
    """Sums [2, C] over positions of dh and of dh * h, [B, H, W, C]."""
    batch, height, width, channels = _dense([dh, h])[0].shape
    threads = torch.get_num_threads()
    sums = _sums.zeros(threads, 2, channels)
    words = batch, height * width, channels, dh.data_ptr(), h.data_ptr(), _rows(sums)
    run(cpu.sums_with(_strip(dh)), threads, *words)
    return sums.sum(dim=0)


def pointwise_backward(
    nodes: Sequence[Tensor],
    weights: Sequence[Tensor],
    dh: Tensor,
    h: Tensor,
    coefficients: Tensor,
    need_nodes: bool,
    need_weights: bool,
) -> tuple[list[Tensor] | None, list[Tensor] | None]:
    """Gradients of `pointwise`, where that of its result is a * dh + b * h + c for rows a, b, c of coefficients.

    Returns:
        Those of the nodes, and of the weights, where they are needed.
    """
    depths, channels = [weight.shape[1] for weight in weights], nodes[0].shape[-1]
    strip, threads, words = _preprocessing(nodes, depths)
    sums, targets = _sums.wanted(need_weights, threads, len(nodes) * channels * sum(depths))
    dx = [empty(node.shape, node) for node in nodes] if need_nodes else None
    run(
        cpu.pointwise_backward(strip), threads, *words, _each(weights), *_addresses(_dense([dh, h])),
        coefficients.data_ptr(), int(need_nodes), _NONE if dx is None else _addresses(dx), targets,
    )  # fmt: skip
    if not need_weights:
        return dx, None
    found = sums.sum(dim=0).split([len(nodes) * channels * depth for depth in depths])
    return dx, [part.view(len(nodes), channels, -1).transpose(1, 2) for part in found]


def pool(
    images: Sequence[Tensor], stride: int, maxima: Tensor | None, averages: Tensor | None, observe: bool
) -> Tensor | None:
    threads = torch.get_num_threads()
    sums, targets = _sums.wanted(observe, threads, len(images), 4, images[0].shape[3])
    run(cpu.pool(_strip(images[0])), threads, *_pooling(images, stride, maxima, averages), targets)
    return sums.sum(dim=0) if observe else None


def pool_backward(
    images: Sequence[Tensor],
    stride: int,
    maxima: Tensor | None,
    averages: Tensor | None,
    dys: Sequence[Sequence[Tensor]],
    scales: Sequence[Tensor | None],
    slopes: Tensor,
    dx: Sequence[Tensor],
) -> None:
    addresses = np.stack([_addresses(_dense(own)) for own in dys])
    words: list[int | np.ndarray] = [addresses.shape[1], addresses]
    for scale in scales:
        words += [int(scale is not None), _NONE if scale is None else _rows(scale, 2)]
    run(
        cpu.pool_backward(_strip(dx[0])), torch.get_num_threads(),
        *_pooling(images, stride, maxima, averages), *words, _rows(slopes, 2), _addresses(_dense(dx)),
    )  # fmt: skip


def _pooling(images: Sequence[Tensor], stride: int, maxima: Tensor | None, averages: Tensor | None) -> tuple:
    """The words that both passes of pooling begin with."""
    counts = [0 if pooled is None else len(pooled) for pooled in (maxima, averages)]
    targets = [_NONE if pooled is None else _rows(pooled) for pooled in (maxima, averages)]
    return *images[0].shape, stride, len(images), *counts, _addresses(_dense(images)), *targets


def moments(sums: Tensor, count: Tensor, kinds: int, first: int, last: int) -> Moments:
    """`folding.moments`."""
    _, maps, _, channels = sums.shape
    found = maps // kinds * (last - first)
    mean, covariance = empty((found, channels), sums), empty((found, channels, channels), sums)
    cpu.moment_rows(*_arrays(sums, count), kinds, first, last, *_arrays(mean, covariance))
    return Moments(mean, covariance, count)


def fold(weight: Tensor, p: Tensor | None, of_z: Moments, eps: float, dtype: torch.dtype) -> Folded:
    """`folding.fold`: one pass over each matrix, after MKL's products."""
    products, outputs, inputs = weight.shape
    like = weight.new_empty(0, dtype=dtype)
    product = torch.bmm(weight, of_z.covariance, out=empty(weight.shape, weight))
    matrix, right = empty(weight.shape, like), empty((products, inputs, outputs), like)
    y_mean, y_variance, deviation, bias = torch.empty(4, products, outputs, dtype=torch.float64).unbind(0)
    chances = weight.new_ones(products) if p is None else p
    given = _arrays(weight, chances, of_z.mean, product)
    cpu.fold_rows(*given, eps, *_arrays(y_mean, y_variance, deviation, matrix, right, bias))
    return Folded(weight, p, of_z.mean, product, y_mean, y_variance, deviation, matrix, right, bias)


def fold_backward(folded: Folded, d_right: Tensor, d_bias: Tensor) -> FoldGradients:
    """`folding.fold_backward`."""
    weight, mean, product = folded.weight, folded.mean, folded.product
    if mean is None or product is None:
        return folding.fold_backward(folded, d_right, d_bias)
    d_weight, d_product = empty(weight.shape, weight), empty(weight.shape, weight)
    d_p, d_mean = weight.new_empty(len(weight)), torch.empty_like(mean)
    chances = weight.new_ones(len(weight)) if folded.p is None else folded.p
    given = _arrays(weight, chances, mean, product, folded.y_mean, folded.deviation, d_right, d_bias)
    cpu.unfold_rows(*given, *_arrays(d_weight, d_p, d_mean, d_product))
    d_covariance = empty((len(weight), weight.shape[2], weight.shape[2]), weight)
    torch.bmm(weight.transpose(1, 2), d_product, out=d_covariance)
    return FoldGradients(d_weight, d_p, d_mean, d_covariance)


def owe_moments(
    of_z: Moments, d_mean: Tensor, d_covariance: Tensor, slope: Tensor, constant: Tensor, kinds: int, first: int
) -> None:
    """`folding.owe_moments`."""
    given = _arrays(of_z.mean, of_z.count, d_mean, d_covariance)
    cpu.owe_rows(*given, kinds, first, *_arrays(slope, constant))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy() for tensor in tensors]
