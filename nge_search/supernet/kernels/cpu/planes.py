"""Planes: zero-padded blocks of channels of one image, and where in them pixels and taps are."""

from __future__ import annotations

import numpy as np
from numba import int64

from nge_search.native.simd import (
    add,
    channels,
    load,
    number_bytes,
    position_bytes,
    single,
    store,
    where_positive,
    zero,
)
from nge_search.supernet.kernels.cpu.decorators import part
from nge_search.supernet.kernels.cpu.products import product, product_pair


@part
def clear(strip, plane, count):
    for position in range(count):
        store(single(strip), plane + position * position_bytes(strip), zero(single(strip)))


@part
def _clear_border(strip, plane, geometry, height, width):
    """Zeros around an image that is to fill the inner part of a plane of stride 1."""
    (rows, columns, border), start = geometry, int64(0)
    for y in range(height + 1):  # from one row of the image to the next
        end = (border + y) * columns + border if y < height else rows * columns
        clear(strip, plane + start * position_bytes(strip), end - start)
        start = end + width


@part
def _place(geometry, y, x, stride):
    """Where pixel (y, x) is in a plane [stride, rows, columns]: padded column c is at [c % stride]."""
    rows, columns, border = geometry
    return ((x + border) % stride * rows + y + border) * columns + (x + border) // stride


@part
def _fill(strip, plane, geometry, source, step, height, width, stride):
    """Copy the ReLU of an image into a plane."""
    one, (rows, columns, _) = single(strip), geometry
    if stride == 1:
        _clear_border(strip, plane, geometry, height, width)
    else:
        clear(strip, plane, stride * rows * columns)
    for y in range(height):
        for first in range(min(stride, width)):
            target = plane + _place(geometry, y, first, stride) * position_bytes(strip)
            for x in range(first, width, stride):
                value = load(one, source + (y * width + x) * step)
                store(one, target, where_positive(value, value))
                target += position_bytes(strip)


@part
def unload(strip, plane, geometry, changes, change_geometry, target, step, height, width, stride, more):
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


@part
def fill_product(
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
            product_pair(
                strip, width, depth, left, right, x2 + line, matrix2, (start, int64(0)), out, plane_bytes, rectify
            )  # fmt: skip
        else:
            product(strip, width, depth, left, right, x2 + line, matrix2, (start, int64(0)), out, rectify)


@part
def fill_planes(strip, planes, plane_bytes, geometry, shape, stride, source, mix, i):
    """Fill a plane per block of channels with the ReLU of input i, or of its product, if there is a mix."""
    _, height, width, depth = shape
    blocks = depth // channels(strip)
    for block in range(0, blocks, 2):
        plane, column, both = planes + block * plane_bytes, block * position_bytes(strip), min(2, blocks - block)
        if len(mix):
            start, matrix = mix[i].bias + column, mix[i].matrix + column
            fill_product(
                strip, plane, plane_bytes, both, geometry, height, width, depth, source, matrix,
                int64(0), int64(0), start, int64(1),
            )  # fmt: skip
        else:
            for own in range(both):
                _fill(
                    strip, plane + own * plane_bytes, geometry, source + column + own * position_bytes(strip),
                    depth * number_bytes(strip), height, width, stride,
                )  # fmt: skip


@part
def tap_offsets(cell, kernel, dilation, shift, stride, rows, columns):
    """Byte offset in a plane [stride, rows, columns] of each tap, the first `shift` rows and columns inside."""
    taps = np.empty(kernel * kernel, np.int64)
    for t in range(kernel * kernel):
        y, x = shift + t // kernel * dilation, shift + t % kernel * dilation
        taps[t] = ((x % stride * rows + y) * columns + x // stride) * cell
    return taps


@part
def geometry_of(size, border, stride):
    """Rows and columns (of one parity) of the plane that holds what outputs of a size read, and its border."""
    return stride * size[0] + 2 * border, size[1] + 2 * border // stride + 1, border
