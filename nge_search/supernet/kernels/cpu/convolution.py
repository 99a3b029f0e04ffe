"""Depthwise convolutions of the ReLU of maps, with the moments of what they give, and their gradients."""

from __future__ import annotations

import functools

from numba import carray, int64

from nge_search.native.compiled import Task, record, row
from nge_search.native.simd import Strip, channels, number_bytes, position_bytes, single
from nge_search.native.threads import array, take_share, words
from nge_search.supernet.kernels.cpu.decorators import inlined, task
from nge_search.supernet.kernels.cpu.planes import (
    clear,
    fill_planes,
    fill_product,
    geometry_of,
    tap_offsets,
    unload,
)
from nge_search.supernet.kernels.cpu.sums import column_sums, outer_sums
from nge_search.supernet.kernels.cpu.taps import correlate, spread_taps, weight_sums

#: Of a depthwise convolution; of what stands for an input; of what a map's gradient is made of (slope 0: none).
KIND = row("size", "dilation")
LINEAR = row("matrix", "bias")
OWED = row("matrix", "slope", "constant")
_GIVEN = (
    "scratch", "scratch_bytes", "batch", "height", "width", "channels", "stride", "border", "inputs", "outputs",
    "xs", "mixed", "mix", "ws", "kinds", "first", "zs",
)  # fmt: skip


