"""What a cell computes on a CPU, compiled: one image at a time, so that it stays in the cache from step to step.

A thread takes images; for each it fills zero-padded planes (one per block of channels, so that taps need no test
for borders), convolves, and sums the moments of what it wrote before that leaves the cache. Where a convolution
reads a normalised product of stored maps, or a gradient is a sum of products, the plane is filled with it: neither
is stored. For stride 2 a plane keeps even and odd columns apart, so that adjacent outputs read adjacent inputs.

Everything is given by address. A matrix is (address, bytes between rows, bytes between columns); the stored maps
[positions, channels] are dense. Sums over positions are kept in float64, for each thread apart.

Parts whose arguments are literal numbers would be compiled for each: callers give them as `int64(0)`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import carray, int64

from nge_search.native import compiled
from nge_search.native.simd import (
    Strip,
    add,
    channels,
    fma,
    fold,
    gather,
    half,
    load,
    maximum,
    multiply,
    number_bytes,
    position_bytes,
    positions,
    scatter,
    single,
    spread,
    store,
    subtract,
    tile,
    uniform,
    where_equal,
    where_positive,
    wide,
    widen,
    zero,
)
from nge_search.native.threads import take_share, words

_part = compiled.part(error_model="numpy")
_inlined = compiled.part(error_model="numpy", inline="always")  # into the one or two that call it
_summing = compiled.loop(error_model="numpy", fastmath={"reassoc", "contract"})  # sums in several lanes
CHUNK = 128  # positions that are summed in the maps' own precision


def _task(strip: Strip) -> Any:
    channels = "1 channel" if strip.channels == 1 else f"{strip.channels} channels"
    return compiled.task(
        f"compiling the supernet's kernels for blocks of {channels} in float{strip.bits}, some 12 s"
    )


@_part
def _product_strips(strip, first, rows, inner, left, right, left2, right2, start, out, rectify):  # type: ignore
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


@_inlined
def _product(strip, rows, inner, left, right, left2, right2, start, out, rectify):  # type: ignore
    """out[i] = start[i] + sum over k of left[i, k] * right[k], for one block of columns; rectify: its ReLU.

    left2, right2: addresses of a second product of the same layout to add; right2 = 0: none.
    """
    i = _product_strips(strip, 0, rows, inner, left, right, left2, right2, start, out, rectify)
    i = _product_strips(half(strip), i, rows, inner, left, right, left2, right2, start, out, rectify)
    _product_strips(single(strip), i, rows, inner, left, right, left2, right2, start, out, rectify)


@_part
def _pair_strips(strip, first, rows, inner, left, right, left2, right2, start, out, gap, rectify):  # type: ignore
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


@_inlined
def _product_pair(strip, rows, inner, left, right, left2, right2, start, out, gap, rectify):  # type: ignore
    """`_product` for two adjacent blocks of columns, which share what they read; out of the second is `gap` on."""
    i = _pair_strips(strip, 0, rows, inner, left, right, left2, right2, start, out, gap, rectify)
    i = _pair_strips(half(strip), i, rows, inner, left, right, left2, right2, start, out, gap, rectify)
    _pair_strips(single(strip), i, rows, inner, left, right, left2, right2, start, out, gap, rectify)


@_part
def _outer_sums(strip, count, width, depth, left, right, scratch, target):  # type: ignore
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
            _product(strip, rows, inner, transposed, factor, int64(0), int64(0), (scratch, int64(0)), out, int64(0))
            for row in range(rows):
                value = widen(load(one, out[0] + row * out[1]))
                there = target + (row * depth + column) * 8
                store(wide(strip), there, add(load(wide(strip), there), value))


@_part
def _inner_sums(strip, count, depth, x, y, target):  # type: ignore
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


@_part
def _column_sums(strip, count, depth, x, x_step, target):  # type: ignore
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


@_part
def _correlate_strips(strip, x0, plane, row, stride, taps, w, w_step, out, size, accumulate):  # type: ignore
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


@_inlined
def _correlate(strip, plane, row, stride, taps, w, w_step, out, size, accumulate):  # type: ignore
    """out[y, x] (+)= sum over t of w[t] * plane[stride * y, x + tap t]; `taps` are byte offsets in the plane."""
    x = _correlate_strips(strip, 0, plane, row, stride, taps, w, w_step, out, size, accumulate)
    x = _correlate_strips(half(strip), x, plane, row, stride, taps, w, w_step, out, size, accumulate)
    _correlate_strips(single(strip), x, plane, row, stride, taps, w, w_step, out, size, accumulate)


@_part
def _weight_strips(strip, x0, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size):  # type: ignore
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


@_inlined
def _weight_sums(strip, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size):  # type: ignore
    """dw[t] (float64) += sum over y and x of g[y, x] * plane[stride * y, x + tap t]."""
    x = _weight_strips(half(strip), 0, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size)
    if x < size[1]:
        _weight_strips(single(strip), x, plane, row, stride, taps, g, g_row, scratch, dw, dw_step, size)


@_part
def _spread_taps(strip, plane, row, stride, taps, w, w_step, g, g_row, size):  # type: ignore
    """plane[stride * y, x + tap t] += w[t] * g[y, x]: the input gradient of a strided convolution."""
    for y in range(size[0]):
        for t in range(len(taps)):
            weight, here = load(strip, w + t * w_step), plane + stride * y * row + taps[t]
            for x in range(size[1]):
                offset = x * position_bytes(strip)
                value = fma(load(strip, g + y * g_row + offset), weight, load(strip, here + offset))
                store(strip, here + offset, value)


@_part
def _clear(strip, plane, count):  # type: ignore
    for position in range(count):
        store(single(strip), plane + position * position_bytes(strip), zero(single(strip)))


@_part
def _clear_border(strip, plane, geometry, height, width):  # type: ignore
    """Zeros around an image that is to fill the inner part of a plane of stride 1."""
    (rows, columns, border), start = geometry, int64(0)
    for y in range(height + 1):  # from one row of the image to the next
        end = (border + y) * columns + border if y < height else rows * columns
        _clear(strip, plane + start * position_bytes(strip), end - start)
        start = end + width


@_part
def _place(geometry, y, x, stride):  # type: ignore
    """Where pixel (y, x) is in a plane [stride, rows, columns]: padded column c is at [c % stride]."""
    rows, columns, border = geometry
    return ((x + border) % stride * rows + y + border) * columns + (x + border) // stride


@_part
def _fill(strip, plane, geometry, source, step, height, width, stride):  # type: ignore
    """Copy the ReLU of an image into a plane."""
    one, (rows, columns, _) = single(strip), geometry
    if stride == 1:
        _clear_border(strip, plane, geometry, height, width)
    else:
        _clear(strip, plane, stride * rows * columns)
    for y in range(height):
        for first in range(min(stride, width)):
            target = plane + _place(geometry, y, first, stride) * position_bytes(strip)
            for x in range(first, width, stride):
                value = load(one, source + (y * width + x) * step)
                store(one, target, where_positive(value, value))
                target += position_bytes(strip)


@_part
def _unload(strip, plane, geometry, changes, change_geometry, target, step, height, width, stride, more):  # type: ignore
    """target (+)= an image of changes, where that in the plane is positive."""
    one, cell = single(strip), position_bytes(strip)
    for y in range(height):
        for first in range(min(stride, width)):
            here = plane + _place(geometry, y, first, stride) * cell
            change = changes + _place(change_geometry, y, first, stride) * cell
            for x in range(first, width, stride):
                value, there = where_positive(load(one, change), load(one, here)), target + (y * width + x) * step
                store(one, there, add(load(one, there), value) if more else value)
                here += cell
                change += cell


@_part
def _fill_product(  # type: ignore
    strip, planes, plane_bytes, blocks, geometry, height, width, depth, x, matrix, x2, matrix2, start, rectify
):  # fmt: skip
    """Fill the planes (stride 1) of one or two blocks with start + x @ matrix + x2 @ matrix2; matrix2 = 0: none."""
    size, cell, (_, columns, border) = number_bytes(strip), position_bytes(strip), geometry
    for block in range(blocks):
        _clear_border(strip, planes + block * plane_bytes, geometry, height, width)
    for y in range(height):
        out, line = (planes + ((y + border) * columns + border) * cell, cell), y * width * depth * size
        left, right = (x + line, depth * size, size), (matrix, depth * size)
        if blocks == 2:
            _product_pair(
                strip, width, depth, left, right, x2 + line, matrix2, (start, int64(0)), out, plane_bytes, rectify
            )  # fmt: skip
        else:
            _product(strip, width, depth, left, right, x2 + line, matrix2, (start, int64(0)), out, rectify)


@_part
def _fill_planes(strip, planes, plane_bytes, geometry, shape, stride, source, mix, i):  # type: ignore
    """Fill a plane per block of channels with the ReLU of input i, or of its product, if there is a mix."""
    _, height, width, depth = shape
    blocks = depth // channels(strip)
    for block in range(0, blocks, 2):
        plane, column, both = planes + block * plane_bytes, block * position_bytes(strip), min(2, blocks - block)
        if len(mix):
            start, matrix = mix[i, 1] + column, mix[i, 0] + column
            _fill_product(
                strip, plane, plane_bytes, both, geometry, height, width, depth, source, matrix,
                int64(0), int64(0), start, int64(1),
            )  # fmt: skip
        else:
            for own in range(both):
                _fill(
                    strip, plane + own * plane_bytes, geometry, source + column + own * position_bytes(strip),
                    depth * number_bytes(strip), height, width, stride,
                )  # fmt: skip


@_part
def _tap_offsets(cell, kernel, dilation, shift, stride, rows, columns):  # type: ignore
    """Byte offset in a plane [stride, rows, columns] of each tap, the first `shift` rows and columns inside."""
    taps = np.empty(kernel * kernel, np.int64)
    for t in range(kernel * kernel):
        y, x = shift + t // kernel * dilation, shift + t % kernel * dilation
        taps[t] = ((x % stride * rows + y) * columns + x // stride) * cell
    return taps


@_part
def geometry_of(size, border, stride):  # type: ignore
    """Rows and columns (of one parity) of the plane that holds what outputs of a size read, and its border."""
    return stride * size[0] + 2 * border, size[1] + 2 * border // stride + 1, border


@_inlined
def _convolve_image(strip, image, i, scratch, shape, stride, border, xs, mix, ws, kinds, first, zs, sums):  # type: ignore
    """All convolutions of input i, for one image."""
    _, height, width, depth = shape
    size = (height - 1) // stride + 1, (width - 1) // stride + 1
    geometry = geometry_of(size, border, stride)
    rows, columns, _ = geometry
    cell, number, blocks = position_bytes(strip), number_bytes(strip), depth // channels(strip)
    plane_bytes, w_step = stride * rows * columns * cell, depth * number
    source, count = xs[i] + image * height * width * w_step, size[0] * size[1]
    _fill_planes(strip, scratch, plane_bytes, geometry, shape, stride, source, mix, i)
    free = scratch + blocks * plane_bytes
    for j in range(first[i], first[i + 1]):
        kernel, dilation = kinds[j]
        taps = _tap_offsets(cell, kernel, dilation, border - dilation * (kernel - 1) // 2, stride, rows, columns)
        z = zs[j] + image * count * w_step
        for block in range(blocks):
            plane, out = scratch + block * plane_bytes, (z + block * cell, size[1] * w_step, w_step)
            weight = ws[j] + block * cell
            _correlate(strip, plane, columns * cell, stride, taps, weight, w_step, out, size, int64(0))
        if sums:
            target = sums + j * (depth + 1) * depth * 8
            _column_sums(strip, count, depth, z, w_step, target)
            _outer_sums(strip, count, depth, depth, z, z, free, target + depth * 8)


@_inlined
def _convolve_image_backward(  # type: ignore
    strip, image, i, scratch, shape, stride, border, xs, mix, ws, kinds, first, zs,
    dys, slopes, dxs, dws, dmix, more,
):  # fmt: skip
    _, height, width, depth = shape
    size = (height - 1) // stride + 1, (width - 1) // stride + 1
    geometry = geometry_of(size, border, stride)
    rows, columns, _ = geometry
    cell, number, blocks = position_bytes(strip), number_bytes(strip), depth // channels(strip)
    plane_bytes, w_step = stride * rows * columns * cell, depth * number
    source, count = xs[i] + image * height * width * w_step, size[0] * size[1]
    dx_geometry = (height, width, 0) if stride == 1 else geometry
    dx_bytes = stride * dx_geometry[0] * dx_geometry[1] * cell
    dx_planes = scratch + blocks * plane_bytes
    g_planes, g_bytes = dx_planes + blocks * dx_bytes, (size[0] + 2 * border) * (size[1] + 2 * border) * cell
    free = g_planes + min(2, blocks) * g_bytes
    _fill_planes(strip, scratch, plane_bytes, geometry, shape, stride, source, mix, i)
    for block in range(blocks):
        if len(dxs) and stride > 1:
            _clear(strip, dx_planes + block * dx_bytes, dx_bytes // cell)
    for j in range(first[i], first[i + 1]):
        kernel, dilation = kinds[j]
        own = dilation * (kernel - 1) // 2
        taps = _tap_offsets(cell, kernel, dilation, border - own, stride, rows, columns)
        g_border = own if stride == 1 else 0
        g_geometry = (size[0] + 2 * g_border, size[1] + 2 * g_border, g_border)
        g_row = g_geometry[1] * cell
        g_taps = _tap_offsets(cell, kernel, dilation, int64(0), int64(1), g_geometry[0], g_geometry[1])
        image_bytes = image * count * w_step
        for block in range(blocks):
            plane, dx_plane, column = scratch + block * plane_bytes, dx_planes + block * dx_bytes, block * cell
            if block % 2 == 0:
                dy, z, slope = (
                    dys[j] + image_bytes,
                    zs[j] + image_bytes,
                    slopes[j, 1] + column * (slopes[j, 1] != 0),
                )
                matrix, start = slopes[j, 0] + column, slopes[j, 2] + column
                _fill_product(
                    strip, g_planes, g_bytes, min(2, blocks - block), g_geometry, size[0], size[1], depth, dy,
                    matrix, z, slope, start, int64(0),
                )  # fmt: skip
            g_plane = g_planes + block % 2 * g_bytes
            inner = g_plane + g_border * g_row + g_border * cell
            if dws[j]:
                dw = dws[j] + column // number * 8
                _weight_sums(strip, plane, columns * cell, stride, taps, inner, g_row, free, dw, depth * 8, size)
            if len(dxs) and stride == 1:  # a correlation with the flipped kernel
                last = ws[j] + column + (kernel * kernel - 1) * w_step
                out = (dx_plane, width * cell, cell)
                _correlate(
                    strip,
                    g_plane,
                    g_row,
                    int64(1),
                    g_taps,
                    last,
                    -w_step,
                    out,
                    (height, width),
                    int64(j > first[i]),
                )
            elif len(dxs):
                weight = ws[j] + column
                one = single(strip)
                _spread_taps(one, dx_plane, columns * cell, stride, taps, weight, w_step, inner, g_row, size)
    if len(dxs):
        target = dxs[i] + image * height * width * w_step
        for block in range(blocks):
            plane, dx_plane, there = (
                scratch + block * plane_bytes,
                dx_planes + block * dx_bytes,
                target + block * cell,
            )
            _unload(strip, plane, geometry, dx_plane, dx_geometry, there, w_step, height, width, stride, more)
        if len(dmix):
            _column_sums(strip, height * width, depth, target, w_step, dmix[i])
            _outer_sums(strip, height * width, depth, depth, source, target, free, dmix[i] + depth * 8)


@functools.cache
def convolve(strip: Strip) -> Any:
    """Depthwise convolutions j of relu(x_i), first[i] <= j < first[i + 1], and the moments of what they give.

    The task's words:
        scratch, and its bytes for each share; batch, height, width, channels of an input; stride; the widest
        padding; numbers of inputs and outputs;
        xs: addresses of the inputs, dense [batch, height, width, channels];
        mixed, mix: whether x_i stands for x_i @ matrix + bias, whose addresses are mix[i];
        ws: addresses of kernels [kernel * kernel, channels]; kinds [j, 2]: kernel and dilation; first;
        zs: addresses of the outputs;
        sums: per share the address of [j, 1 + channels, channels], to which sums of z and (the upper triangle) of
            its products are added; zero: not wanted.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 20)
        shares, shape, inputs, outputs = a[1], (a[4], a[5], a[6], a[7]), a[10], a[11]
        xs, mix, ws = words(a[12], inputs), words(a[14], (inputs * a[13], 2)), words(a[15], outputs)
        kinds, first, zs, sums = (
            words(a[16], (outputs, 2)),
            words(a[17], inputs + 1),
            words(a[18], outputs),
            words(a[19], shares),
        )
        share, items = take_share(block), inputs * a[4]
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _convolve_image(
                    strip, item // inputs, item % inputs, a[2] + share * a[3], shape, a[8], a[9],
                    xs, mix, ws, kinds, first, zs, sums[share],
                )  # fmt: skip
            share = take_share(block)

    return task


