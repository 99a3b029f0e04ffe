"""The processes that read images ahead: what they hand over, how long they are waited for, and how they end.

Batches travel through shared memory, of which a container may have little. A worker that finds too little, dies or
hangs is a one-line error: nobody waits for it without a limit, and a request to stop is heeded meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Generator, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from nge_search.engine.interrupt import InterruptedUnsaved, requested
from nge_search.errors import RunFailure, UserError

SHARED_MEMORY = "/dev/shm"
#: How often the host looks up while it waits for a batch, in seconds.
_GLANCE = 1.0
#: How long a request to stop leaves a batch that is still to come, in seconds; then the last checkpoint has to do.
_LAST_CHANCE = 5.0


def too_little_shared_memory(reason: str) -> UserError:
    """The error of a machine or container whose shared memory does not hold what workers hand over."""
    with contextlib.suppress(OSError):
        found = os.statvfs(SHARED_MEMORY)
        total, free = (count * found.f_frsize / 1e6 for count in (found.f_blocks, found.f_bavail))
        reason += f"; {free:.0f} of {total:.0f} MB are free"
    return UserError(
        f"{SHARED_MEMORY} is too small for the batches that worker processes read ahead ({reason}); set "
        "data.workers=0, or enlarge it (docker run --shm-size=8g)"
    )


def share(images: Tensor) -> None:
    """Move a batch into shared memory; in a worker, where an error can still be told to the host.

    Raises:
        UserError: it does not fit there.
    """
    if not images.numel():
        return
    try:
        images.share_memory_()
    except (RuntimeError, OSError) as error:
        raise too_little_shared_memory((str(error).splitlines() or ["no reason given"])[0]) from None


def from_workers(loader: DataLoader, patience: float) -> Generator[Any, None, None]:
    """The batches of a loader whose workers may fail; its `timeout` must be that of `glance`.

    Raises:
        UserError: too little shared memory, or no process can be started.
        RunFailure: a worker died, or none has brought a batch for `patience` seconds.
        InterruptedUnsaved: a signal asks to stop, and no batch comes any more.
    """
    if not loader.num_workers:
        yield from loader
        return
    before = set(multiprocessing.active_children())
    try:
        # The loader, half built, would fail once more at its end: so try first whether its locks find room.
        locks = [multiprocessing.Event() for _ in range(loader.num_workers + 2)]
        del locks
        batches = iter(loader)
    except OSError as error:
        raise _not_started(error, loader.num_workers) from None
    assert isinstance(batches, _MultiProcessingDataLoaderIter)  # as there are workers
    workers = [child for child in multiprocessing.active_children() if child not in before]
    try:
        while True:
            try:
                yield _next(batches, patience)
            except StopIteration:
                return
    except RuntimeError as error:
        raise worker_failure(error) or error from None
    finally:
        # At its own end the loader has done so already. It gives up on a worker that is held still, for which
        # Python would then wait for ever at its exit.
        batches._shutdown_workers()
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join(_LAST_CHANCE)


def glance(workers: int) -> float:
    """The `timeout` of a DataLoader for `from_workers`, in seconds; 0 without workers, as it wants."""
    return _GLANCE if workers else 0.0


def _next(batches: Iterator[Any], patience: float) -> Any:
    """The next batch; StopIteration after the last."""
    start = time.monotonic()
    asked: float | None = None
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
        now, number = time.monotonic(), requested()
        if number:
            asked = now if asked is None else asked
            if now - asked >= _LAST_CHANCE:
                raise InterruptedUnsaved(number)
        if now - start >= patience:
            raise RunFailure(
                f"no worker process brought a batch of images for {patience:.0f} s: held still, or waiting for a "
                "disk; the same command goes on from the last checkpoint, data.workers=0 does without them"
            )


def worker_failure(error: RuntimeError) -> UserError | None:
    """What torch says of a worker process, in one line; None for an error that is none of that.

    torch raises it wherever the host is when the worker dies.
    """
    text = str(error)
    if "Too many open files" in text:
        return UserError("too many open files for worker processes; raise `ulimit -n`, or set data.workers=0")
    if not text.startswith("DataLoader worker"):
        return None
    if isinstance(error.__cause__, RuntimeError):  # met while it waited; this one names the signal
        text = str(error.__cause__)
    first = text.split(". ")[0].strip(". ")
    if (signal.strsignal(signal.SIGBUS) or "Bus error") in text or "shared memory" in text:
        return too_little_shared_memory(first)
    return RunFailure(
        f"{first}: a worker process that reads images is gone; the system ends processes when memory runs out: set "
        "fewer data.workers, or data.workers=0; the same command goes on from the last checkpoint"
    )


def _not_started(error: OSError, workers: int) -> UserError:
    """Locks of the queues live in shared memory, too."""
    reason = error.strerror or str(error)
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return UserError(f"data.workers={workers}: no process can be started ({reason}); set data.workers=0")
    return too_little_shared_memory(reason)


def own_session(_: int) -> None:
    """A signal to the run's process group must not end the workers before the run has saved its state."""
    os.setsid()
