"""A shift of hue, compiled: the bits of torchvision's `adjust_hue` of a PIL image, in a fraction of the time.

The arithmetic, single precision where it is stored and double within a line, is that of Pillow's `rgb2hsv` and
`hsv2rgb` (libImaging/Convert.c), whose two conversions take more time than decoding and resizing the image.
What depends on one or two bytes alone is looked up.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int64
from PIL import Image

from nge_search.native.compiled import loop

_BYTES = np.arange(256, dtype=np.float32)
_PLACES = _BYTES.astype(np.float64) * 6.0 / 255.0
#: Of a hue: its sixth of the circle, and where in it, from 0 to 1.
_SECTORS = _PLACES.astype(np.int64) % 6
_PARTS = (_PLACES - np.floor(_PLACES)).astype(np.float32)
#: Of a saturation: 0 to 1.
_SATURATIONS = (_BYTES.astype(np.float64) / 255.0).astype(np.float32)
#: In each sixth, which of (largest, smallest, falling, rising) is red, green and blue.
_CHANNELS = np.array([[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]])


def shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """`image` (RGB) with its hue shifted by `turns` in [-0.5, 0.5]."""
    pixels = np.array(image)
    _shift(pixels.reshape(-1, 3), int(turns * 255) & 255)
    return Image.fromarray(pixels)


@loop(error_model="numpy", boundscheck=False)
def _shift(pixels_N3, by):
    """Shift the hue, a byte that wraps, of RGB pixels in place."""
    levels = np.empty(4, dtype=np.uint8)
    for n in range(len(pixels_N3)):
        r, g, b = int64(pixels_N3[n, 0]), int64(pixels_N3[n, 1]), int64(pixels_N3[n, 2])
        most, least = max(r, max(g, b)), min(r, min(g, b))
        if most == least:
            continue
        spread = float32(most - least)
        saturation = int64(float32(spread / float32(most)) * 255.0)
        rc, gc, bc = float32(most - r) / spread, float32(most - g) / spread, float32(most - b) / spread
        if r == most:
            h = float32(bc - gc)
        elif g == most:
            h = float32(2.0 + rc - bc)
        else:
            h = float32(4.0 + gc - rc)
        turns = h / 6.0 + 1.0
        h = float32(turns - 1.0 if turns >= 1.0 else turns)
        hue = (int64(h * 255.0) + by) & 255
        s, f, value = _SATURATIONS[saturation], _PARTS[hue], float32(most)
        levels[0] = most
        levels[1] = int64(value * (1.0 - s) + 0.5)
        levels[2] = int64(value * (1.0 - float32(s * f)) + 0.5)
        levels[3] = int64(value * (1.0 - s * (1.0 - f)) + 0.5)
        sector = _SECTORS[hue]
        for channel in range(3):
            pixels_N3[n, channel] = levels[_CHANNELS[sector, channel]]
