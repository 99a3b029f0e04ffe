"""Depthwise convolutions on a CPU: compiled kernels that compute several of them from one read of an image.

Per image and block of channels, the input is copied into a zero-padded plane that stays in the cache; taps then
need no test for borders. For stride 2 the plane keeps even and odd columns apart, so that adjacent outputs read
adjacent inputs. A weight gradient is accumulated in registers along a row, per thread.
"""

from __future__ import annotations

import numpy as np
from numba import config, njit, prange

from nge_search.supernet.lanes import (
    Strip,
    add,
    channels,
    fma,
    fold,
    gather,
    load,
    position_bytes,
    positions,
    scatter,
    single,
    store,
    tile,
    where_positive,
    zero,
)

# torch's own OpenMP threads, where numba finds the same library: two pools would fight for the cores.
config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]


@njit(cache=True)
def _correlate(strip, plane, row, stride, taps, w, w_step, out, out_step, height, width, x0, accumulate):  # type: ignore
    """out[y, x] (+)= sum over t of w[t] * plane[stride * y, x + tap t], for x from x0.

    Strips that do not fit are left out; returns the x of the first. `taps` are byte offsets in the plane.
    """
    x = x0
    for y in range(height):
        x = x0
        while x + positions(strip) <= width:
            here, weight = plane + stride * y * row + x * position_bytes(strip), w
            total = zero(strip)
            for t in range(len(taps)):
                total = fma(load(strip, here + taps[t]), tile(strip, weight), total)
                weight += w_step
            target = out + (y * width + x) * out_step
            if accumulate:
                total = add(total, gather(strip, target, out_step))
            scatter(strip, target, out_step, total)
            x += positions(strip)
    return x


@njit(cache=True)
def _correlate_gradient(strip, plane, row, stride, taps, g, g_row, sums, dw, dw_step, height, width, x0):  # type: ignore
    """dw[t] += sum over y and x from x0 of g[y, x] * plane[stride * y, x + tap t]; `sums` is scratch."""
    wide = positions(strip) * position_bytes(strip)
    for t in range(len(taps)):
        store(strip, sums + t * wide, zero(strip))
    x = x0
    for y in range(height):
        here, gradient = plane + stride * y * row, g + y * g_row
        for t in range(len(taps)):
            total = load(strip, sums + t * wide)
            x = x0
            while x + positions(strip) <= width:
                offset = x * position_bytes(strip)
                total = fma(load(strip, here + taps[t] + offset), load(strip, gradient + offset), total)
                x += positions(strip)
            store(strip, sums + t * wide, total)
    for t in range(len(taps)):
        target = dw + t * dw_step
        total = add(load(single(strip), target), fold(strip, load(strip, sums + t * wide)))
        store(single(strip), target, total)
    return x


@njit(cache=True)
def _spread(strip, plane, row, stride, taps, w, w_step, g, g_row, height, width, x0):  # type: ignore
    """plane[stride * y, x + tap t] += w[t] * g[y, x] for x from x0; returns the first x left out."""
    x = x0
    for y in range(height):
        here, gradient = plane + stride * y * row, g + y * g_row
        for t in range(len(taps)):
            weight = tile(strip, w + t * w_step)
            x = x0
            while x + positions(strip) <= width:
                offset = x * position_bytes(strip)
                target = here + taps[t] + offset
                store(strip, target, fma(load(strip, gradient + offset), weight, load(strip, target)))
                x += positions(strip)
    return x


@njit(cache=True)
def _fill(strip, plane, rows, columns, source, step, height, width, border, stride, relu):  # type: ignore
    """Copy an image into a plane [stride, rows, columns]: column c of the padded image is at [c % stride]."""
    one = single(strip)
    for r in range(rows):
        y = r - border
        for parity in range(stride):
            target = plane + (parity * rows + r) * columns * position_bytes(strip)
            for column in range(columns):
                x = column * stride + parity - border
                if 0 <= y < height and 0 <= x < width:
                    value = load(one, source + (y * width + x) * step)
                    if relu:
                        value = where_positive(value, value)
                    store(one, target, value)
                else:
                    store(one, target, zero(one))
                target += position_bytes(strip)


