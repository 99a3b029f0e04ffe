"""Batch normalisation on a CPU, compiled: what `layers.normalise` hands tensors to by address.

A map [B, H, W, C] in memory is a row of numbers that repeats every C. All loops run over groups of positions, so
that they stay long where C is small or no multiple of a vector register; PyTorch's own kernels take 3 to 6 times as
long for 36 channels. Sums over more than a chunk of groups are kept in float64, and per thread.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types

from nge_search.engine.parallel import BLOCK, CACHED, pointer, take_share

#: Positions in a group: 16 of 36 channels are 576 numbers, which the first cache holds several times.
GROUP = 16
_CHUNK = 64  # groups that are summed in the map's own precision
_loop = njit(cache=CACHED, error_model="numpy", fastmath={"contract", "nsz"}, boundscheck=False)
_task = functools.partial(cfunc, types.void(BLOCK), cache=CACHED, error_model="numpy")


@_loop
def _sum_group(x, shift, first, second):  # type: ignore[no-untyped-def]
    for j in range(len(shift)):
        d = x[j] - shift[j]
        first[j] += d
        second[j] += d * d


@_loop
def _sum_changes(x, dy, scale, bias, shift, rectify, first, second):  # type: ignore[no-untyped-def]
    """Sums of dy and dy * (x - shift); where `rectify`, of dy only where the result was positive."""
    zero = x.dtype.type(0)
    if rectify:
        for j in range(len(shift)):
            g = dy[j] if x[j] * scale[j] + bias[j] > zero else zero
            first[j] += g
            second[j] += g * (x[j] - shift[j])
    else:
        for j in range(len(shift)):
            first[j] += dy[j]
            second[j] += dy[j] * (x[j] - shift[j])


@_loop
def _flush(first, second, sums, channels):  # type: ignore[no-untyped-def]
    for j in range(len(first)):
        sums[0, j % channels] += first[j]
        sums[1, j % channels] += second[j]
    first[:] = 0
    second[:] = 0


@_loop
def moments_of(x, begin, end, channels, shift, sums):  # type: ignore[no-untyped-def]
    """Add to sums [2, C] those of x - shift and of its square, over positions begin to end - 1."""
    width = len(shift)
    first, second = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    at, stop, done = begin * channels, end * channels, 0
    while at < stop:
        n = min(width, stop - at)
        _sum_group(x[at : at + n], shift[:n], first, second)
        at, done = at + n, done + 1
        if done % _CHUNK == 0:
            _flush(first, second, sums, channels)
    _flush(first, second, sums, channels)


@_loop
def changes_of(x, dy, begin, end, channels, scale, bias, shift, rectify, sums):  # type: ignore[no-untyped-def]
    """Add to sums [2, C] those of dy and of dy * (x - shift), over positions begin to end - 1."""
    width = len(shift)
    first, second = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    at, stop, done = begin * channels, end * channels, 0
    while at < stop:
        n = min(width, stop - at)
        _sum_changes(x[at : at + n], dy[at : at + n], scale[:n], bias[:n], shift[:n], rectify, first, second)
        at, done = at + n, done + 1
        if done % _CHUNK == 0:
            _flush(first, second, sums, channels)
    _flush(first, second, sums, channels)


@_loop
def apply(x, begin, end, channels, scale, bias, rectify, y):  # type: ignore[no-untyped-def]
    """y = x * scale + bias, and its positive part where `rectify`."""
    width, zero = len(scale), x.dtype.type(0)
    at, stop = begin * channels, end * channels
    while at < stop:
        n = min(width, stop - at)
        source, target = x[at : at + n], y[at : at + n]
        if rectify:
            for j in range(n):
                target[j] = max(source[j] * scale[j] + bias[j], zero)
        else:
            for j in range(n):
                target[j] = source[j] * scale[j] + bias[j]
        at += n


@_loop
def apply_backward(  # type: ignore[no-untyped-def]
    x, dy, begin, end, channels, scale, bias, shift, slope, constant, rectify, dx
):
    """dx = scale * dy + slope * (x - shift) + constant; where `rectify`, dy only where the result was positive."""
    width, zero = len(scale), x.dtype.type(0)
    at, stop = begin * channels, end * channels
    while at < stop:
        n = min(width, stop - at)
        source, change, target = x[at : at + n], dy[at : at + n], dx[at : at + n]
        if rectify:
            for j in range(n):
                g = change[j] if source[j] * scale[j] + bias[j] > zero else zero
                target[j] = scale[j] * g + slope[j] * (source[j] - shift[j]) + constant[j]
        else:
            for j in range(n):
                target[j] = scale[j] * change[j] + slope[j] * (source[j] - shift[j]) + constant[j]
        at += n


@njit(cache=CACHED)
def _array(address, shape, dtype):  # type: ignore[no-untyped-def]
    """The numbers at an address, as an array of a shape."""
    return carray(pointer(address), shape, dtype)


@functools.cache
def moments(dtype: Any) -> Any:
    """The task's words: positions, channels, width, and addresses of x, shift [width], sums [shares, 2, C]."""

    @_task()
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 8)
        shares, count, channels, width = a[1], a[2], a[3], a[4]
        x, shift = _array(a[5], count * channels, dtype), _array(a[6], width, dtype)
        sums = _array(a[7], (shares, 2, channels), np.float64)
        share = take_share(block)
        while share < shares:
            begin, end = share * count // shares, (share + 1) * count // shares
            moments_of(x, begin, end, channels, shift, sums[share])
            share = take_share(block)

    return task


@functools.cache
def forward(dtype: Any) -> Any:
    """The task's words: positions, channels, width, rectify, and addresses of x, rows [2, width], y."""

    @_task()
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 9)
        shares, count, channels, width = a[1], a[2], a[3], a[4]
        x, y = _array(a[6], count * channels, dtype), _array(a[8], count * channels, dtype)
        rows = _array(a[7], (2, width), dtype)
        share = take_share(block)
        while share < shares:
            begin, end = share * count // shares, (share + 1) * count // shares
            apply(x, begin, end, channels, rows[0], rows[1], a[5], y)
            share = take_share(block)

    return task


@functools.cache
def changes(dtype: Any) -> Any:
    """The task's words: positions, channels, width, rectify, and addresses: x, dy, rows [3, width], sums."""

    @_task()
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 10)
        shares, count, channels, width = a[1], a[2], a[3], a[4]
        x, dy = _array(a[6], count * channels, dtype), _array(a[7], count * channels, dtype)
        rows, sums = _array(a[8], (3, width), dtype), _array(a[9], (shares, 2, channels), np.float64)
        share = take_share(block)
        while share < shares:
            begin, end = share * count // shares, (share + 1) * count // shares
            changes_of(x, dy, begin, end, channels, rows[0], rows[1], rows[2], a[5], sums[share])
            share = take_share(block)

    return task


@functools.cache
def backward(dtype: Any) -> Any:
    """The task's words: positions, channels, width, rectify, and addresses: x, dy, rows [5, width], dx."""

    @_task()
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 10)
        shares, count, channels, width = a[1], a[2], a[3], a[4]
        x, dy = _array(a[6], count * channels, dtype), _array(a[7], count * channels, dtype)
        rows, dx = _array(a[8], (5, width), dtype), _array(a[9], count * channels, dtype)
        share = take_share(block)
        while share < shares:
            begin, end = share * count // shares, (share + 1) * count // shares
            apply_backward(
                x, dy, begin, end, channels, rows[0], rows[1], rows[2], rows[3], rows[4], a[5], dx
            )  # fmt: skip
            share = take_share(block)

    return task
