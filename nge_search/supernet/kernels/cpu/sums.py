"""Sums over positions, of maps and of their products."""

from __future__ import annotations

import functools

from numba import carray, int64

from nge_search.native.compiled import Task, record
from nge_search.native.simd import (
    Strip,
    add,
    channels,
    fma,
    fold,
    gather,
    load,
    number_bytes,
    position_bytes,
    positions,
    single,
    store,
    wide,
    widen,
    zero,
)
from nge_search.native.threads import take_share, words
from nge_search.supernet.kernels.cpu.decorators import CHUNK, part, task
from nge_search.supernet.kernels.cpu.products import product


@part
def outer_sums(strip, count, width, depth, left, right, scratch, target):
    """target [width, depth] (float64) += sum over positions of left[position, :, None] * right[position].

    With left = right only blocks that meet the upper triangle are summed.
    """
    size, one = number_bytes(strip), single(strip)
    for at in range(0, count, CHUNK):
        inner = min(CHUNK, count - at)
        for column in range(0, depth, channels(strip)):
            rows = column + channels(strip) if left == right else width
            transposed = (left + at * width * size, size, width * size)
            factor = (right + (at * depth + column) * size, depth * size)
            out = (scratch + position_bytes(strip), position_bytes(strip))
            store(one, scratch, zero(one))
            product(strip, rows, inner, transposed, factor, int64(0), int64(0), (scratch, int64(0)), out, int64(0))
            for row in range(rows):
                value = widen(load(one, out[0] + row * out[1]))
                there = target + (row * depth + column) * 8
                store(wide(strip), there, add(load(wide(strip), there), value))


@part
def inner_sums(strip, count, depth, x, y, target):
    """target [depth] (float64) += sum over positions of x * y."""
    step = depth * number_bytes(strip)
    for column in range(0, depth, channels(strip)):
        place = column * number_bytes(strip)
        for at in range(0, count, CHUNK):
            end, position, total = min(at + CHUNK, count), at, zero(strip)
            while position + positions(strip) <= end:
                where = place + position * step
                total = fma(gather(strip, x + where, step), gather(strip, y + where, step), total)
                position += positions(strip)
            rest = fold(strip, total)
            while position < end:
                where = place + position * step
                rest = fma(load(single(strip), x + where), load(single(strip), y + where), rest)
                position += 1
            there = target + column * 8
            store(wide(strip), there, add(load(wide(strip), there), widen(rest)))


@part
def column_sums(strip, count, depth, x, x_step, target):
    """target [depth] (float64) += sum over positions of x."""
    for column in range(0, depth, channels(strip)):
        for at in range(0, count, CHUNK):
            end, position, total = min(at + CHUNK, count), at, zero(strip)
            here = x + column * number_bytes(strip)
            while position + positions(strip) <= end:
                total = add(total, gather(strip, here + position * x_step, x_step))
                position += positions(strip)
            rest = fold(strip, total)
            while position < end:
                rest = add(rest, load(single(strip), here + position * x_step))
                position += 1
            there = target + column * 8
            store(wide(strip), there, add(load(wide(strip), there), widen(rest)))


@part
def square_sums(strip, rows, depth, x, target):
    """target [2, depth] (float64) += sums over rows [rows, depth] of x and of its squares."""
    one, far = single(strip), wide(strip)
    for column in range(0, depth, channels(strip)):
        first, second = target + column * 8, target + (depth + column) * 8
        total, squares = load(far, first), load(far, second)
        for row in range(rows):
            value = widen(load(one, x + (row * depth + column) * number_bytes(strip)))
            total, squares = add(total, value), fma(value, value, squares)
        store(far, first, total)
        store(far, second, squares)


@functools.cache
def sums_with(strip: Strip) -> Task:
    """Sums over positions of y and of y * h.

    The task's fields: images; count: positions of each; channels; and addresses: y, h, and per share of sums
    [2, channels].
    """

    @task(strip, record("images", "count", "channels", "y", "h", "sums"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, images, count, depth, sums = a.shares, a.images, a.count, a.channels, words(a.sums, a.shares)
        step = depth * number_bytes(strip)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                y, h = a.y + image * count * step, a.h + image * count * step
                column_sums(strip, count, depth, y, step, sums[share])
                inner_sums(strip, count, depth, y, h, sums[share] + depth * 8)
            share = take_share(block)

    return compute
