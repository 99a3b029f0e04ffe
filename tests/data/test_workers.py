"""Worker processes that fail: little shared memory, death, standstill, a request to stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from nge_search.data import Draw, MemoryImages, StreamedImages
from nge_search.data import workers as workers_module
from nge_search.data.storage import Raw
from nge_search.data.workers import worker_failure
from nge_search.engine import interrupt
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.errors import RunFailure, UserError

CPU = torch.device("cpu")


class Signalled(MemoryImages):
    """A source whose reader sends itself a signal at image 3."""

    number = signal.SIGKILL

    def read(self, indices: list[int], draw: Draw | None = None) -> torch.Tensor:
        if 3 in indices:
            os.kill(os.getpid(), self.number)
        return super().read(indices)


@pytest.fixture
def batches(random_images: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterator[Raw]]:
    """Four batches of two images by one worker, which sends itself a signal in the second."""
    monkeypatch.setattr(workers_module, "_GLANCE", 0.05)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.05)  # for the end of a worker

    def start(number: int | None = None, patience: float = 600.0) -> Iterator[Raw]:
        source = random_images(8)
        if number is not None:
            source = Signalled(source.images_NCHW, source.labels_N)
            source.number = number
        return StreamedImages(source, CPU, 1, patience=patience).batches(
            torch.arange(8), [(0, 2), (2, 4), (4, 6), (6, 8)]
        )

    return start


def test_a_batch_that_finds_no_shared_memory_is_one_line(
    batches: Callable[..., Iterator[Raw]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tensor: torch.Tensor) -> None:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)  # forked workers inherit it
    with pytest.raises(
        UserError, match=r"^/dev/shm is too small .*No space left.* MB are free\); set data\.workers=0"
    ):
        next(batches())
    assert not multiprocessing.active_children()


def test_locks_that_find_no_shared_memory_are_one_line(
    batches: Callable[..., Iterator[Raw]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workers_module.multiprocessing, "Event", refuse)
    with pytest.raises(UserError, match=r"/dev/shm .*No space left"):
        next(batches())


def test_processes_that_cannot_be_started_are_no_lack_of_shared_memory(
    batches: Callable[..., Iterator[Raw]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(UserError, match=r"^data\.workers=1: no process can be started"):
        next(batches())


@pytest.mark.parametrize(("number", "named"), [(signal.SIGKILL, "Killed"), (signal.SIGBUS, "/dev/shm")])
def test_a_worker_that_dies_is_one_line(batches: Callable[..., Iterator[Raw]], number: int, named: str) -> None:
    """torch tells it wherever the host is, so also while it works on the batch before."""
    with pytest.raises((UserError, RuntimeError)) as caught:
        list(batches(number))
    failure = caught.value if isinstance(caught.value, UserError) else worker_failure(caught.value)
    assert failure is not None
    assert named in str(failure)
    assert "data.workers=0" in str(failure)


def test_a_worker_that_stands_still_is_not_waited_for_without_a_limit(
    batches: Callable[..., Iterator[Raw]],
) -> None:
    running = batches(signal.SIGSTOP, patience=0.0)
    with pytest.raises(RunFailure, match=r"no worker process brought a batch .* data\.workers=0"):
        list(running)
    for child in multiprocessing.active_children():
        child.join()  # it was killed; otherwise this waits for ever


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heeded_while_no_batch_comes(
    batches: Callable[..., Iterator[Raw]], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_LAST_CHANCE", 0.0)
    with Interrupts():
        signal.raise_signal(number)
        running = batches(signal.SIGSTOP)
        with pytest.raises(Interrupted) as stopped:
            list(running)
    assert stopped.value.exit_code == 128 + number
    assert interrupt.requested() is None


def test_a_signal_does_not_hinder_batches_that_come(batches: Callable[..., Iterator[Raw]]) -> None:
    with Interrupts():
        signal.raise_signal(signal.SIGTERM)
        assert len(list(batches())) == 4


def test_other_errors_stay_what_they_are() -> None:
    assert worker_failure(RuntimeError("shapes cannot be multiplied")) is None
    files = worker_failure(
        RuntimeError("Too many open files. Communication with the workers is no longer possible.")
    )
    assert "ulimit -n" in str(files)


def test_free_space_is_told_where_there_is_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = SimpleNamespace(f_frsize=4096, f_blocks=16384, f_bavail=1000)
    monkeypatch.setattr(workers_module.os, "statvfs", lambda path: docker)
    assert "(why; 4 of 67 MB are free)" in str(workers_module.too_little_shared_memory("why"))