@functools.cache
def convolve_backward(strip: Strip) -> Any:
    """Gradients of `convolve`, where that of z_j is dy_j @ slopes[j, 0] + z_j @ slopes[j, 1] + slopes[j, 2].

    The task's words are those of `convolve` up to zs; then:
        dys: addresses; slopes: [j, 3] addresses of two matrices (the second may be none, 0) and a vector;
        wanted, dxs: whether, and addresses where, gradients of the inputs (what stands for them) are wanted;
        dws: per share and j the address of sums [kernel * kernel, channels] to add to; 0: not wanted;
        dmix: per share and input the address of sums [1 + channels, channels] for gradients of biases and matrices,
            if both `mixed` and `wanted`;
        more: whether dxs are added to.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 26)
        shares, shape, inputs, outputs = a[1], (a[4], a[5], a[6], a[7]), a[10], a[11]
        xs, mix, ws = words(a[12], inputs), words(a[14], (inputs * a[13], 2)), words(a[15], outputs)
        kinds, first, zs = words(a[16], (outputs, 2)), words(a[17], inputs + 1), words(a[18], outputs)
        dys, slopes, dxs = words(a[19], outputs), words(a[20], (outputs, 3)), words(a[22], inputs * a[21])
        dws, dmix = words(a[23], (shares, outputs)), words(a[24], (shares, inputs * a[13] * a[21]))
        share, items = take_share(block), inputs * a[4]
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _convolve_image_backward(
                    strip, item // inputs, item % inputs, a[2] + share * a[3], shape, a[8], a[9],
                    xs, mix, ws, kinds, first, zs, dys, slopes, dxs, dws[share], dmix[share], a[25],
                )  # fmt: skip
            share = take_share(block)

    return task


@_inlined
def _combine_image(strip, image, count, depth, zs, matrices, xs, scales, bias, out):  # type: ignore
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
                    _product_pair(strip, rows, depth, left, right, int64(0), int64(0), y, y, cell, int64(0))
                else:
                    _product(strip, rows, depth, left, right, int64(0), int64(0), y, y, int64(0))


@functools.cache
def combine(strip: Strip) -> Any:
    """out = bias + sum over t of z_t @ matrix_t + sum over d of scale_d * x_d.

    The task's words: images, positions of each, channels, numbers of t and of d, and addresses: zs, matrices, xs,
    scales, bias, out. All maps are dense [images * positions, channels].
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 13)
        shares, images = a[1], a[2]
        zs, matrices, xs, scales = words(a[7], a[5]), words(a[8], a[5]), words(a[9], a[6]), words(a[10], a[6])
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                _combine_image(strip, image, a[3], a[4], zs, matrices, xs, scales, a[11], a[12])
            share = take_share(block)

    return task


