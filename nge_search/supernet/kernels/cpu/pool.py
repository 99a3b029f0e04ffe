"""Maximum and average pooling, with the sums that their normalisation needs, and their gradients."""

from __future__ import annotations

import functools

from numba import carray

from nge_search.native.compiled import Task, record, row
from nge_search.native.simd import (
    Strip,
    add,
    channels,
    fma,
    load,
    maximum,
    multiply,
    number_bytes,
    position_bytes,
    single,
    store,
    subtract,
    uniform,
    where_equal,
    wide,
    widen,
    zero,
)
from nge_search.native.threads import array, take_share, words
from nge_search.supernet.kernels.cpu.decorators import inlined, part, task

#: Addresses of vectors: slope and constant, times a maximum and for itself, that add to the gradient of maxima, and
#: the same for averages.
SLOPES = row("max_slope", "max_constant", "average_slope", "average_constant")
_GIVEN = (
    "batch", "height", "width", "channels", "stride", "inputs", "has_maxima", "has_averages", "xs", "maxima",
    "averages",
)  # fmt: skip
_READERS = (
    "readers", "dys", "scales_maxima", "max_scales", "scales_averages", "average_scales", "scales_images",
    "skip_scales", "slopes", "dxs",
)  # fmt: skip


@inlined
def _pool_image(strip, image, i, shape, stride, xs, maxima, averages, sums):
    one, far = single(strip), wide(strip)
    _, height, width, depth = shape
    size = (height - 1) // stride + 1, (width - 1) // stride + 1
    step = depth * number_bytes(strip)
    for column in range(0, depth, channels(strip)):
        place = column * number_bytes(strip)
        source = xs[i] + image * height * width * step + place
        first = sums + (4 * i * depth + column) * 8
        for y in range(size[0]):
            top, bottom = max(y * stride - 1, 0), min(y * stride + 2, height)
            max_sum, max_squares, sum_, squares = zero(far), zero(far), zero(far), zero(far)
            for x in range(size[1]):
                left, right = max(x * stride - 1, 0), min(x * stride + 2, width)
                best = load(one, source + (top * width + left) * step)
                total = zero(one)
                for v in range(top, bottom):
                    for u in range(left, right):
                        value = load(one, source + (v * width + u) * step)
                        best, total = maximum(best, value), add(total, value)
                there = ((image * size[0] + y) * size[1] + x) * step + place
                if len(maxima):
                    store(one, maxima[i] + there, best)
                    found = widen(best)
                    max_sum, max_squares = add(max_sum, found), fma(found, found, max_squares)
                if len(averages):
                    mean = multiply(total, uniform(one, 1.0 / ((bottom - top) * (right - left))))
                    store(one, averages[i] + there, mean)
                    found = widen(mean)
                    sum_, squares = add(sum_, found), fma(found, found, squares)
            if sums:
                row = depth * 8
                store(far, first, add(load(far, first), max_sum))
                store(far, first + row, add(load(far, first + row), max_squares))
                store(far, first + 2 * row, add(load(far, first + 2 * row), sum_))
                store(far, first + 3 * row, add(load(far, first + 3 * row), squares))


