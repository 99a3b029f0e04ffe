"""Queries whose answers are worked on side by side: how far ahead a strategy asks, and what it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nge_search.settings.names import STRATEGIES
from nge_search.settings.strategies import StrategySection
from nge_search.spaces import Code, Evaluation, NasBench201Space, Queries
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy

BUDGET = 20


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "design"])
@pytest.mark.parametrize("pending", [1, 3])
def test_a_strategy_is_asked_ahead(
    name: str, pending: int, made_signal: Callable[[Code], float], small_policy: Callable
) -> None:
    space, events = NasBench201Space(), []

    def evaluate(code: Code) -> Evaluation:
        events.append(("asked", code))
        return Evaluation(made_signal(code))

    queries = Queries(space, evaluate, BUDGET, lambda code: events.append(("prepared", code)))
    settings = StrategySection(name=name, queries=BUDGET, population=5, tournament=2, pool=9)
    strategy = build_strategy(space, settings, small_policy("direct"))
    told: list[Code] = []
    learn = strategy.tell

    def tell(code: Code, value: float) -> None:
        assert value == made_signal(code)
        told.append(code)
        learn(code, value)

    strategy.tell = tell
    assert run_strategy(strategy, queries, pending=pending) is queries
    prepared = [code for kind, code in events if kind == "prepared"]
    asked = [code for kind, code in events if kind == "asked"]
    assert prepared == asked == queries.codes
    assert len(set(asked)) == BUDGET
    ahead = most = 0
    for kind, _ in events:
        ahead += 1 if kind == "prepared" else -1
        most = max(most, ahead)
    assert 1 <= most <= pending
    assert most == pending or name != "random"
    assert list(dict.fromkeys(told)) == asked[:-1]
