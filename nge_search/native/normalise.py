"""Batch normalisation on a CPU, compiled: what `fast_forms.normalise` hands tensors to by address.

A map [B, H, W, C] in memory is a row of numbers that repeats every C. All loops run over groups of positions, so
that they stay long where C is small or no multiple of a vector register; PyTorch's own kernels take 3 to 6 times as
long for 36 channels. Sums over more than a chunk of groups are kept in float64, and per thread.

Rows [ROWS, groups of C] hold what differs by channel, repeated over a group: SCALE and BIAS of the result,
MEAN, SLOPE and CONSTANT of the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray

from nge_search.native import compiled
from nge_search.native.compiled import Task, record
from nge_search.native.threads import array, take_share

#: Positions in a group: 16 of 36 channels are 576 numbers, which the first cache holds several times.
GROUP = 16
ROWS = 5
SCALE, BIAS, MEAN, SLOPE, CONSTANT = range(ROWS)
_CHUNK = 64  # groups that are summed in the map's own precision
_part = compiled.part(error_model="numpy", fastmath={"contract", "nsz"}, boundscheck=False)


def _task(dtype: np.dtype, *fields: str) -> Callable[[Callable[[Any], None]], Task]:
    return compiled.task(record(*fields), f"compiling CPU kernels for normalisation in {dtype}: once, some 3 s")


@_part
def _sum_group(x, shift, first, second):
    for j in range(len(x)):
        d = x[j] - shift[j]
        first[j] += d
        second[j] += d * d


@_part
def _sum_changes(x, dy, rows, factor, rectify, first, second):
    scale, bias, mean, zero = rows[SCALE], rows[BIAS], rows[MEAN], x.dtype.type(0)
    if rectify:
        for j in range(len(x)):
            g = dy[j] if x[j] * scale[j] + bias[j] > zero else zero
            first[j] += g
            second[j] += g * (x[j] - mean[j])
    else:
        for j in range(len(x)):
            g = factor * dy[j]
            first[j] += g
            second[j] += g * (x[j] - mean[j])


@_part
def _flush(first, second, sums):
    """Move the sums of a group of positions to sums [2, C]."""
    channels = sums.shape[1]
    for at in range(0, len(first), channels):
        for c in range(channels):
            sums[0, c] += first[at + c]
            sums[1, c] += second[at + c]
    first[:] = 0
    second[:] = 0


@_part
def _apply(x, rows, factor, rectify, addend, y):
    scale, bias, zero = rows[SCALE], rows[BIAS], x.dtype.type(0)
    if rectify:
        for j in range(len(x)):
            y[j] = max(x[j] * scale[j] + bias[j], zero)
    elif len(addend):
        for j in range(len(x)):
            y[j] = addend[j] + factor * (x[j] * scale[j] + bias[j])
    else:
        for j in range(len(x)):
            y[j] = factor * (x[j] * scale[j] + bias[j])


@_part
def _apply_backward(x, dy, rows, factor, rectify, dx):
    scale, bias, mean, zero = rows[SCALE], rows[BIAS], rows[MEAN], x.dtype.type(0)
    slope, constant = rows[SLOPE], rows[CONSTANT]
    if rectify:
        for j in range(len(x)):
            g = dy[j] if x[j] * scale[j] + bias[j] > zero else zero
            dx[j] = scale[j] * g + slope[j] * (x[j] - mean[j]) + constant[j]
    else:
        for j in range(len(x)):
            dx[j] = scale[j] * (factor * dy[j]) + slope[j] * (x[j] - mean[j]) + constant[j]


@functools.cache
def moments(dtype: np.dtype) -> Task:
    """Sums of x - x[0] and of its square, where x[0] is the first position: near enough to the mean that sums of
    squares keep their digits.

    The task's fields: count: positions; channels; and addresses: x, sums [shares, 2, C].
    """

    @_task(dtype, "count", "channels", "x", "sums")
    def compute(block):
        a = carray(block, 1)[0]
        shares, count, channels = a.shares, a.count, a.channels
        width = GROUP * channels
        x, sums = array(a.x, count * channels, dtype), array(a.sums, (shares, 2, channels), np.float64)
        shift, first, second = np.empty(width, dtype), np.zeros(width, dtype), np.zeros(width, dtype)
        for j in range(width):
            shift[j] = x[j % channels]
        share = take_share(block)
        while share < shares:
            at, stop, done = share * count // shares * channels, (share + 1) * count // shares * channels, 0
            while at < stop:
                n = min(width, stop - at)
                _sum_group(x[at : at + n], shift, first, second)
                at, done = at + n, done + 1
                if done % _CHUNK == 0:
                    _flush(first, second, sums[share])
            _flush(first, second, sums[share])
            share = take_share(block)

    return compute


@functools.cache
def forward(dtype: np.dtype) -> Task:
    """y = addend + factor * (x * scale + bias), or without an addend; or the positive part of x * scale + bias.

    The task's fields: images; count: positions of each; channels; rectify; added: whether there is an addend; and
    addresses: x, rows, factors [images], addend, y.
    """

    @_task(dtype, "images", "count", "channels", "rectify", "added", "x", "rows", "factors", "addend", "y")
    def compute(block):
        a = carray(block, 1)[0]
        shares, images, count, channels = a.shares, a.images, a.count, a.channels
        width, size = GROUP * channels, count * channels
        x, y = array(a.x, images * size, dtype), array(a.y, images * size, dtype)
        rows, factors = array(a.rows, (ROWS, width), dtype), array(a.factors, images, dtype)
        addend = array(a.addend, images * size if a.added else 0, dtype)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                at, stop = image * size, (image + 1) * size
                while at < stop:
                    end = min(at + width, stop)
                    more = addend[at:end] if a.added else addend
                    _apply(x[at:end], rows, factors[image], a.rectify, more, y[at:end])
                    at = end
            share = take_share(block)

    return compute


@functools.cache
def changes(dtype: np.dtype) -> Task:
    """Sums of g and of g * (x - mean), where g = factor * dy, or dy where the result was positive.

    The task's fields: images; count: positions of each; channels; rectify; and addresses: x, rows, factors, dy,
    sums.
    """

    @_task(dtype, "images", "count", "channels", "rectify", "x", "rows", "factors", "dy", "sums")
    def compute(block):
        a = carray(block, 1)[0]
        shares, images, count, channels = a.shares, a.images, a.count, a.channels
        width, size = GROUP * channels, count * channels
        x, dy = array(a.x, images * size, dtype), array(a.dy, images * size, dtype)
        rows, factors = array(a.rows, (ROWS, width), dtype), array(a.factors, images, dtype)
        sums = array(a.sums, (shares, 2, channels), np.float64)
        first, second = np.zeros(width, dtype), np.zeros(width, dtype)
        share = take_share(block)
        while share < shares:
            done = 0
            for image in range(share * images // shares, (share + 1) * images // shares):
                at, stop = image * size, (image + 1) * size
                while at < stop:
                    end = min(at + width, stop)
                    _sum_changes(x[at:end], dy[at:end], rows, factors[image], a.rectify, first, second)
                    at, done = end, done + 1
                    if done % _CHUNK == 0:
                        _flush(first, second, sums[share])
            _flush(first, second, sums[share])
            share = take_share(block)

    return compute


@functools.cache
def backward(dtype: np.dtype) -> Task:
    """dx = scale * g + slope * (x - mean) + constant, with g as in `changes`.

    The task's fields: images; count: positions of each; channels; rectify; and addresses: x, rows, factors, dy, dx.
    """

    @_task(dtype, "images", "count", "channels", "rectify", "x", "rows", "factors", "dy", "dx")
    def compute(block):
        a = carray(block, 1)[0]
        shares, images, count, channels = a.shares, a.images, a.count, a.channels
        width, size = GROUP * channels, count * channels
        x, dy, dx = (
            array(a.x, images * size, dtype),
            array(a.dy, images * size, dtype),
            array(a.dx, images * size, dtype),
        )
        rows, factors = array(a.rows, (ROWS, width), dtype), array(a.factors, images, dtype)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                at, stop = image * size, (image + 1) * size
                while at < stop:
                    end = min(at + width, stop)
                    _apply_backward(x[at:end], dy[at:end], rows, factors[image], a.rectify, dx[at:end])
                    at = end
            share = take_share(block)

    return compute


@compiled.loop(error_model="numpy")
def describe(sums, count, x, weight, bias, eps, momentum, running_mean, running_var, facts, rows):
    """From what `moments` summed to SCALE, BIAS and MEAN; moves the running statistics.

    Args:
        x: the first position, [C].
        facts: [2, C] in float64, written: the inverse deviation, and the scale.
    """
    channels = len(weight)
    for c in range(channels):
        first, second = sums[:, 0, c].sum() / count, sums[:, 1, c].sum() / count
        mean, variance = x[c] + first, max(second - first * first, 0.0)
        inverse = 1 / np.sqrt(variance + eps)
        scale = weight[c] * inverse
        facts[0, c], facts[1, c] = inverse, scale
        running_mean[c] += momentum * (mean - running_mean[c])
        running_var[c] += momentum * (variance * count / (count - 1) - running_var[c])
        for at in range(c, rows.shape[1], channels):
            rows[SCALE, at], rows[BIAS, at], rows[MEAN, at] = scale, bias[c] - mean * scale, mean


@compiled.loop(error_model="numpy")
def describe_backward(sums, count, facts, d_weight, d_bias, rows):
    """From what `changes` summed to the gradients of weight and bias [C], and to SLOPE and CONSTANT."""
    channels = len(d_weight)
    for c in range(channels):
        total, product = sums[:, 0, c].sum(), sums[:, 1, c].sum()
        inverse, scale = facts[0, c], facts[1, c]
        d_weight[c], d_bias[c] = product * inverse, total
        slope, constant = -scale * inverse * inverse * product / count, -scale * total / count
        for at in range(c, rows.shape[1], channels):
            rows[SLOPE, at], rows[CONSTANT, at] = slope, constant
