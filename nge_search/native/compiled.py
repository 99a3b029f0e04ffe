"""Machine code that is kept on disk, and is never older than any source it was made of.

numba's own cache watches the file of the function that was compiled, but not those of the functions it calls. Here
it is stamped with a digest of that file and of all files of the same package that it imports, directly or not; what
numba keeps apart by itself are its own version, Python's, the CPU, argument types and enclosed variables.

Three kinds of functions:

* `loop`: called from Python, compiled for the types of its arguments;
* `task`: for `threads.run`, compiled when it is decorated;
* `part`: only called by the others, compiled and kept with each of them.

One process at a time compiles a function, the others wait and read what it kept; each compiles for itself where
there is no folder to write to, or no lock to be had.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import functools
import gc
import hashlib
import inspect
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import njit, types
from numba.core.caching import FunctionCache, NullCache
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock

from nge_search.native.announcing import announce

_PATIENCE = 120.0  # seconds to wait for another process, which may have been stopped
_LOCK = "compiling.lock"


def loop(**options: Any) -> Callable[[Callable], Any]:
    """`numba.njit(**options)`, kept on disk."""

    def decorate(function: Callable) -> Any:
        dispatcher = njit(**options)(function)
        dispatcher._cache = kept = _kept(function, "")
        compile_ = dispatcher.compile

        def compile_alone(signature: Any) -> Any:
            with _alone(kept):
                return compile_(signature)

        dispatcher.compile = compile_alone
        return dispatcher

    return decorate


def row(*names: str) -> np.dtype:
    """Words by name: integers and addresses, which compiled code reads as `x.name`."""
    return np.dtype([(name, np.int64) for name in names], align=True)


def record(*names: str) -> np.dtype:
    """A task's fields, behind those of `threads.run`: how many shares are taken, and how many there are."""
    return row("taken", "shares", *names)


@dataclass(frozen=True)
class Task:
    """A compiled function of a block, which is a record of these fields."""

    function: CFunc
    fields: np.dtype

    @property
    def address(self) -> int:
        address = self.function.address
        assert address is not None  # `task` has compiled it
        return address


def task(fields: np.dtype, about: str = "") -> Callable[[Callable], Task]:
    """A function of the address of a `record`, kept on disk; `about` is announced when it must be compiled."""

    def decorate(function: Callable) -> Task:
        block = types.CPointer(numba.from_dtype(fields))
        compiled = CFunc(function, ((block,), types.void), locals={}, options={"error_model": "numpy"})
        kept = _kept(function, about)
        compiled._cache = kept  # type: ignore[attr-defined] # numba's types leave it out
        with _alone(kept):
            compiled.compile()
        return Task(compiled, fields)

    return decorate


def part(**options: Any) -> Callable[[Callable], Any]:
    """`numba.njit(**options)`, left to the optimiser of what calls it: else code is optimised once per level."""

    def decorate(function: Callable) -> Any:
        inner = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **options}
        dispatcher = njit(**inner)(function)
        compile_ = dispatcher.compile
        config: Any = numba.config  # its types leave out what it takes from the environment

        def compile_roughly(signature: Any) -> Any:
            with global_compiler_lock:
                level, config.OPT = config.OPT, type(config.OPT)(0)
                try:
                    return compile_(signature)
                finally:
                    config.OPT = level

        dispatcher.compile = compile_roughly
        return dispatcher

    return decorate


class _Kept(FunctionCache):
    """The machine code of one function, for each signature, in numba's folder for it."""

    about = ""

    def __init__(self, function: Callable):
        super().__init__(function)
        self._cache_file._source_stamp = digest(Path(inspect.getfile(function)), function.__module__)
        self.name = f"{function.__module__}.{function.__qualname__}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None and self.about:
            announce(self.about)
        return found


class _NotKept(NullCache):
    about = ""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        if self.about:
            announce(f"{self.about}; NUMBA_CACHE_DIR=FOLDER would keep them for later runs")


def _kept(function: Callable, about: str) -> _Kept | _NotKept:
    try:
        kept: _Kept | _NotKept = _Kept(function)
    except (RuntimeError, OSError):  # numba finds no folder it may write to, or sources are not there
        kept = _NotKept()
    kept.about = about
    return kept


@functools.cache
def digest(path: Path, module: str) -> str:
    """Of a module's source and of all it imports from its package, and of the versions of what compiles them."""
    found: dict[str, bytes] = {}
    _collect(path, module, found)
    parts = [f"{name} {hashlib.sha256(text).hexdigest()}" for name, text in sorted(found.items())]
    versions = numba.__version__, llvmlite.__version__, np.__version__
    return hashlib.sha256("\n".join([*parts, *versions]).encode()).hexdigest()


def _collect(path: Path, module: str, found: dict[str, bytes]) -> None:
    found[module] = path.read_bytes()
    root = path.parents[len(module.split(".")) - (path.name != "__init__.py")]  # where the package lies
    for name in sorted(_imported(found[module], module)):
        there = root.joinpath(*name.split("."))
        for source in (there.with_suffix(".py"), there / "__init__.py"):
            if name not in found and name.split(".")[0] == module.split(".")[0] and source.is_file():
                _collect(source, name, found)


@functools.cache
def _imported(text: bytes, module: str) -> frozenset[str]:
    """Modules that a source imports, and names that it imports from them, which may be modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            found.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return frozenset(found)


_busy = False  # under numba's lock: whether something is loaded or compiled already, and this is on the way to it


@contextlib.contextmanager
def _alone(kept: _Kept | _NotKept) -> Iterator[None]:
    """One process at a time loads or compiles this function; numba's lock, taken first, holds between threads.

    What is compiled on the way to something else is compiled under the lock of that: whoever has a lock waits for
    no other, so that processes cannot wait for each other. Meanwhile no garbage is collected: it is a sixth of the
    time, as the compiler makes many objects and keeps most.
    """
    global _busy
    with global_compiler_lock, contextlib.ExitStack() as stack:
        if not _busy:
            if isinstance(kept, _Kept):
                _lock(kept, stack)
            _busy = True
            stack.callback(_rest, gc.isenabled())
            gc.disable()
        yield


def _rest(collect: bool) -> None:
    global _busy
    _busy = False
    if collect:
        gc.enable()


def _lock(kept: _Kept, stack: contextlib.ExitStack) -> None:
    """Wait for the byte of the lock's file that stands for this function, until `stack` is closed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(Path(kept.cache_path) / _LOCK, flags, 0o644)
    except OSError:
        return
    stack.callback(os.close, lock)  # which unlocks, as the end of a process does
    place, end = zlib.crc32(kept.name.encode()) & 0x7FFFFFFF, time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
        if kept.about:
            announce(kept.about)
        time.sleep(0.05)