@functools.cache
def pool(strip: Strip) -> Task:
    """3x3 maximum and average pooling (of the pixels inside) of images.

    The task's fields: batch, height, width, channels; stride; inputs: number of images; has_maxima, has_averages:
    whether they are wanted; and addresses: xs, maxima, averages, and per share [i, 4, channels], to which sums of
    maxima, of their squares, of averages and of theirs are added; 0: not wanted.
    """

    @task(strip, record(*_GIVEN, "sums"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, shape, inputs = a.shares, (a.batch, a.height, a.width, a.channels), a.inputs
        xs, sums = words(a.xs, inputs), words(a.sums, shares)
        maxima, averages = words(a.maxima, inputs * a.has_maxima), words(a.averages, inputs * a.has_averages)
        share, items = take_share(block), inputs * a.batch
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _pool_image(
                    strip, item // inputs, item % inputs, shape, a.stride, xs, maxima, averages, sums[share]
                )
            share = take_share(block)

    return compute


@part
def _weighted(strip, where, dys, scales, column, total):
    """total + sum over t of scales[t] * dys[t]; no scales: total."""
    for t in range(len(scales)):
        total = fma(load(strip, dys[t] + where), load(strip, scales[t] + column), total)
    return total


@inlined
def _pool_image_backward(strip, image, i, shape, stride, xs, maxima, averages, dys, scales, slopes, dxs):
    one, (max_scales, average_scales, skip_scales) = single(strip), scales
    _, height, width, depth = shape
    size = (height - 1) // stride + 1, (width - 1) // stride + 1
    step = depth * number_bytes(strip)
    for column in range(0, step, position_bytes(strip)):
        begin = image * height * width * step + column
        source, target = xs[i] + begin, dxs[i] + begin
        for position in range(height * width):
            value = _weighted(one, begin + position * step, dys[i], skip_scales[i], column, zero(one))
            store(one, target + position * step, value)
        for y in range(size[0]):
            top, bottom = max(y * stride - 1, 0), min(y * stride + 2, height)
            for x in range(size[1]):
                left, right = max(x * stride - 1, 0), min(x * stride + 2, width)
                where = ((image * size[0] + y) * size[1] + x) * step + column
                best, rest, share = zero(one), zero(one), zero(one)
                if len(maxima):
                    best = load(one, maxima[i] + where)
                    rest = fma(
                        best, load(one, slopes[i].max_slope + column), load(one, slopes[i].max_constant + column)
                    )
                    rest = _weighted(one, where, dys[i], max_scales[i], column, rest)
                if len(averages):
                    share = load(one, averages[i] + where)
                    slope = load(one, slopes[i].average_slope + column)
                    share = fma(share, slope, load(one, slopes[i].average_constant + column))
                    share = _weighted(one, where, dys[i], average_scales[i], column, share)
                    share = multiply(share, uniform(one, 1.0 / ((bottom - top) * (right - left))))
                for v in range(top, bottom):
                    for u in range(left, right):
                        there, value = (v * width + u) * step, share
                        if len(maxima):  # the first of equal maxima gets all, as in torch
                            hit = where_equal(load(one, source + there), best, rest)
                            rest, value = subtract(rest, hit), add(value, hit)
                        store(one, target + there, add(load(one, target + there), value))


@functools.cache
def pool_backward(strip: Strip) -> Task:
    """The gradients of images, whose pools and which themselves were summed elsewhere with scales.

    The task's fields are those of `pool` up to averages; then readers: the number t of those sums per image; and
        dys: [i, t] addresses of the gradients of those sums;
        max_scales, average_scales, skip_scales: [i, t] addresses of vectors, by which those sums scale maxima,
            averages and the images themselves; scales_maxima, scales_averages, scales_images: whether they do;
        slopes: [i] of `SLOPES`;
        dxs: addresses of the gradients.
    """

    @task(strip, record(*_GIVEN, *_READERS))
    def compute(block):
        a = carray(block, 1)[0]
        shares, shape, inputs, readers = a.shares, (a.batch, a.height, a.width, a.channels), a.inputs, a.readers
        xs, dxs, dys = words(a.xs, inputs), words(a.dxs, inputs), words(a.dys, (inputs, readers))
        maxima, averages = words(a.maxima, inputs * a.has_maxima), words(a.averages, inputs * a.has_averages)
        scales = (
            words(a.max_scales, (inputs, readers * a.scales_maxima)),
            words(a.average_scales, (inputs, readers * a.scales_averages)),
            words(a.skip_scales, (inputs, readers * a.scales_images)),
        )
        slopes = array(a.slopes, inputs, SLOPES)
        share, items = take_share(block), inputs * a.batch
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _pool_image_backward(
                    strip, item // inputs, item % inputs, shape, a.stride, xs, maxima, averages, dys, scales,
                    slopes, dxs,
                )  # fmt: skip
            share = take_share(block)

    return compute
