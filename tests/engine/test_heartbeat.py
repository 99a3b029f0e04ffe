"""Which rank is named by one that waits in vain; the clock and the store are the test's own."""

from __future__ import annotations

import pytest

from nge_search.engine.distributed import _why_alone
from nge_search.engine.heartbeat import Heartbeats, open_book


class Table(dict):
    """A store in this process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self[key] for key in keys]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("nge_search.engine.heartbeat.time.monotonic", lambda: now[0])
    return now


def three_ranks(store: Table, **more: object) -> list[Heartbeats]:
    """All have been heard of once."""
    ranks = [Heartbeats(store, rank, 3, patience=8, **more) for rank in range(3)]
    open_book(store, 3)
    for rank in ranks:
        rank.beat()
    return ranks


def pass_time(clock: list[float], *ranks: Heartbeats) -> None:
    """Eight seconds in which these ranks alone are heard of."""
    for _ in range(8):
        clock[0] += 1
        for rank in ranks:
            rank.beat()


def test_a_rank_that_stands_still_is_named(clock: list[float]) -> None:
    first, second, third = three_ranks(Table())
    first.entered, second.entered, third.entered = 5, 5, 5  # it may have entered what the others wait in
    pass_time(clock, first, second)
    assert first.still(4) == second.still(4) == [2]
    assert "rank 2 stood still for longer than run.stall_seconds=8" in first.verdict()
    third.beat()
    first.beat()
    assert first.still(4) == []


def test_a_rank_that_lives_but_does_not_come_is_named_otherwise(clock: list[float]) -> None:
    first, second, third = three_ranks(Table())
    first.entered, second.entered, third.entered = 4, 5, 5
    pass_time(clock, first, second, third)
    pass_time(clock, first, second, third)
    assert second.still(4) == []
    assert "rank 0 did not come within run.stall_seconds=8" in second.verdict()
    assert "another process" in first.verdict()  # it is the one that the others wait for


def test_a_store_that_does_not_answer_names_the_rank_that_serves_it(clock: list[float]) -> None:
    _, second, _ = three_ranks(Table(), store_rank=0)
    clock[0] += 8
    assert second.still(4) == [0]
    _, second, _ = three_ranks(Table())
    clock[0] += 8
    assert second.still(4) == []
    assert "another process did not answer" in second.verdict()


def test_errors_of_collectives_are_told_apart(clock: list[float]) -> None:
    first, second, _ = three_ranks(Table())
    lost = _why_alone(RuntimeError("[pair.cc:547] Connection closed by peer [::1]:1"), first, 0)
    assert lost is not None
    assert (lost.rank, str(lost)[:19]) == (0, "lost the connection")
    assert _why_alone(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), first, 0) is None
    pass_time(clock, first, second)
    for words in ("Timed out waiting 8000ms for recv operation", "Connection closed by peer"):
        stalled = _why_alone(RuntimeError(words), first, 0)
        assert stalled is not None
        assert (stalled.rank, "rank 2 stood still" in str(stalled)) == (None, True)


def test_who_is_stuck_without_a_limit_gives_up(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    first, second, _ = three_ranks(Table(), give_up=said.append)
    pauses = iter([False, False, True])
    monkeypatch.setattr(first._stop, "wait", lambda pause: next(pauses))
    monkeypatch.setattr(first, "beat", lambda: pass_time(clock, second))
    first._answered = clock[0] + 100
    first._run()
    assert said == []  # 16 s are not yet the patience and the grace
    monkeypatch.setattr(first._stop, "wait", lambda pause: next(iter([clock[0] > 130])))
    first._run()
    assert said
    assert all("rank" in line for line in said)
