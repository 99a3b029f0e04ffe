"""Compiled loops on torch's own threads.

A second pool of threads, such as numba's, would fight with torch's for the cores: threads that wait for work spin.
So a loop is handed to the OpenMP library that torch itself has loaded.

A task is a compiled C function of a block of int64 words: word 0 counts the shares that threads have taken, word 1
says how many there are, the rest is the task's own. Which thread takes a share does not change what it computes.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from nge_search.native.compiled import part


@intrinsic
def take_share(context, block):  # type: ignore[no-untyped-def]
    """The next share of a task, atomically; all are taken when it is not below word 1."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", given[0], ir.IntType(64)(1), "seq_cst")

    return types.int64(block), generate


@intrinsic
def pointer(context, address):  # type: ignore[no-untyped-def]
    """What `carray` takes, for an address."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        return builder.inttoptr(given[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@part()
def words(address, shape):  # type: ignore[no-untyped-def]
    """The int64 words at an address, as an array of a shape."""
    return carray(pointer(address), shape, np.int64)


@functools.cache
def _launcher() -> Callable[[int, int, int], None]:
    """Runs the function at an address, on a block, on a number of threads."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if sys.platform == "linux" and library.exists():
        found = ctypes.CDLL(str(library))  # a symbol is looked up in what it links to as well
        if hasattr(found, "GOMP_parallel"):
            gomp_parallel = found.GOMP_parallel
            gomp_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            gomp_parallel.restype = None
            return lambda function, block, threads: gomp_parallel(function, block, threads, 0)
    return _on_python_threads


def _on_python_threads(function: int, block: int, threads: int) -> None:
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(call, [block] * threads))


def run(task: Any, threads: int, *values: Any) -> None:
    """Run a `compiled.task` on a number of shares; values are integers, or arrays that are passed by address."""
    for value in values:
        assert not isinstance(value, np.ndarray) or (value.dtype == np.int64 and value.flags.c_contiguous)
    block = np.array([0, threads, *(v.ctypes.data if isinstance(v, np.ndarray) else v for v in values)], np.int64)
    _launcher()(task.address, block.ctypes.data, threads)
