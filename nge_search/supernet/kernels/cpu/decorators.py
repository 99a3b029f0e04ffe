"""How the functions of this folder are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nge_search.native import compiled
from nge_search.native.simd import Strip

CHUNK = 128  # positions that are summed in the maps' own precision
part = compiled.part(error_model="numpy")
inlined = compiled.part(error_model="numpy", inline="always")  # into the one or two that call it
summing = compiled.loop(error_model="numpy", fastmath={"reassoc", "contract"})  # sums in several lanes


def task(strip: Strip, fields: np.dtype) -> Callable[[Callable[[Any], None]], compiled.Task]:
    """A task for one strip, whose block is a record of these fields."""
    channels = "1 channel" if strip.channels == 1 else f"{strip.channels} channels"
    about = f"compiling the supernet's kernels for blocks of {channels} in float{strip.bits}, some 12 s"
    return compiled.task(fields, about)
