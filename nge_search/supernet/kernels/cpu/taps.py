"""Depthwise convolutions of one plane by their taps, and the gradients of weights and of strided inputs."""

from __future__ import annotations

from nge_search.native.simd import (
    add,
    fma,
    fold,
    gather,
    half,
    load,
    position_bytes,
    positions,
    scatter,
    single,
    store,
    tile,
    wide,
    widen,
    zero,
)
from nge_search.supernet.kernels.cpu.decorators import inlined, part


@part
def _correlate_strips(strip, x0, plane, row, stride, taps, w, w_step, out, size, accumulate):
    x = x0
    for y in range(size[0]):
        x = x0
        while x + positions(strip) <= size[1]:
            here, weight = plane + stride * y * row + x * position_bytes(strip), w
            total = zero(strip)
            for t in range(len(taps)):
                total = fma(load(strip, here + taps[t]), tile(strip, weight), total)
                weight += w_step
            target = out[0] + y * out[1] + x * out[2]
            if accumulate:
                total = add(total, gather(strip, target, out[2]))
            scatter(strip, target, out[2], total)
            x += positions(strip)
    return x


@inlined
def correlate(strip, plane, row, stride, taps, w, w_step, out, size, accumulate):
    """out[y, x] (+)= sum over t of w[t] * plane[stride * y, x + tap t]; `taps` are byte offsets in the plane."""
    x = _correlate_strips(strip, 0, plane, row, stride, taps, w, w_step, out, size, accumulate)
    x = _correlate_strips(half(strip), x, plane, row, stride, taps, w, w_step, out, size, accumulate)
    _correlate_strips(single(strip), x, plane, row, stride, taps, w, w_step, out, size, accumulate)


@part
def _weight_strips(strip, x0, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size):
    wide_bytes, count = positions(strip) * position_bytes(strip), len(taps)
    for t in range(count):
        store(strip, scratch + t * wide_bytes, zero(strip))
    x = x0
    for top in range(0, size[0], 4):  # rows that stay in the first cache for all taps
        for t in range(0, count - 2, 3):  # taps that share what they read of g
            place = scratch + t * wide_bytes
            a, b = load(strip, place), load(strip, place + wide_bytes)
            c = load(strip, place + 2 * wide_bytes)
            for y in range(top, min(top + 4, size[0])):
                here, gradient = plane + stride * y * row, g + y * g_row
                x = x0
                while x + positions(strip) <= size[1]:
                    offset = x * position_bytes(strip)
                    change = load(strip, gradient + offset)
                    a = fma(load(strip, here + taps[t] + offset), change, a)
                    b = fma(load(strip, here + taps[t + 1] + offset), change, b)
                    c = fma(load(strip, here + taps[t + 2] + offset), change, c)
                    x += positions(strip)
            store(strip, place, a)
            store(strip, place + wide_bytes, b)
            store(strip, place + 2 * wide_bytes, c)
        for t in range(count - count % 3, count):
            total = load(strip, scratch + t * wide_bytes)
            for y in range(top, min(top + 4, size[0])):
                here, gradient = plane + stride * y * row + taps[t], g + y * g_row
                x = x0
                while x + positions(strip) <= size[1]:
                    offset = x * position_bytes(strip)
                    total = fma(load(strip, here + offset), load(strip, gradient + offset), total)
                    x += positions(strip)
            store(strip, scratch + t * wide_bytes, total)
    one = wide(strip)
    for t in range(count):
        there, found = dw + t * dw_step, widen(fold(strip, load(strip, scratch + t * wide_bytes)))
        store(one, there, add(load(one, there), found))
    return x


@inlined
def weight_sums(strip, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size):
    """dw[t] (float64) += sum over y and x of g[y, x] * plane[stride * y, x + tap t]."""
    x = _weight_strips(half(strip), 0, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size)
    if x < size[1]:
        _weight_strips(single(strip), x, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size)


@part
def spread_taps(strip, plane, row, stride, taps, w, w_step, g, g_row, size):
    """plane[stride * y, x + tap t] += w[t] * g[y, x]: the input gradient of a strided convolution."""
    for y in range(size[0]):
        for t in range(len(taps)):
            weight, here = load(strip, w + t * w_step), plane + stride * y * row + taps[t]
            for x in range(size[1]):
                offset = x * position_bytes(strip)
                value = fma(load(strip, g + y * g_row + offset), weight, load(strip, here + offset))
                store(strip, here + offset, value)
