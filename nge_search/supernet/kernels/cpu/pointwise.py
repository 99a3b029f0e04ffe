"""1x1 convolutions of the ReLU of maps, with the sums that their normalisation needs, and their gradients."""

from __future__ import annotations

import functools

from numba import carray, int64

from nge_search.native.compiled import Task, record
from nge_search.native.simd import (
    Strip,
    channels,
    fma,
    load,
    number_bytes,
    position_bytes,
    single,
    store,
    where_positive,
    zero,
)
from nge_search.native.threads import take_share, words
from nge_search.supernet.kernels.cpu.decorators import CHUNK, inlined, part, task
from nge_search.supernet.kernels.cpu.planes import clear
from nge_search.supernet.kernels.cpu.products import product
from nge_search.supernet.kernels.cpu.sums import outer_sums, square_sums

_GIVEN = (
    "scratch", "scratch_bytes", "images", "height", "width", "channels", "nodes", "halves", "xs", "depths",
    "matrices",
)  # fmt: skip


@part
def _rectify(strip, rows, valid, width, x, step, out):
    """out [rows, width] = relu of `valid` positions of x, `step` bytes apart, then zeros."""
    one, blocks = single(strip), width // channels(strip)
    for row in range(rows):
        for block in range(blocks):
            value = zero(one)
            if row < valid:
                value = load(one, x + row * step + block * position_bytes(strip))
            store(one, out + (row * blocks + block) * position_bytes(strip), where_positive(value, value))


