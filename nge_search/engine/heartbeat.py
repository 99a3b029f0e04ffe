"""How a rank knows which of the others stands still while it waits for them.

Every rank says in a store, several times per patience, that it lives and how many collectives it has entered, and
notes when it last heard from each of the others. Who waits in vain asks for those that do not come.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

_BEATS_PER_PATIENCE = 8
_LONGEST_PAUSE = 10.0  # seconds
#: How much longer than its patience a rank waits in a call that has no limit of its own.
_GRACE = 10.0  # seconds


class Store(Protocol):
    """The part of torch.distributed.Store that is used here."""

    def set(self, key: str, value: str) -> None: ...

    def multi_get(self, keys: list[str]) -> list[bytes]: ...


def open_book(store: Store, size: int) -> None:
    """Write something for every rank, once and before any `Heartbeats`: who reads waits for what is not there."""
    for rank in range(size):
        store.set(str(rank), "0 0")


class Heartbeats:
    """Those of one rank.

    Attributes:
        entered: collectives that this rank has entered; whoever enters one adds one.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        patience: float,
        store_rank: int | None = None,
        give_up: Callable[[str], None] | None = None,
    ):
        """
        Args:
            store: a connection of its own, under a prefix that belongs to this group of processes alone.
            patience: seconds that a rank is waited for.
            store_rank: the rank that serves the store, if one of them does.
            give_up: called with `verdict()` if the patience is long over and nothing else ended this process; it
                must not return.
        """
        self.entered = 0
        self.patience = patience
        self._store, self._rank, self._size = store, rank, size
        self._store_rank, self._give_up = store_rank, give_up
        self._pause = min(_LONGEST_PAUSE, patience / _BEATS_PER_PATIENCE)
        self._beats = 0
        now = time.monotonic()
        self._answered = now
        self._heard: list[tuple[bytes, float]] = [(b"", now)] * size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that waits for a store that does not answer is left behind."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def beat(self) -> None:
        """Say that this rank lives, and note what the others say."""
        self._beats += 1
        self._store.set(str(self._rank), f"{self._beats} {self.entered}")
        words = self._store.multi_get([str(rank) for rank in range(self._size)])
        self._answered = time.monotonic()
        for rank, word in enumerate(words):
            if word != self._heard[rank][0]:
                self._heard[rank] = (word, self._answered)

    def still(self, seconds: float) -> list[int]:
        """The ranks that were not heard of for so long; who serves the store, if that does not answer."""
        now = time.monotonic()
        if now - self._answered > seconds:
            return [] if self._store_rank in (None, self._rank) else [self._store_rank]
        return [rank for rank, (_, at) in enumerate(self._heard) if rank != self._rank and now - at > seconds]

    def absent(self) -> list[int]:
        """The ranks that have entered fewer collectives than another; empty where all are as far."""
        entered = [int(word.split()[1]) if word else 0 for word, _ in self._heard]
        entered[self._rank] = self.entered
        return [rank for rank, count in enumerate(entered) if count < max(entered)]

    def verdict(self) -> str:
        """Why this rank has waited for longer than its patience, in one line that names whom for."""
        limit = f"run.stall_seconds={self.patience:g}"
        still, absent = self.still(self.patience / 2), self.absent()
        if still:
            return (
                f"{_ranks(still)} stood still for longer than {limit}: stopped, or on a machine that hangs; the "
                "same command goes on from the last checkpoint"
            )
        if absent and self._rank not in absent:
            return f"{_ranks(absent)} did not come within {limit} to where the others wait; raise it if they work"
        return f"another process did not answer within {limit}; raise it if all of them work"

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            # Whoever serves the store may stand still, or be gone: then this rank hears nothing, and notes nothing.
            with contextlib.suppress(RuntimeError):
                self.beat()
            if self._give_up and self.still(self.patience + _GRACE) and not self._stop.is_set():
                self._give_up(self.verdict())


def _ranks(ranks: list[int]) -> str:
    names = ", ".join(map(str, ranks[:5])) + (" and others" if len(ranks) > 5 else "")
    return f"rank {names}" if len(ranks) == 1 else f"ranks {names}"