@njit(cache=True)
def _empty(strip, plane, rows, columns, target, step, height, width, border, stride, relu, source, x_step, more):  # type: ignore
    """The reverse of `_fill`: copy (or with `more` add) a plane's image, where relu's input is positive."""
    one = single(strip)
    for y in range(height):
        for x in range(width):
            column = x + border
            inside = (column % stride * rows + y + border) * columns + column // stride
            value = load(one, plane + inside * position_bytes(strip))
            position = y * width + x
            if relu:
                value = where_positive(value, load(one, source + position * x_step))
            if more:
                value = add(value, load(one, target + position * step))
            store(one, target + position * step, value)


@njit(cache=True)
def _tap_offsets(cell, kernel, dilation, stride, rows, columns):  # type: ignore
    """Byte offset of each tap in a plane [stride, rows, columns] from that of the first."""
    taps = np.empty(kernel * kernel, np.int64)
    for t in range(kernel * kernel):
        y, x = t // kernel * dilation, t % kernel * dilation
        taps[t] = ((x % stride * rows + y) * columns + x // stride) * cell
    return taps


@njit(cache=True)
def _geometry(shape, taps):  # type: ignore
    """Height and width of outputs; border, rows and columns of the inputs' plane (columns of one parity)."""
    _, height, width, _ = shape
    kernel, dilation, stride = taps
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    border = dilation * (kernel - 1) // 2
    rows, columns = stride * (out_height - 1) + 2 * border + 1, out_width + 2 * border // stride + 1
    return out_height, out_width, border, rows, columns


@njit(cache=True, nogil=True)
def _forward_items(strip, first, last, plane, shape, taps_shape, xs, x_step, ws, outs, out_step):  # type: ignore
    """Items `first` to `last` of inputs x images x blocks of channels."""
    batch, height, width, depth = shape
    kernel, dilation, stride = taps_shape
    out_height, out_width, border, rows, columns = _geometry(shape, taps_shape)
    cell = position_bytes(strip)
    taps = _tap_offsets(cell, kernel, dilation, stride, rows, columns)
    blocks, per_input = depth // channels(strip), len(ws) // len(xs)
    row, w_step = columns * cell, blocks * cell
    for item in range(first, last):
        i, image, block = item // (batch * blocks), item // blocks % batch, item % blocks
        source = xs[i] + image * height * width * x_step + block * cell
        _fill(strip, plane, rows, columns, source, x_step, height, width, border, stride, True)
        for j in range(i * per_input, (i + 1) * per_input):
            w, out = ws[j] + block * cell, outs[j] + image * out_height * out_width * out_step + block * cell
            x = _correlate(
                strip, plane, row, stride, taps, w, w_step, out, out_step, out_height, out_width, 0, False
            )
            if x < out_width:
                _correlate(
                    single(strip),
                    plane,
                    row,
                    stride,
                    taps,
                    w,
                    w_step,
                    out,
                    out_step,
                    out_height,
                    out_width,
                    x,
                    False,
                )


@njit(cache=True, nogil=True)
def _backward_items(  # type: ignore
    strip, first, last, plane, shape, taps_shape,
    xs, x_step, gs, g_step, ws, dxs, dx_step, accumulate, dws,
):  # fmt: skip
    batch, height, width, depth = shape
    kernel, dilation, stride = taps_shape
    out_height, out_width, border, rows, columns = _geometry(shape, taps_shape)
    g_border = border if stride == 1 else 0
    g_rows, g_columns = out_height + 2 * g_border, out_width + 2 * g_border
    cell, count = position_bytes(strip), kernel * kernel
    taps = _tap_offsets(cell, kernel, dilation, stride, rows, columns)
    g_taps = _tap_offsets(cell, kernel, dilation, 1, g_rows, g_columns)
    blocks, per_input = depth // channels(strip), len(gs) // len(xs)
    row, g_row, w_step = columns * cell, g_columns * cell, blocks * cell
    dx_plane = plane + stride * rows * columns * cell
    g_plane = dx_plane + stride * rows * columns * cell
    sums = g_plane + g_rows * g_columns * cell
    g_inner = g_plane + (g_border * g_columns + g_border) * cell
    for item in range(first, last):
        i, image, block = item // (batch * blocks), item // blocks % batch, item % blocks
        source = xs[i] + image * height * width * x_step + block * cell
        if len(dws):
            _fill(strip, plane, rows, columns, source, x_step, height, width, border, stride, True)
        if len(dxs):
            for position in range(stride * rows * columns):
                store(single(strip), dx_plane + position * cell, zero(single(strip)))
        for j in range(i * per_input, (i + 1) * per_input):
            g, w = gs[j] + image * out_height * out_width * g_step + block * cell, ws[j] + block * cell
            _fill(strip, g_plane, g_rows, g_columns, g, g_step, out_height, out_width, g_border, 1, False)
            if len(dws):
                dw = dws[j] + block * cell
                x = _correlate_gradient(
                    strip, plane, row, stride, taps, g_inner, g_row, sums, dw, w_step, out_height, out_width, 0
                )
                if x < out_width:
                    _correlate_gradient(
                        single(strip), plane, row, stride, taps, g_inner, g_row, sums, dw, w_step,
                        out_height, out_width, x,
                    )  # fmt: skip
            if len(dxs) and stride == 1:  # a correlation with the flipped kernel
                w += (count - 1) * w_step
                target = dx_plane + (border * columns + border) * cell
                for y in range(height):  # rows of the plane are wider than those of an image
                    line, source_line = target + y * row, g_plane + y * g_row
                    x = _correlate(strip, source_line, g_row, 1, g_taps, w, -w_step, line, cell, 1, width, 0, True)
                    if x < width:
                        _correlate(
                            single(strip), source_line, g_row, 1, g_taps, w, -w_step, line, cell, 1, width, x, True
                        )
            elif len(dxs):
                x = _spread(strip, dx_plane, row, stride, taps, w, w_step, g_inner, g_row, out_height, out_width, 0)
                if x < out_width:
                    _spread(
                        single(strip),
                        dx_plane,
                        row,
                        stride,
                        taps,
                        w,
                        w_step,
                        g_inner,
                        g_row,
                        out_height,
                        out_width,
                        x,
                    )
        if len(dxs):
            target = dxs[i] + image * height * width * dx_step + block * cell
            _empty(
                strip, dx_plane, rows, columns, target, dx_step,
                height, width, border, stride, True, source, x_step, accumulate,
            )  # fmt: skip


@njit(parallel=True, cache=True)
def forward(strip, threads, scratch, scratch_bytes, shape, taps, xs, x_step, ws, outs, out_step):  # type: ignore
    """The convolutions that `depthwise.depthwise` describes; images and kernels by their addresses.

    Args:
        shape: (batch, height, width, channels) of an input; taps: (kernel, dilation, stride).
        xs, outs: addresses of images; x_step, out_step: bytes between their positions.
        ws: addresses of kernels [K * K, channels].
    """
    items = len(xs) * shape[0] * (shape[3] // channels(strip))
    for thread in prange(threads):
        first, last = thread * items // threads, (thread + 1) * items // threads
        _forward_items(
            strip, first, last, scratch + thread * scratch_bytes, shape, taps, xs, x_step, ws, outs, out_step
        )


@njit(parallel=True, cache=True)
def backward(  # type: ignore
    strip, threads, scratch, scratch_bytes, shape, taps,
    xs, x_step, gs, g_step, ws, dxs, dx_step, accumulate, dws,
):  # fmt: skip
    """Its gradients. dxs: empty if not wanted; dws: empty, or [threads, kernels] addresses of sums to add to."""
    items = len(xs) * shape[0] * (shape[3] // channels(strip))
    for thread in prange(threads):
        first, last = thread * items // threads, (thread + 1) * items // threads
        _backward_items(
            strip, first, last, scratch + thread * scratch_bytes, shape, taps,
            xs, x_step, gs, g_step, ws, dxs, dx_step, accumulate, dws[thread],
        )  # fmt: skip


def scratch_bytes(strip: Strip, shape: tuple[int, int, int, int], taps: tuple[int, int, int]) -> int:
    """Bytes per thread that `backward`, the greedier of the two, needs."""
    kernel, _, stride = taps
    out_height, out_width, border, rows, columns = _geometry.py_func(shape, taps)
    planes = 2 * stride * rows * columns + (out_height + 2 * border) * (out_width + 2 * border)
    needed = (planes + kernel * kernel * strip.positions) * strip.channels * strip.bits // 8
    return -(-needed // 64) * 64