@part
def _read(k, halves, height, width, y, x, rows):
    """Of outputs from (y, x) on, the first pixel read for a half (its number in the image), and how many exist."""
    row, column = y * halves + k, x * halves + k
    if row >= height or column >= width:
        return 0, 0
    return row * width + column, min(rows, (width - column - 1) // halves + 1)


@inlined
def _pointwise_image(strip, image, scratch, shape, depths, xs, matrices, out, sums):
    size, cell, one, halves = number_bytes(strip), position_bytes(strip), single(strip), len(depths)
    _, height, width, inner = shape
    step = inner * size
    if halves == 1:
        height, width = 1, height * width  # one line
    lines, length, depth = (height - 1) // halves + 1, (width - 1) // halves + 1, depths.sum()
    store(one, scratch, zero(one))
    rectified = scratch + cell
    for y in range(lines):
        for x in range(0, length, CHUNK):
            rows = min(CHUNK, length - x)
            target, first = out + ((image * lines + y) * length + x) * depth * size, 0
            for k in range(halves):
                start, valid = _read(k, halves, height, width, y, x, rows)
                for n in range(len(xs)):
                    source = xs[n] + (image * height * width + start) * step
                    _rectify(strip, rows, valid, inner, source, halves * step, rectified)
                    for column in range(0, depths[k] * size, cell):
                        there = (target + first * size + column, depth * size)
                        begin = (scratch, int64(0)) if n == 0 else there
                        right = (matrices[k * len(xs) + n] + column, depths[k] * size)
                        product(
                            strip,
                            rows,
                            inner,
                            (rectified, step, size),
                            right,
                            int64(0),
                            int64(0),
                            begin,
                            there,
                            int64(0),
                        )
                first += depths[k]
            if sums:
                square_sums(strip, rows, depth, target, sums)


@functools.cache
def pointwise(strip: Strip) -> Task:
    """out [.., depth] = sum over n of relu(x_n [.., width]) @ matrix_n, and the sums of that and its squares.

    The task's fields: scratch, scratch_bytes: for each share; images, height, width, channels; the numbers of nodes
    n and of halves h: with one all pixels are read, with two pixels (2y + h, 2x + h) for each part's columns; and
    addresses: xs; depths (numbers of columns) of halves; matrices [h, n]; out; per share of sums [2, depth] to add
    to, 0: not wanted. All is dense.
    """

    @task(strip, record(*_GIVEN, "out", "sums"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, images, shape = a.shares, a.images, (a.images, a.height, a.width, a.channels)
        xs, depths, sums = words(a.xs, a.nodes), words(a.depths, a.halves), words(a.sums, shares)
        matrices = words(a.matrices, a.halves * a.nodes)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                scratch = a.scratch + share * a.scratch_bytes
                _pointwise_image(strip, image, scratch, shape, depths, xs, matrices, a.out, sums[share])
            share = take_share(block)

    return compute


@part
def _change(strip, rows, depth, y, h, step, coefficients, c_step, out):
    """out [rows, depth] = a * y + b * h + c, for rows a, b, c of coefficients."""
    one = single(strip)
    for column in range(0, depth * number_bytes(strip), position_bytes(strip)):
        a, b = load(one, coefficients + column), load(one, coefficients + c_step + column)
        c = load(one, coefficients + 2 * c_step + column)
        for row in range(rows):
            where = row * step + column
            value = fma(load(one, y + where), a, fma(load(one, h + where), b, c))
            store(one, out + row * depth * number_bytes(strip) + column, value)


@inlined
def _pointwise_image_backward(
    strip, image, scratch, shape, depths, xs, matrices, dh, h, coefficients, dxs, sums
):  # fmt: skip
    size, cell, one, halves = number_bytes(strip), position_bytes(strip), single(strip), len(depths)
    _, height, width, inner = shape
    step, pixels = inner * size, height * width
    if halves == 1:
        height, width = 1, height * width
    else:  # some pixels are not read
        for n in range(len(dxs)):
            clear(one, dxs[n] + image * pixels * step, pixels * inner // channels(strip))
    lines, length, depth = (height - 1) // halves + 1, (width - 1) // halves + 1, depths.sum()
    store(one, scratch, zero(one))
    rectified = scratch + cell
    changes = rectified + CHUNK * step
    for y in range(lines):
        for x in range(0, length, CHUNK):
            rows, target, first = min(CHUNK, length - x), sums, 0
            place = ((image * lines + y) * length + x) * depth * size
            for k in range(halves):
                own = depths[k]
                free = changes + CHUNK * own * size
                there = place + first * size
                columns = (coefficients + first * size, depth * size)
                _change(strip, rows, own, dh + there, h + there, depth * size, columns[0], columns[1], changes)
                start, valid = _read(k, halves, height, width, y, x, rows)
                for n in range(len(xs)):
                    source = (image * pixels + start) * step
                    _rectify(strip, rows, valid, inner, xs[n] + source, halves * step, rectified)
                    if sums:
                        outer_sums(strip, rows, inner, own, rectified, changes, free, target)
                        target += inner * own * 8
                    if not len(dxs):
                        continue
                    for column in range(0, step, cell):
                        dx = (dxs[n] + source + column, halves * step)
                        left = (changes, own * size, size)
                        right = (matrices[k * len(xs) + n] + column, step)
                        product(
                            strip, valid, own, left, right, int64(0), int64(0), (scratch, int64(0)), dx, int64(0)
                        )
                        for row in range(valid):
                            here = dx[0] + row * dx[1]
                            value = load(one, rectified + row * step + column)
                            store(one, here, where_positive(load(one, here), value))
                first += own


@functools.cache
def pointwise_backward(strip: Strip) -> Task:
    """Gradients of `pointwise`, where that of its result is a * dh + b * h + c.

    The task's fields are those of `pointwise` up to matrices, here the transposed ones; then addresses: dh, h,
    coefficients [3, depth]; wanted, dxs: whether gradients of the nodes are wanted, and their addresses; and per
    share that of sums [h, n, width, depth of h] for those of the matrices to add to; 0: not wanted.
    """

    @task(strip, record(*_GIVEN, "dh", "h", "coefficients", "wanted", "dxs", "sums"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, images, shape = a.shares, a.images, (a.images, a.height, a.width, a.channels)
        xs, depths, sums = words(a.xs, a.nodes), words(a.depths, a.halves), words(a.sums, shares)
        matrices, dxs = words(a.matrices, a.halves * a.nodes), words(a.dxs, a.nodes * a.wanted)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                scratch = a.scratch + share * a.scratch_bytes
                _pointwise_image_backward(
                    strip, image, scratch, shape, depths, xs, matrices, a.dh, a.h, a.coefficients, dxs, sums[share]
                )  # fmt: skip
            share = take_share(block)

    return compute
