"""A node, as a sum of matrix products and of scaled maps, and its gradients."""

from __future__ import annotations

import functools

from numba import carray, int64

from nge_search.native.compiled import Task, record
from nge_search.native.simd import Strip, fma, load, number_bytes, position_bytes, single, store
from nge_search.native.threads import take_share, words
from nge_search.supernet.kernels.cpu.decorators import CHUNK, inlined, task
from nge_search.supernet.kernels.cpu.products import product, product_pair
from nge_search.supernet.kernels.cpu.sums import column_sums, inner_sums, outer_sums

_GIVEN = "images", "count", "channels", "products", "scaled", "zs", "xs"


@inlined
def _combine_image(strip, image, count, depth, zs, matrices, xs, scales, bias, out):
    size, cell, one = number_bytes(strip), position_bytes(strip), single(strip)
    step = depth * size
    for at in range(image * count, (image + 1) * count, CHUNK):
        rows = min(CHUNK, (image + 1) * count - at)
        for column in range(0, step, 2 * cell):
            blocks, y = min(2, (step - column) // cell), (out + at * step + column, step)
            for here in range(column, column + blocks * cell, cell):
                for position in range(rows):
                    total = load(one, bias + here)
                    for d in range(len(xs)):
                        x = load(one, xs[d] + (at + position) * step + here)
                        total = fma(x, load(one, scales[d] + here), total)
                    store(one, out + (at + position) * step + here, total)
            for t in range(len(zs)):
                left, right = (zs[t] + at * step, step, size), (matrices[t] + column, step)
                if blocks == 2:
                    product_pair(strip, rows, depth, left, right, int64(0), int64(0), y, y, cell, int64(0))
                else:
                    product(strip, rows, depth, left, right, int64(0), int64(0), y, y, int64(0))


@functools.cache
def combine(strip: Strip) -> Task:
    """out = bias + sum over t of z_t @ matrix_t + sum over d of scale_d * x_d.

    The task's fields: images; count: positions of each; channels; products, scaled: numbers of t and of d; and
    addresses: zs, matrices, xs, scales, bias, out. All maps are dense [images * count, channels].
    """

    @task(strip, record(*_GIVEN, "matrices", "scales", "bias", "out"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, images = a.shares, a.images
        zs, matrices = words(a.zs, a.products), words(a.matrices, a.products)
        xs, scales = words(a.xs, a.scaled), words(a.scales, a.scaled)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                _combine_image(strip, image, a.count, a.channels, zs, matrices, xs, scales, a.bias, a.out)
            share = take_share(block)

    return compute


@inlined
def _combine_image_backward(strip, image, scratch, count, depth, zs, xs, dy, sums):
    step, offset = depth * number_bytes(strip), image * count * depth * number_bytes(strip)
    column_sums(strip, count, depth, dy + offset, step, sums)
    for d in range(len(xs)):
        inner_sums(strip, count, depth, xs[d] + offset, dy + offset, sums + (1 + d) * depth * 8)
    for t in range(len(zs)):
        target = sums + (1 + len(xs) + t * depth) * depth * 8
        outer_sums(strip, count, depth, depth, zs[t] + offset, dy + offset, scratch, target)


@functools.cache
def combine_backward(strip: Strip) -> Task:
    """Adds gradients of bias, scales and matrices of `combine` to per-share sums [1 + d + t * channels, channels].

    The task's fields are those of `combine` up to xs; then scratch, scratch_bytes: for each share; and addresses:
    dy, and sums per share.
    """

    @task(strip, record(*_GIVEN, "scratch", "scratch_bytes", "dy", "sums"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, images = a.shares, a.images
        zs, xs, sums = words(a.zs, a.products), words(a.xs, a.scaled), words(a.sums, shares)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                scratch = a.scratch + share * a.scratch_bytes
                _combine_image_backward(strip, image, scratch, a.count, a.channels, zs, xs, a.dy, sums[share])
            share = take_share(block)

    return compute
