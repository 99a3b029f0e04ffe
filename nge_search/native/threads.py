"""Compiled loops on torch's own threads.

A second pool of threads, such as numba's, would fight with torch's for the cores: threads that wait for work spin.
So a loop is handed to the OpenMP library that torch itself has loaded.

A task is a compiled C function of a record (`compiled.record`): its first field counts the shares that threads have
taken, the second says how many there are, the rest is the task's own. Which thread takes a share does not change
what it computes.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from nge_search.native.compiled import Task, part

_WORD = np.dtype(np.int64)


@intrinsic
def take_share(context, block):
    """The next share of a task, atomically; all are taken when it is not below `shares`."""

    def generate(context, builder, signature, given):
        taken = builder.bitcast(given[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", taken, ir.IntType(64)(1), "seq_cst")

    return types.int64(block), generate


@intrinsic
def pointer(context, address):
    """What `carray` takes, for an address."""

    def generate(context, builder, signature, given):
        return builder.inttoptr(given[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@part()
def words(address, shape):
    """The int64 words at an address, as an array of a shape."""
    return carray(pointer(address), shape, np.int64)


@part()
def array(address, shape, dtype):
    """The numbers or rows (`compiled.row`) of a type at an address, as an array of a shape."""
    return carray(pointer(address), shape, dtype)


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


def run(task: Task, threads: int, **values: int | np.ndarray) -> None:
    """Run a task on a number of shares.

    Args:
        values: of all its fields: integers, or arrays of int64 or of `compiled.row`, given by address.
    """
    names = task.fields.names or ()
    assert len(values) == len(names) - 2, (sorted(values), names)
    block = np.array((0, threads, *[_word(values[name]) for name in names[2:]]), dtype=task.fields)
    _launcher()(task.address, _address(block), threads)


def _word(value: int | np.ndarray) -> int:
    if isinstance(value, int):
        return value
    assert value.flags.c_contiguous
    assert value.dtype == _WORD or value.dtype.names
    return _address(value) if value.size else 0


def _address(values: np.ndarray) -> int:
    """`values.ctypes.data`, in a third of the time: a step runs hundreds of tasks, some as short as this."""
    return ctypes.addressof(ctypes.c_char.from_buffer(values.data))