@inlined
def _convolve_image(strip, image, i, scratch, shape, stride, border, xs, mix, ws, kinds, first, zs, sums):
    """All convolutions of input i, for one image."""
    _, height, width, depth = shape
    size = (height - 1) // stride + 1, (width - 1) // stride + 1
    geometry = geometry_of(size, border, stride)
    rows, columns, _ = geometry
    cell, number, blocks = position_bytes(strip), number_bytes(strip), depth // channels(strip)
    plane_bytes, w_step = stride * rows * columns * cell, depth * number
    source, count = xs[i] + image * height * width * w_step, size[0] * size[1]
    fill_planes(strip, scratch, plane_bytes, geometry, shape, stride, source, mix, i)
    free = scratch + blocks * plane_bytes
    for j in range(first[i], first[i + 1]):
        kernel, dilation = kinds[j].size, kinds[j].dilation
        taps = tap_offsets(cell, kernel, dilation, border - dilation * (kernel - 1) // 2, stride, rows, columns)
        z = zs[j] + image * count * w_step
        for block in range(blocks):
            plane, out = scratch + block * plane_bytes, (z + block * cell, size[1] * w_step, w_step)
            weight = ws[j] + block * cell
            correlate(strip, plane, columns * cell, stride, taps, weight, w_step, out, size, int64(0))
        if sums:
            target = sums + j * (depth + 1) * depth * 8
            column_sums(strip, count, depth, z, w_step, target)
            outer_sums(strip, count, depth, depth, z, z, free, target + depth * 8)


@inlined
def _unload_image(
    strip, planes, plane_bytes, geometry, changes, change_bytes, change_geometry, target, shape, stride, more
):
    """Write changes, a plane for each block of channels, to an image, where the planes are positive."""
    _, height, width, depth = shape
    step, cell = depth * number_bytes(strip), position_bytes(strip)
    for block in range(depth // channels(strip)):
        plane, change, there = planes + block * plane_bytes, changes + block * change_bytes, target + block * cell
        unload(strip, plane, geometry, change, change_geometry, there, step, height, width, stride, more)


@inlined
def _convolve_image_backward(
    strip, image, i, scratch, shape, stride, border, xs, mix, ws, kinds, first, zs,
    dys, owed, dxs, dws, dmix, more,
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
    fill_planes(strip, scratch, plane_bytes, geometry, shape, stride, source, mix, i)
    for block in range(blocks):
        if len(dxs) and stride > 1:
            clear(strip, dx_planes + block * dx_bytes, dx_bytes // cell)
    for j in range(first[i], first[i + 1]):
        kernel, dilation = kinds[j].size, kinds[j].dilation
        own = dilation * (kernel - 1) // 2
        taps = tap_offsets(cell, kernel, dilation, border - own, stride, rows, columns)
        g_border = own if stride == 1 else 0
        g_geometry = (size[0] + 2 * g_border, size[1] + 2 * g_border, g_border)
        g_row = g_geometry[1] * cell
        g_taps = tap_offsets(cell, kernel, dilation, int64(0), int64(1), g_geometry[0], g_geometry[1])
        image_bytes = image * count * w_step
        for block in range(blocks):
            plane, dx_plane, column = scratch + block * plane_bytes, dx_planes + block * dx_bytes, block * cell
            if block % 2 == 0:
                dy, z = dys[j] + image_bytes, zs[j] + image_bytes
                slope = owed[j].slope + column * (owed[j].slope != 0)
                matrix, start = owed[j].matrix + column, owed[j].constant + column
                fill_product(
                    strip, g_planes, g_bytes, min(2, blocks - block), g_geometry, size[0], size[1], depth, dy,
                    matrix, z, slope, start, int64(0),
                )  # fmt: skip
            g_plane = g_planes + block % 2 * g_bytes
            inner = g_plane + g_border * g_row + g_border * cell
            if dws[j]:
                dw = dws[j] + column // number * 8
                weight_sums(strip, plane, columns * cell, stride, taps, inner, g_row, free, dw, depth * 8, size)
            if len(dxs) and stride == 1:  # a correlation with the flipped kernel
                last = ws[j] + column + (kernel * kernel - 1) * w_step
                out = (dx_plane, width * cell, cell)
                more_maps = int64(j > first[i])
                correlate(strip, g_plane, g_row, int64(1), g_taps, last, -w_step, out, (height, width), more_maps)
            elif len(dxs):
                weight, one = ws[j] + column, single(strip)
                spread_taps(one, dx_plane, columns * cell, stride, taps, weight, w_step, inner, g_row, size)
    if len(dxs):
        target = dxs[i] + image * height * width * w_step
        _unload_image(
            strip, scratch, plane_bytes, geometry, dx_planes, dx_bytes, dx_geometry, target, shape, stride, more
        )
        if len(dmix):
            column_sums(strip, height * width, depth, target, w_step, dmix[i])
            outer_sums(strip, height * width, depth, depth, source, target, free, dmix[i] + depth * 8)


@functools.cache
def convolve(strip: Strip) -> Task:
    """Depthwise convolutions j of relu(x_i), first[i] <= j < first[i + 1], and the moments of what they give.

    The task's fields:
        scratch, scratch_bytes: for each share; batch, height, width, channels: of an input; stride; border: the
            widest padding; inputs, outputs: how many;
        xs: addresses of the inputs, dense [batch, height, width, channels];
        mixed, mix: whether x_i stands for x_i @ matrix + bias, whose addresses are mix[i], a `LINEAR`;
        ws: addresses of taps [size * size, channels]; kinds [j] of `KIND`; first;
        zs: addresses of the outputs;
        sums: per share the address of [j, 1 + channels, channels], to which sums of z and (the upper triangle) of
            its products are added; zero: not wanted.
    """

    @task(strip, record(*_GIVEN, "sums"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, shape, inputs, outputs = a.shares, (a.batch, a.height, a.width, a.channels), a.inputs, a.outputs
        xs, mix, ws = words(a.xs, inputs), array(a.mix, inputs * a.mixed, LINEAR), words(a.ws, outputs)
        kinds, first = array(a.kinds, outputs, KIND), words(a.first, inputs + 1)
        zs, sums = words(a.zs, outputs), words(a.sums, shares)
        share, items = take_share(block), inputs * a.batch
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _convolve_image(
                    strip, item // inputs, item % inputs, a.scratch + share * a.scratch_bytes, shape, a.stride,
                    a.border, xs, mix, ws, kinds, first, zs, sums[share],
                )  # fmt: skip
            share = take_share(block)

    return compute


@functools.cache
def convolve_backward(strip: Strip) -> Task:
    """Gradients of `convolve`, where that of z_j is dy_j @ matrix + z_j @ slope + constant, of owed[j].

    The task's fields are those of `convolve` up to zs; then:
        dys: addresses; owed: [j] of `OWED`;
        wanted, dxs: whether, and addresses where, gradients of the inputs (what stands for them) are wanted;
        dws: per share and j the address of sums [size * size, channels] to add to; 0: not wanted;
        dmix: per share and input the address of sums [1 + channels, channels] for gradients of biases and matrices,
            if both `mixed` and `wanted`;
        more: whether dxs are added to.
    """

    @task(strip, record(*_GIVEN, "dys", "owed", "wanted", "dxs", "dws", "dmix", "more"))
    def compute(block):
        a = carray(block, 1)[0]
        shares, shape, inputs, outputs = a.shares, (a.batch, a.height, a.width, a.channels), a.inputs, a.outputs
        xs, mix, ws = words(a.xs, inputs), array(a.mix, inputs * a.mixed, LINEAR), words(a.ws, outputs)
        kinds, first, zs = array(a.kinds, outputs, KIND), words(a.first, inputs + 1), words(a.zs, outputs)
        dys, owed, dxs = words(a.dys, outputs), array(a.owed, outputs, OWED), words(a.dxs, inputs * a.wanted)
        dws, dmix = words(a.dws, (shares, outputs)), words(a.dmix, (shares, inputs * a.mixed * a.wanted))
        share, items = take_share(block), inputs * a.batch
        while share < shares:
            for item in range(share * items // shares, (share + 1) * items // shares):
                _convolve_image_backward(
                    strip, item // inputs, item % inputs, a.scratch + share * a.scratch_bytes, shape, a.stride,
                    a.border, xs, mix, ws, kinds, first, zs, dys, owed, dxs, dws[share], dmix[share], a.more,
                )  # fmt: skip
            share = take_share(block)

    return compute


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
