"""Memory of the maps that steps of a fused supernet make and drop."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_POOLED = 1 << 18  # bytes from which on memory is kept
_PAGE = 4096


class Memory:
    """What one network's maps have used and later ones may use again; it goes back to the system with the network.

    A step allocates and frees gigabytes, and fresh pages cost more than what is computed on them.
    """

    def __init__(self) -> None:
        self._idle: dict[int, list[np.ndarray]] = {}

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialised contiguous tensor of the type and device of `like`, for maps.

        On CPUs its memory is that of an earlier one of the same size, if there is one. It is taken back when the
        last tensor on it is gone.
        """
        size = math.prod(shape) * like.element_size()
        if like.device.type != "cpu" or size < _POOLED:  # CUDA's allocator keeps memory itself
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        idle = self._idle.setdefault(size, [])
        memory = idle.pop() if idle else _aligned(size)
        loan = memory.view()
        weakref.finalize(loan, idle.append, memory).atexit = False
        return torch.from_numpy(loan).view(like.dtype).view(*shape)


def _aligned(size: int) -> np.ndarray:
    """Bytes from the beginning of a page on, so that no vector lies across cache lines."""
    memory = np.empty(size + _PAGE, dtype=np.uint8)
    start = -memory.ctypes.data % _PAGE
    return memory[start : start + size]
