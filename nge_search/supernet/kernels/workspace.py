"""What calls of the compiled kernels use and leave, and tensors by their addresses."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
from llvmlite import binding
from torch import Tensor

from nge_search.native.simd import Strip
from nge_search.supernet.kernels.memory import Memory

_POSITIONS = 8  # sums kept in registers at a time: enough to hide the latency of an addition
NONE = np.zeros(0, dtype=np.int64)  # no addresses


@functools.cache
def _register_bytes() -> int:
    """Of the widest vector registers of this CPU."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


class Scratch(threading.local):
    """Memory that calls use and leave; every calling thread has its own."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def words(self, size: int, shares: int) -> dict[str, int]:
        """The fields of tasks for it: its address, and bytes for each share, at least `size`; both are aligned to
        cache lines."""
        size = -(-size // 64) * 64
        if self._memory.numel() < size * shares + 64:
            self._memory = torch.empty(size * shares + 64, dtype=torch.uint8)
        return {"scratch": -(-self._memory.data_ptr() // 64) * 64, "scratch_bytes": size}


class Sums(threading.local):
    """Sums of each share, apart, in memory that the next call uses again; every calling thread has its own."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.float64)

    def zeros(self, *shape: int) -> Tensor:
        count = math.prod(shape)
        if self._memory.numel() < count:
            self._memory = torch.empty(count, dtype=torch.float64)
        return self._memory[:count].zero_().view(shape)

    def wanted(self, wanted: bool, shares: int, *shape: int) -> tuple[Tensor, np.ndarray]:
        """Zeros for each share, and their addresses; if they are not wanted none, and zeros for addresses."""
        sums = self.zeros(shares if wanted else 0, *shape)
        return sums, rows(sums) if wanted else np.zeros(shares, dtype=np.int64)


class Workspace:
    """Of one network.

    Attributes:
        memory: of maps; scratch, sums: of a call.
    """

    def __init__(self, memory: Memory):
        self.memory, self.scratch, self.sums = memory, Scratch(), Sums()
        self._strips: set[Strip] = set()  # that the network's kernels are compiled for

    def strip(self, x: Tensor, *more_channels: int) -> Strip:
        """Blocks of as many channels as fit in a register and divide x's (and other numbers of) channels.

        Compiling takes some 12 s for each strip: a block that is in use already and fills half a register will do.
        """
        size = x.element_size()
        widest = _register_bytes() // size
        counts = x.shape[-1], *more_channels
        possible = [n for n in (16, 8, 4, 2, 1) if n <= widest and not any(count % n for count in counts)]
        strips = [Strip(n, _POSITIONS, 8 * size) for n in possible]
        strip = next((s for s in strips if 2 * s.channels >= widest and s in self._strips), strips[0])
        self._strips.add(strip)
        return strip

    def total(self, sums: Tensor) -> Tensor:
        """The sum over shares, in memory of its own."""
        return torch.sum(sums, dim=0, out=self.memory.empty(sums.shape[1:], sums))


def addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def rows(tensor: Tensor, dimensions: int = 1) -> np.ndarray:
    """Addresses of the entries of a contiguous tensor's first dimensions."""
    assert tensor.is_contiguous()
    shape = tuple(tensor.shape[:dimensions])
    size = math.prod(tensor.shape[dimensions:]) * tensor.element_size()
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape) * size + tensor.data_ptr()


def each(stacks: Sequence[Tensor]) -> np.ndarray:
    """Addresses of all entries of all stacks."""
    return np.concatenate([NONE, *(rows(stack) for stack in stacks)])


def dense(images: Sequence[Tensor]) -> Sequence[Tensor]:
    assert all(image.is_contiguous() for image in images), [image.stride() for image in images]
    return images