@_inlined
def _combine_image_backward(strip, image, scratch, count, depth, zs, xs, dy, sums):  # type: ignore
    step, offset = depth * number_bytes(strip), image * count * depth * number_bytes(strip)
    _column_sums(strip, count, depth, dy + offset, step, sums)
    for d in range(len(xs)):
        _inner_sums(strip, count, depth, xs[d] + offset, dy + offset, sums + (1 + d) * depth * 8)
    for t in range(len(zs)):
        target = sums + (1 + len(xs) + t * depth) * depth * 8
        _outer_sums(strip, count, depth, depth, zs[t] + offset, dy + offset, scratch, target)


@functools.cache
def combine_backward(strip: Strip) -> Any:
    """Adds gradients of bias, scales and matrices of `combine` to per-share sums [1 + d + t * channels, channels].

    The task's words: scratch, and its bytes for each share; images, positions of each, channels, numbers of t and
    of d, and addresses: zs, xs, dy, and sums per share.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 13)
        shares, images = a[1], a[4]
        zs, xs, sums = words(a[9], a[7]), words(a[10], a[8]), words(a[12], shares)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                _combine_image_backward(strip, image, a[2] + share * a[3], a[5], a[6], zs, xs, a[11], sums[share])
            share = take_share(block)

    return task


@_part
def _rectify(strip, rows, valid, width, x, step, out):  # type: ignore
    """out [rows, width] = relu of `valid` positions of x, `step` bytes apart, then zeros."""
    one, blocks = single(strip), width // channels(strip)
    for row in range(rows):
        for block in range(blocks):
            value = zero(one)
            if row < valid:
                value = load(one, x + row * step + block * position_bytes(strip))
            store(one, out + (row * blocks + block) * position_bytes(strip), where_positive(value, value))


@_part
def _read(part, halves, height, width, y, x, rows):  # type: ignore
    """Of outputs from (y, x) on, the first pixel read for a half (its number in the image), and how many exist."""
    row, column = y * halves + part, x * halves + part
    if row >= height or column >= width:
        return 0, 0
    return row * width + column, min(rows, (width - column - 1) // halves + 1)


@_part
def _square_sums(strip, rows, depth, x, target):  # type: ignore
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


@_inlined
def _pointwise_image(strip, image, scratch, shape, depths, xs, matrices, out, sums):  # type: ignore
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
            for part in range(halves):
                start, valid = _read(part, halves, height, width, y, x, rows)
                for n in range(len(xs)):
                    source = xs[n] + (image * height * width + start) * step
                    _rectify(strip, rows, valid, inner, source, halves * step, rectified)
                    for column in range(0, depths[part] * size, cell):
                        there = (target + first * size + column, depth * size)
                        begin = (scratch, int64(0)) if n == 0 else there
                        right = (matrices[part * len(xs) + n] + column, depths[part] * size)
                        _product(
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
                first += depths[part]
            if sums:
                _square_sums(strip, rows, depth, target, sums)


@functools.cache
def pointwise(strip: Strip) -> Any:
    """out [.., depth] = sum over n of relu(x_n [.., width]) @ matrix_n, and the sums of that and its squares.

    The task's words: scratch, and its bytes for each share; images, height, width, channels; the numbers of nodes n
    and of halves h: with one all pixels are read, with two pixels (2y + h, 2x + h) for each part's columns; and
    addresses: xs; depths (numbers of columns) of halves; matrices [h, n]; out; per share of sums [2, depth] to add
    to, 0: not wanted. All is dense.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 15)
        shares, shape, nodes, halves = a[1], (a[4], a[5], a[6], a[7]), a[8], a[9]
        xs, depths = words(a[10], nodes), words(a[11], halves)
        matrices, sums = words(a[12], halves * nodes), words(a[14], shares)
        share = take_share(block)
        while share < shares:
            for image in range(share * a[4] // shares, (share + 1) * a[4] // shares):
                _pointwise_image(
                    strip, image, a[2] + share * a[3], shape, depths, xs, matrices, a[13], sums[share]
                )  # fmt: skip
            share = take_share(block)

    return task


@functools.cache
def sums_with(strip: Strip) -> Any:
    """Sums over positions of y and of y * h.

    The task's words: images, positions of each, channels, and addresses: y, h, and per share of sums [2, channels].
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 8)
        shares, images, count, depth, sums = a[1], a[2], a[3], a[4], words(a[7], a[1])
        step = depth * number_bytes(strip)
        share = take_share(block)
        while share < shares:
            for image in range(share * images // shares, (share + 1) * images // shares):
                y, h = a[5] + image * count * step, a[6] + image * count * step
                _column_sums(strip, count, depth, y, step, sums[share])
                _inner_sums(strip, count, depth, y, h, sums[share] + depth * 8)
            share = take_share(block)

    return task


@_part
def _change(strip, rows, depth, y, h, step, coefficients, c_step, out):  # type: ignore
    """out [rows, depth] = a * y + b * h + c, for rows a, b, c of coefficients."""
    one = single(strip)
    for column in range(0, depth * number_bytes(strip), position_bytes(strip)):
        a, b = load(one, coefficients + column), load(one, coefficients + c_step + column)
        c = load(one, coefficients + 2 * c_step + column)
        for row in range(rows):
            where = row * step + column
            value = fma(load(one, y + where), a, fma(load(one, h + where), b, c))
            store(one, out + row * depth * number_bytes(strip) + column, value)


@_inlined
def _pointwise_image_backward(  # type: ignore
    strip, image, scratch, shape, depths, xs, matrices, dh, h, coefficients, dxs, sums
):  # fmt: skip
    size, cell, one, halves = number_bytes(strip), position_bytes(strip), single(strip), len(depths)
    _, height, width, inner = shape
    step, pixels = inner * size, height * width
    if halves == 1:
        height, width = 1, height * width
    else:  # some pixels are not read
        for n in range(len(dxs)):
            _clear(one, dxs[n] + image * pixels * step, pixels * inner // channels(strip))
    lines, length, depth = (height - 1) // halves + 1, (width - 1) // halves + 1, depths.sum()
    store(one, scratch, zero(one))
    rectified = scratch + cell
    changes = rectified + CHUNK * step
    for y in range(lines):
        for x in range(0, length, CHUNK):
            rows, target, first = min(CHUNK, length - x), sums, 0
            place = ((image * lines + y) * length + x) * depth * size
            for part in range(halves):
                own = depths[part]
                free = changes + CHUNK * own * size
                there = place + first * size
                columns = (coefficients + first * size, depth * size)
                _change(strip, rows, own, dh + there, h + there, depth * size, columns[0], columns[1], changes)
                start, valid = _read(part, halves, height, width, y, x, rows)
                for n in range(len(xs)):
                    source = (image * pixels + start) * step
                    _rectify(strip, rows, valid, inner, xs[n] + source, halves * step, rectified)
                    if sums:
                        _outer_sums(strip, rows, inner, own, rectified, changes, free, target)
                        target += inner * own * 8
                    if not len(dxs):
                        continue
                    for column in range(0, step, cell):
                        dx = (dxs[n] + source + column, halves * step)
                        left = (changes, own * size, size)
                        right = (matrices[part * len(xs) + n] + column, step)
                        _product(
                            strip, valid, own, left, right, int64(0), int64(0), (scratch, int64(0)), dx, int64(0)
                        )
                        for row in range(valid):
                            here = dx[0] + row * dx[1]
                            value = load(one, rectified + row * step + column)
                            store(one, here, where_positive(load(one, here), value))
                first += own


@functools.cache
def pointwise_backward(strip: Strip) -> Any:
    """Gradients of `pointwise`, where that of its result is a * dh + b * h + c.

    The task's words are those of `pointwise` up to depths; then addresses: the transposed matrices [h, n], dh, h,
    coefficients [3, depth]; whether gradients of the nodes are wanted, and their addresses; and per share that of
    sums [h, n, width, depth of h] for those of the matrices to add to; 0: not wanted.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 19)
        shares, shape, nodes, halves = a[1], (a[4], a[5], a[6], a[7]), a[8], a[9]
        xs, depths, matrices = words(a[10], nodes), words(a[11], halves), words(a[12], halves * nodes)
        dxs, sums = words(a[17], nodes * a[16]), words(a[18], shares)
        share = take_share(block)
        while share < shares:
            for image in range(share * a[4] // shares, (share + 1) * a[4] // shares):
                _pointwise_image_backward(
                    strip, image, a[2] + share * a[3], shape, depths, xs, matrices, a[13], a[14], a[15], dxs,
                    sums[share],
                )  # fmt: skip
            share = take_share(block)

    return task


@_inlined
def _pool_image(strip, image, i, shape, stride, xs, maxima, averages, sums):  # type: ignore
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
def pool(strip: Strip) -> Any:
    """3x3 maximum and average pooling (of the pixels inside) of images.

    The task's words: batch, height, width, channels; stride; numbers of images, of maxima and of averages (0: not
    wanted), and addresses: xs, maxima, averages, and per share [i, 4, channels], to which sums of maxima, of their
    squares, of averages and of theirs are added; 0: not wanted.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 14)
        shares, shape, inputs = a[1], (a[2], a[3], a[4], a[5]), a[7]
        xs, maxima, averages, sums = (
            words(a[10], inputs),
            words(a[11], a[8]),
            words(a[12], a[9]),
            words(a[13], shares),
        )
        share, items = take_share(block), inputs * a[2]
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _pool_image(strip, item // inputs, item % inputs, shape, a[6], xs, maxima, averages, sums[share])
            share = take_share(block)

    return task


@_part
def _weighted(strip, where, dys, scales, column, total):  # type: ignore
    """total + sum over t of scales[t] * dys[t]; no scales: total."""
    for t in range(len(scales)):
        total = fma(load(strip, dys[t] + where), load(strip, scales[t] + column), total)
    return total


@_inlined
def _pool_image_backward(strip, image, i, shape, stride, xs, maxima, averages, dys, scales, slopes, dxs):  # type: ignore
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
                    rest = fma(best, load(one, slopes[i, 0] + column), load(one, slopes[i, 1] + column))
                    rest = _weighted(one, where, dys[i], max_scales[i], column, rest)
                if len(averages):
                    share = load(one, averages[i] + where)
                    share = fma(share, load(one, slopes[i, 2] + column), load(one, slopes[i, 3] + column))
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
def pool_backward(strip: Strip) -> Any:
    """The gradients of images, whose pools and which themselves were summed elsewhere with scales.

    The task's words are those of `pool` up to averages; then the number t of those sums per image; addresses of
        dys: [i, t] addresses of the gradients of those sums;
        scales of maxima, averages and the images themselves: [i, t] addresses of vectors, each after whether it is;
        slopes: [i, 4] addresses of vectors: slope and constant, times a maximum and for itself, that add to the
            gradient of maxima, and the same for averages;
        dxs: addresses of the gradients.
    """

    @_task(strip)
    def task(block):  # type: ignore[no-untyped-def]
        a = carray(block, 23)
        shares, shape, inputs, sums = a[1], (a[2], a[3], a[4], a[5]), a[7], a[13]
        xs, maxima, averages = words(a[10], inputs), words(a[11], a[8]), words(a[12], a[9])
        dys = words(a[14], (inputs, sums))
        scales = (
            words(a[16], (inputs, sums * a[15])),
            words(a[18], (inputs, sums * a[17])),
            words(a[20], (inputs, sums * a[19])),
        )
        slopes, dxs = words(a[21], (inputs, 4)), words(a[22], inputs)
        share, items = take_share(block), inputs * a[2]
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _pool_image_backward(
                    strip,
                    item // inputs,
                    item % inputs,
                    shape,
                    a[6],
                    xs,
                    maxima,
                    averages,
                    dys,
                    scales,
                    slopes,
                    dxs,
                )
            share = take_share(block)

    return task


def scratch_bytes(strip: Strip, shape: tuple[int, int, int, int], stride: int, border: int, kernel: int) -> int:
    """Bytes per thread that `convolve_backward`, the greediest, needs for kernels of up to a size."""
    _, height, width, depth = shape
    size = (height - 1) // stride + 1, (width - 1) // stride + 1
    rows, columns, _ = geometry_of.py_func(size, border, stride)
    cell = strip.channels * strip.bits // 8
    planes = 2 * depth // strip.channels * stride * rows * columns + 2 * (size[0] + 2 * border) * (
        size[1] + 2 * border
    )
    return (planes + max(kernel**2 * strip.positions, depth + 1)) * cell + 64


@_summing
def moment_rows(sums, count, kinds, first, last, mean, covariance):  # type: ignore
    """`folding.moments`, on float64 arrays; mean and covariance are written."""
    shares, columns, own, inverse = len(sums), mean.shape[1], last - first, 1.0 / count[0]
    for m in range(len(mean)):
        n = m // own * kinds + first + m % own
        for i in range(columns):
            mean[m, i] = 0.0
            for share in range(shares):
                mean[m, i] += sums[share, n, 0, i] * inverse
        for o in range(columns):
            for i in range(o):
                covariance[m, o, i] = covariance[m, i, o]
            for i in range(o, columns):
                covariance[m, o, i] = -mean[m, o] * mean[m, i]
            for share in range(shares):
                for i in range(o, columns):
                    covariance[m, o, i] += sums[share, n, 1 + o, i] * inverse


@_summing
def owe_rows(mean, count, d_mean, d_covariance, kinds, first, slope, constant):  # type: ignore
    """`folding.owe_moments`; slope and constant are written."""
    columns, edges = mean.shape[1], len(slope) // kinds
    own, inverse = len(mean) // edges, 1.0 / count[0]
    total = np.empty(columns)
    for m in range(len(mean)):
        n = m // own * kinds + first + m % own
        for i in range(columns):
            total[i] = d_mean[m, i] * inverse
        for o in range(columns):
            for i in range(columns):
                change = 2.0 * inverse * d_covariance[m, o, i]
                total[i] -= mean[m, o] * change
                slope[n, o, i] = change
        for i in range(columns):
            constant[n, i] = total[i]


@_summing
def fold_rows(weight, p, mean, product, eps, y_mean, y_variance, deviation, matrix, right, bias):  # type: ignore
    """`folding.fold` after its matrix product, on float64 arrays; everything from `y_mean` on is written."""
    count, rows, columns = weight.shape
    for n in range(count):
        for o in range(rows):
            total, variance = 0.0, 0.0
            for i in range(columns):
                total += weight[n, o, i] * mean[n, i]
                variance += weight[n, o, i] * product[n, o, i]
            variance = max(variance, 0.0)
            inverse = 1.0 / np.sqrt(variance + eps)
            scale = p[n] * inverse
            y_mean[n, o], y_variance[n, o], deviation[n, o], bias[n, o] = total, variance, inverse, -scale * total
            for i in range(columns):
                matrix[n, o, i] = scale * weight[n, o, i]
            for i in range(columns):
                right[n, i, o] = matrix[n, o, i]


@_summing
def unfold_rows(  # type: ignore
    weight, p, mean, product, y_mean, deviation, d_right, d_bias, d_weight, d_p, d_mean, d_product
):  # fmt: skip
    """`folding.fold_backward` before its matrix product: d_product is what the weight's transpose multiplies."""
    count, rows, columns = weight.shape
    kinds = count // len(d_bias)
    for n in range(count):
        d_p[n] = 0.0
        d_mean[n] = 0.0
        for o in range(rows):
            for i in range(columns):
                d_weight[n, o, i] = d_right[n, i, o]
            d_bias_o = d_bias[n // kinds, o]
            scale, d_scale = p[n] * deviation[n, o], -d_bias_o * y_mean[n, o]
            for i in range(columns):
                d_scale += d_weight[n, o, i] * weight[n, o, i]
            d_y_mean = -scale * d_bias_o
            d_variance = -0.5 * d_scale * scale * deviation[n, o] * deviation[n, o]
            d_p[n] += d_scale * deviation[n, o]
            for i in range(columns):
                change = d_y_mean * mean[n, i] + 2.0 * d_variance * product[n, o, i]
                d_weight[n, o, i] = scale * d_weight[n, o, i] + change
                d_mean[n, i] += d_y_mean * weight[n, o, i]
                d_product[n, o, i] = d_variance * weight[n, o, i]
