"""Matrix products of small matrices with maps, one or two blocks of columns at a time."""

from __future__ import annotations

from nge_search.native.simd import (
    fma,
    gather,
    half,
    position_bytes,
    positions,
    scatter,
    single,
    spread,
    tile,
    where_positive,
)
from nge_search.supernet.kernels.cpu.decorators import inlined, part


@part
def _product_strips(strip, first, rows, inner, left, right, left2, right2, start, out, rectify):
    i = first
    while i + positions(strip) <= rows:
        total = gather(strip, start[0] + i * start[1], start[1])
        here, there = left[0] + i * left[1], right[0]
        for _ in range(inner):
            total = fma(spread(strip, here, left[1]), tile(strip, there), total)
            here += left[2]
            there += right[1]
        if right2:
            here, there = left2 + i * left[1], right2
            for _ in range(inner):
                total = fma(spread(strip, here, left[1]), tile(strip, there), total)
                here += left[2]
                there += right[1]
        if rectify:
            total = where_positive(total, total)
        scatter(strip, out[0] + i * out[1], out[1], total)
        i += positions(strip)
    return i


@inlined
def product(strip, rows, inner, left, right, left2, right2, start, out, rectify):
    """out[i] = start[i] + sum over k of left[i, k] * right[k], for one block of columns; rectify: its ReLU.

    left2, right2: addresses of a second product of the same layout to add; right2 = 0: none.
    """
    i = _product_strips(strip, 0, rows, inner, left, right, left2, right2, start, out, rectify)
    i = _product_strips(half(strip), i, rows, inner, left, right, left2, right2, start, out, rectify)
    _product_strips(single(strip), i, rows, inner, left, right, left2, right2, start, out, rectify)


@part
def _pair_strips(strip, first, rows, inner, left, right, left2, right2, start, out, gap, rectify):
    cell, i = position_bytes(strip), first
    while i + positions(strip) <= rows:
        begin = start[0] + i * start[1]
        total, next_total = gather(strip, begin, start[1]), gather(strip, begin + cell, start[1])
        here, there = left[0] + i * left[1], right[0]
        for _ in range(inner):
            value = spread(strip, here, left[1])
            total = fma(value, tile(strip, there), total)
            next_total = fma(value, tile(strip, there + cell), next_total)
            here += left[2]
            there += right[1]
        if right2:
            here, there = left2 + i * left[1], right2
            for _ in range(inner):
                value = spread(strip, here, left[1])
                total = fma(value, tile(strip, there), total)
                next_total = fma(value, tile(strip, there + cell), next_total)
                here += left[2]
                there += right[1]
        if rectify:
            total, next_total = where_positive(total, total), where_positive(next_total, next_total)
        scatter(strip, out[0] + i * out[1], out[1], total)
        scatter(strip, out[0] + gap + i * out[1], out[1], next_total)
        i += positions(strip)
    return i


@inlined
def product_pair(strip, rows, inner, left, right, left2, right2, start, out, gap, rectify):
    """`product` for two adjacent blocks of columns, which share what they read; out of the second is `gap` on."""
    i = _pair_strips(strip, 0, rows, inner, left, right, left2, right2, start, out, gap, rectify)
    i = _pair_strips(half(strip), i, rows, inner, left, right, left2, right2, start, out, gap, rectify)
    _pair_strips(single(strip), i, rows, inner, left, right, left2, right2, start, out, gap, rectify)
