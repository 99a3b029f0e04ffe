"""Counter-based random numbers: what an image draws depends on integer keys only, never on what was drawn before.

The word of image i is output i of the splitmix64 generator (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", 2014) started at a key folded from (seed, epoch, stream). A resumed run, another
batch size or another number of ranks therefore sees the same numbers. All operations are exact: CPU and CUDA agree.

Legend: B images of a batch, N images of a set.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


class Stream(IntEnum):
    """What a number is drawn for. Kinds that share a key must not share a stream."""

    SHUFFLE = 0
    CROP = 1
    FLIP = 2
    CUTOUT = 3
    HOLD_OUT = 4
    LIMIT = 5
    SPLIT = 6
    DROP_PATH = 7
    RESIZED_CROP = 8
    JITTER = 9
    RAND_AUGMENT = 10
    ERASE = 11
    DROPOUT = 12
    GROWTH = 13


def fold(*parts: int) -> int:
    """One unsigned 64-bit key from any number of integers; their order matters."""
    key = 0
    for part in parts:
        key = _finalise_integer(key ^ _finalise_integer(part + _GAMMA))
    return key


def words(index_B: Tensor, *, seed: int, epoch: int, stream: int) -> Tensor:
    """64 random bits per index: int64 [B], to be read as unsigned, on the device of `index_B` (int64)."""
    key = fold(seed, epoch, stream)
    return _finalise(index_B * _signed(_GAMMA) + _signed(key))


def uniform(index_B: Tensor, *, seed: int, epoch: int, stream: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One number in [0, 1) per index: [B] of `dtype` (float32: multiples of 2^-24, float64: of 2^-53).

    Raises:
        ValueError: another dtype.
    """
    bits = {torch.float32: 24, torch.float64: 53}.get(dtype)
    if bits is None:
        raise ValueError(f"uniform numbers are float32 or float64, not {dtype}")
    words_B = words(index_B, seed=seed, epoch=epoch, stream=stream)
    return _shift_right(words_B, 64 - bits).to(dtype) * 2.0**-bits


def integers(index_B: Tensor, high: int, *, seed: int, epoch: int, stream: int) -> Tensor:
    """One integer in [0, high) per index: int64 [B]. Probabilities are equal to within high / 2^63."""
    words_B = words(index_B, seed=seed, epoch=epoch, stream=stream)
    return _shift_right(words_B, 1) % high


def permutation(count: int, *, seed: int, epoch: int, stream: int) -> Tensor:
    """A random order of 0 .. count - 1: int64 [count] on the CPU."""
    words_N = words(torch.arange(count), seed=seed, epoch=epoch, stream=stream)
    return torch.argsort(words_N, stable=True)  # stable, so that equal words cannot make it differ by version


@contextmanager
def global_generators_kept(device: torch.device) -> Iterator[None]:
    """Restore, at the end, the generators that other people's code draws from: Python's, NumPy's and torch's."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_global_generators(key: int, device: torch.device) -> None:
    """Start the generators of `global_generators_kept` at a key of `fold`."""
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)  # noqa: NPY002
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(key)
    else:
        torch.default_generator.manual_seed(key)


def _finalise_integer(word: int) -> int:
    """splitmix64's output function on a Python integer."""
    word &= _MASK
    word = ((word ^ (word >> 30)) * _FIRST) & _MASK
    word = ((word ^ (word >> 27)) * _SECOND) & _MASK
    return word ^ (word >> 31)


def _finalise(words_B: Tensor) -> Tensor:
    """splitmix64's output function on int64 words, whose products wrap as unsigned ones do."""
    words_B = (words_B ^ _shift_right(words_B, 30)) * _signed(_FIRST)
    words_B = (words_B ^ _shift_right(words_B, 27)) * _signed(_SECOND)
    return words_B ^ _shift_right(words_B, 31)


def _shift_right(words_B: Tensor, by: int) -> Tensor:
    """A logical shift: torch's `>>` drags the sign along."""
    return (words_B >> by) & ((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word
