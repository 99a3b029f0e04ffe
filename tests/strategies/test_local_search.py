"""Local search against its definition, one query at a time and several."""

from __future__ import annotations

from collections.abc import Callable

from nge_search.settings.strategies import StrategySection
from nge_search.spaces import Code, NasBench201Space
from nge_search.strategies import build_strategy

SPACE = NasBench201Space()
LOCAL = StrategySection(name="local_search")


def test_local_search_moves_on_at_the_first_better_neighbour_and_starts_anew_at_an_optimum(
    made_signal: Callable[[Code], float], best: Code
) -> None:
    strategy = build_strategy(SPACE, LOCAL)
    (here,) = strategy.ask()
    strategy.tell(here, made_signal(here))
    highest, tried, optima, orders = made_signal(here), [], [], set()
    for _ in range(400):
        (code,) = strategy.ask()
        if len(tried) == 24:  # nothing better: the next is a new start
            optima.append(here)
            here, highest, tried = code, made_signal(code), []
        else:
            assert code in SPACE.neighbours(here)
            assert code not in tried
            tried.append(code)
            orders.add((len(tried), SPACE.neighbours(here).index(code)))
            if made_signal(code) > highest:
                here, highest, tried = code, made_signal(code), []
        strategy.tell(code, made_signal(code))
    assert len(optima) >= 2
    assert set(optima) == {best}
    assert len(orders) > 100  # neighbours come in random order


def test_while_all_neighbours_are_pending_another_climb_begins() -> None:
    strategy = build_strategy(SPACE, LOCAL)
    (start,) = strategy.ask()
    strategy.tell(start, 50.0)
    around = strategy.ask(24)
    assert sorted(around) == sorted(SPACE.neighbours(start))
    other, another = strategy.ask(2)
    assert not {start, *around} & {other, another}
    strategy.tell(other, 10.0)
    assert strategy.ask()[0] in SPACE.neighbours(other)
    strategy.tell(around[3], 60.0)  # late, and better: the first climb goes on from there, and comes first
    codes = strategy.ask(20)
    expected = [code for code in SPACE.neighbours(around[3]) if code not in around]
    assert set(codes) <= set(expected)
    strategy.tell(around[5], 55.0)  # better than the start, but no longer than the best
    assert set(strategy.ask(len(expected) - len(codes))) == set(expected) - set(codes)


def test_climbs_whose_neighbours_overlap_ask_for_each_once() -> None:
    strategy = build_strategy(SPACE, LOCAL)
    starts = strategy.ask(40)
    for start in starts:
        strategy.tell(start, 1.0)
    around = {neighbour for start in starts for neighbour in SPACE.neighbours(start)}
    assert len(around) < 40 * 24
    codes = strategy.ask(len(around))
    assert len(codes) == len(around)
    assert set(codes) == around
