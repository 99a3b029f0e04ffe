"""Search by drawn cells: batches and retrainings by a designer that keeps a record, and whole searches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pytest

import nge_search.design.designer
from nge_search.errors import UserError
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import SPACES, Code, NasBench201Space, Space
from nge_search.strategies import Strategy, build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark

SPACE = NasBench201Space()
SmallPolicy = Callable[[str], PolicySection]


class Recorder:
    """Draws even cells, and remembers what it was asked.

    Attributes:
        given: how it was opened.
        asked: (codes, values, count, known, seed) of each question; known is None of draws.
        fewer: proposals that it leaves out.
    """

    def __init__(self, space: Space, *given: object):
        self.space, self.given, self.fewer = space, given, 0
        self.asked: list[tuple[list[Code], list[float], int, list[Code] | None, int]] = []

    def draw(self, codes: Sequence[Code], values: Sequence[float], count: int, seed: int) -> list[Code]:
        self.asked.append(([*codes], [*values], count, None, seed))
        random = np.random.default_rng(seed)
        return [self.space.random(random) for _ in range(count)]

    def propose(
        self, codes: Sequence[Code], values: Sequence[float], count: int, known: Collection[Code], seed: int
    ) -> list[Code]:
        self.asked.append(([*codes], [*values], count, [*known], seed))
        random = np.random.default_rng(seed)
        drawn = (self.space.random(random) for _ in range(100))
        return [code for code in drawn if code not in known][: count - self.fewer]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Recorders stand for every designer; those that were opened."""
    found: list[Recorder] = []

    def opening(*given: object) -> Recorder:
        found.append(Recorder(*given))
        return found[-1]

    monkeypatch.setattr(nge_search.design.designer, "Designer", opening)
    return found


def told(strategy: Strategy, count: int, value: Callable[[Code], float]) -> list[Code]:
    """Asked for and told, one by one."""
    codes = []
    for _ in range(count):
        codes += strategy.ask()
        strategy.tell(codes[-1], value(codes[-1]))
    return codes


def settings(**given: object) -> StrategySection:
    return StrategySection(**{"name": "design", "warmup": 6, "teachers": 3, "batch": 4, **given})


def test_batches_are_drawn_by_what_all_answers_teach(
    opened: list[Recorder], made_signal: Callable[[Code], float]
) -> None:
    given = {"drawn_by": "frequencies", "teachers": 4, "link_temperature": 0.3}
    strategy = build_strategy(SPACE, settings(**given), seed=0)
    (designer,) = opened
    assert designer.given == ("frequencies", 4, 0.3)
    known = told(strategy, 8, made_signal)  # two for each teacher, more than the six of `warmup`
    assert designer.asked == []
    for batches in range(3):
        pending = strategy.ask(4)
        codes, values, count, seen, seed = designer.asked[batches]
        assert len(designer.asked) == batches + 1
        assert (codes, values, count) == (known, list(map(made_signal, known)), 4)
        assert seen is not None
        assert set(seen) >= set(known)
        assert pending == Recorder(SPACE).propose(codes, values, 4, seen, seed)
        for code in pending:
            strategy.tell(code, made_signal(code))
        known += pending
    assert len({seed for *_, seed in designer.asked}) == 3


def test_what_is_pending_is_known(opened: list[Recorder], made_signal: Callable[[Code], float]) -> None:
    strategy = build_strategy(SPACE, settings(), seed=0)
    told(strategy, 6, made_signal)
    first = strategy.ask(4)
    strategy.ask()
    *_, seen, _ = opened[0].asked[-1]
    assert seen is not None
    assert set(first) <= set(seen)


def test_where_too_few_are_new_the_rest_is_even(
    opened: list[Recorder], made_signal: Callable[[Code], float]
) -> None:
    strategy = build_strategy(SPACE, settings(), seed=0)
    known = told(strategy, 6, made_signal)
    opened[0].fewer = 4
    known += told(strategy, 20, made_signal)
    assert len(set(known)) == 26
    assert len(opened[0].asked) == 20


def test_a_predictor_s_pool_has_drawn_cells(
    opened: list[Recorder], made_signal: Callable[[Code], float], small_policy: SmallPolicy
) -> None:
    given = settings(name="predictor", candidates="design", predictor="nasbowl", acquisition="greedy", pool=30)
    strategy = build_strategy(SPACE, given, small_policy("nge"), 0)
    known = told(strategy, 6, made_signal)
    strategy.ask()
    ((codes, values, count, _, seed),) = opened[0].asked
    assert (codes, values, count) == (known, list(map(made_signal, known)), 10)
    drawn = opened[0].draw(codes, values, count, seed)
    opened[0].draw = lambda *given: drawn  # in the next pool, too
    assert {*drawn} - {*known, *strategy.pending} <= set(strategy._pool())


def test_a_predictor_that_draws_from_p_needs_no_designer(opened: list[Recorder]) -> None:
    build_strategy(SPACE, settings(name="predictor"))
    assert opened == []


@pytest.mark.parametrize("given", [{}, {"name": "predictor", "candidates": "design"}])
def test_a_space_whose_cells_do_not_grow_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UserError, match="cells of enas_macro cannot be drawn link by link"):
        build_strategy(SPACES["enas_macro"](), settings(**given))


def test_drawn_cells_beat_even_ones_in_a_smooth_table(benchmark: Benchmark) -> None:
    """In pairs of seeds: of sixty answers the mean of the last thirty."""

    def late(name: str, seed: int) -> float:
        given = StrategySection(name=name, queries=60, drawn_by="frequencies")
        queries = run_strategy(build_strategy(SPACE, given, seed=seed), benchmark.queries(60))
        return float(np.mean([one.value for one in queries.evaluations[30:]]))

    assert all(late("design", seed) > late("random", seed) + 3 for seed in range(3))


def test_the_link_model_searches_too(benchmark: Benchmark) -> None:
    given = StrategySection(name="design", queries=24, warmup=16, batch=8, teachers=6)
    queries = run_strategy(build_strategy(SPACE, given, seed=0), benchmark.queries(24))
    values = [one.value for one in queries.evaluations]
    assert np.mean(values[16:]) > np.mean(values[:16])
