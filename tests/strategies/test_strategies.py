"""What all strategies keep: budgets, seeds, architectures that are pending, states that go on exactly."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nge_search.errors import UserError
from nge_search.settings.names import STRATEGIES
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import SPACES, Code, Evaluation, NasBench101Space, NasBench201Space, Queries, Space
from nge_search.strategies import Strategy, build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark
from nge_search.tables.table import build_table

SmallPolicy = Callable[[str], PolicySection]

SPACE = NasBench201Space()
#: Those that draw in any space, also one made here.
EVERYWHERE = tuple(name for name in STRATEGIES if name != "design")
#: Each strategy with each space that it searches.
PLACES = [(name, kind) for name in STRATEGIES for kind in SPACES if name != "design" or kind != "enas_macro"]
#: By strategy and space, of the first 30 architectures.
SEQUENCES = json.loads(Path(__file__).with_name("sequences.json").read_text())


def small(name: str, queries: int = 100) -> StrategySection:
    predictor = {"predictor": "nasbowl", "acquisition": "greedy", "batch": 4, "pool": 30}
    return StrategySection(
        name=name, queries=queries, population=8, tournament=4, drawn_by="frequencies", **predictor
    )


def odd_value(space: Space, code: Code) -> float:
    """Percent, as good as random, and the same for codes of one architecture."""
    return int.from_bytes(hashlib.sha256(space.key(code)).digest()[:4], "big") / 2**32 * 100


def search(benchmark: Benchmark, settings: StrategySection, policy: PolicySection | None, seed: int) -> Queries:
    strategy = build_strategy(benchmark.space, settings, policy, seed)
    return run_strategy(strategy, benchmark.queries(settings.queries))


@pytest.mark.parametrize(("name", "kind"), PLACES)
def test_one_query_at_a_time_gives_the_architectures_that_it_always_gave(
    name: str, kind: str, small_policy: SmallPolicy
) -> None:
    space = SPACES[kind]()
    policy = small_policy("nge")
    policy.learning_rate = 3e-3
    strategy, codes = build_strategy(space, small(name), policy, 3), []
    for _ in range(30):
        codes += strategy.ask()
        strategy.tell(codes[-1], odd_value(space, codes[-1]))
    assert hashlib.sha256(json.dumps(codes).encode()).hexdigest()[:16] == SEQUENCES[name][kind]


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_exceeds_its_budget_and_each_depends_on_the_seed_alone(name: str, benchmark: Benchmark) -> None:
    asked: list[Code] = []

    def evaluate(code: Code) -> Evaluation:
        asked.append(code)
        return benchmark(code)

    found = []
    for seed in (1, 1, 2):
        asked.clear()
        torch.manual_seed(len(found))  # the global generator is of no consequence
        queries = run_strategy(build_strategy(SPACE, small(name), seed=seed), Queries(SPACE, evaluate, 40))
        assert len(asked) == len(set(asked)) == len(queries) == 40
        assert asked == queries.codes
        found.append(queries.codes)
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_asks_for_every_architecture_or_settles(name: str, small_policy: SmallPolicy) -> None:
    """In a space where operations are on vertices, and whose table holds a few architectures only."""
    space = NasBench101Space(4)
    codes: dict[bytes, Code] = {}
    for bits in itertools.product(range(2), repeat=len(space.cell_space.edges)):
        for labels in itertools.product(range(3), repeat=2):
            code = (*bits, *labels)
            if space.allows(code):
                codes.setdefault(space.key(code), code)
    rows = ((code, {"accuracy": float(sum(code))}) for code in codes.values())
    benchmark = Benchmark(build_table(space, rows, "a made table", "architecture"), "accuracy")
    queries = search(benchmark, small(name, len(codes)), small_policy("nge"), 0)
    assert len({space.key(code) for code in queries.codes}) == len(queries)
    assert 20 < len(queries) <= len(codes)
    if name in ("random", "nge_reinforce", "nge_evolution", "predictor", "design"):
        assert len(queries) == len(codes)


@pytest.mark.parametrize(
    ("name", "least"),
    [("local_search", 95), ("evolution", 94), ("reinforce", 85), ("nge_reinforce", 95), ("nge_evolution", 94)],
)
def test_strategies_that_learn_find_the_best_of_a_smooth_table(
    name: str, least: float, benchmark: Benchmark
) -> None:
    def best(name: str, seed: int) -> float:
        queries = search(benchmark, StrategySection(name=name, queries=250), None, seed)
        return 2 * float(benchmark.scores(queries)[-1])

    for seed in range(3):
        assert best(name, seed) >= least
    assert best("random", 0) < 95


# -- several at a time


def ask_and_tell(strategy: Strategy, random: np.random.Generator, rounds: int) -> list[Code]:
    """What is asked for when one to four are asked for at a time, and told late and in any order."""
    asked: list[Code] = []
    for _ in range(rounds):
        asked += strategy.ask(int(random.integers(1, 5)))
        random.shuffle(late := list(strategy.pending))
        for code in late[: int(random.integers(len(late)))]:  # at least one stays pending
            strategy.tell(code, odd_value(strategy.space, code))
    return asked


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_is_pending_is_not_asked_for_again_where_the_space_has_another(
    name: str, tiny: NasBench201Space, small_policy: SmallPolicy
) -> None:
    strategy = build_strategy(tiny, small(name), small_policy("nge"), 0)
    for _ in range(3):
        codes = strategy.ask(25 - len(strategy.pending))
        assert len(set(strategy.pending)) == 25
        assert set(codes) <= set(strategy.pending)
        for code in strategy.pending[3::2]:
            strategy.tell(code, odd_value(tiny, code))


def test_more_than_a_space_has_are_pending_twice(tiny: NasBench201Space) -> None:
    strategy = build_strategy(tiny, small("evolution"))
    codes = strategy.ask(28)
    assert len(set(codes)) == 27
    for code in codes:
        strategy.tell(code, 1.0)
    assert strategy.pending == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_isomorphic_cells_are_not_pending_at_once(name: str, small_policy: SmallPolicy) -> None:
    space = NasBench101Space()
    strategy = build_strategy(space, small(name), small_policy("nge"), 0)
    for _ in range(8):
        strategy.ask(6)
        assert len(set(map(space.key, strategy.pending))) == len(strategy.pending)
        for code in strategy.pending[1:6]:
            strategy.tell(code, odd_value(space, code))


@pytest.mark.parametrize(
    ("code", "value", "why"),
    [
        ((0,) * 6, 1.0, "is not pending"),
        (None, float("nan"), "has the value nan; give a finite number"),
        (None, float("inf"), "has the value inf; give a finite number"),
        (None, None, "has the value None; give a finite number"),
        (None, "0.9", "has the value '0.9'; give a finite number"),
        (None, 1j, "has the value 1j; give a finite number"),
        (None, torch.ones(2), "give a finite number"),
        (np.zeros(6), 1.0, "is not pending"),
        (7, 1.0, "is not pending"),
    ],
)
def test_what_cannot_be_told_changes_nothing(code: Code | None, value: float, why: str) -> None:
    strategy, like = (build_strategy(SPACE, small("local_search")) for _ in range(2))
    (asked,) = strategy.ask()
    assert like.ask() == [asked]
    with pytest.raises(UserError, match=why):
        strategy.tell(asked if code is None else code, value)
    assert strategy.pending == [asked]
    strategy.tell(list(asked), np.float32(1.0))
    like.tell(asked, 1.0)
    with pytest.raises(UserError, match="told before"):
        strategy.tell(asked, 1.0)
    assert strategy.ask(3) == like.ask(3)


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", None])
def test_what_cannot_be_asked(count: Any) -> None:
    with pytest.raises(UserError, match=r"ask\(.*\): give how many architectures, from 1 on"):
        build_strategy(SPACE, small("local_search")).ask(count)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((SPACE, "evolution"), "settings='evolution': give a StrategySection of nge_search.settings.strategies"),
        (("darts", small("evolution")), "space='darts': give a Space"),
        ((SPACE, small("evolution"), None, -1), "seed=-1: give a whole number from 0 on"),
        ((SPACE, small("evolution"), None, 0.5), "seed=0.5: give a whole number from 0 on"),
        ((None, None), "space=None: give a Space"),
    ],
)
def test_what_makes_no_strategy(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        build_strategy(*arguments)


# -- states


def exact(state: dict[str, Any]) -> str:
    """A state as text, with all digits."""
    return json.dumps(state, default=torch.Tensor.tolist)


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file: JSON where there are no tensors."""
    if "policy" not in state:
        return json.loads(json.dumps(state))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("name", "kind"), PLACES)
def test_a_state_goes_on_exactly_from_wherever_it_was_taken(
    name: str, kind: str, small_policy: SmallPolicy
) -> None:
    """Before the first question, with a population that is not full yet, and later; always with some pending."""
    space, random = SPACES[kind](), np.random.default_rng(0)
    settings = dataclasses.replace(small(name), steps=1)
    strategy = build_strategy(space, settings, small_policy("nge"), 1)
    for rounds in (1, 3, 4, 2):
        state, generator = saved(strategy.state_dict()), random.bit_generator.state
        expected = ask_and_tell(strategy, random, rounds)
        again = build_strategy(space, settings, small_policy("nge"), 2)
        again.load_state_dict(state)
        random.bit_generator.state = generator
        assert ask_and_tell(again, random, rounds) == expected
        assert again.pending == strategy.pending != []
        assert exact(again.state_dict()) == exact(strategy.state_dict())


def test_a_state_is_a_copy(small_policy: SmallPolicy) -> None:
    """Going on changes neither the state that was taken, nor the one that was loaded."""
    strategy = build_strategy(SPACE, small("nge_evolution"), small_policy("nge"))
    ask_and_tell(strategy, np.random.default_rng(0), 8)
    state = strategy.state_dict()
    text = exact(state)
    ask_and_tell(strategy, np.random.default_rng(0), 4)
    assert exact(state) == text
    strategy.load_state_dict(state)
    ask_and_tell(strategy, np.random.default_rng(0), 4)
    assert exact(state) == text


DAMAGED: list[tuple[str, dict[str, Any], str]] = [
    ("random", {"strategy": "evolution"}, "'strategy' must be one of random, not 'evolution'"),
    ("random", {"space": "darts"}, "'space' must be one of nasbench201"),
    ("random", {"random": {}}, "'random' is no generator's"),
    ("random", {"random": {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}}}, "'random' is no"),
    ("random", {"pending": None}, "'pending' must be a list, not None"),
    ("random", {"pending": [[0, 0, 0]]}, r"\[0, 0, 0\] is no architecture of nasbench201"),
    ("random", {"pending": [[0, 0, 0, 0, 0, "x"]]}, "is no architecture of nasbench201"),
    ("random", {"seen": ["xyz"]}, "'seen' has no keys"),
    ("random", {"seen": 3}, "'seen' has no keys"),
    ("local_search", {"climbs": [3]}, "'climbs' must be objects"),
    ("local_search", {"climbs": []}, "what is pending is not what its 'climbs' wait for"),
    ("local_search", {"climbs": [{"best": "x"}]}, "'best' must be a number"),
    ("evolution", {"values": [1.0]}, "'values' must be 5 numbers"),
    ("evolution", {"population": [[9]]}, r"\[9\] is no architecture"),
    ("reinforce", {"baseline": "x"}, "'baseline' must be a number"),
    ("reinforce", {"policy": {}}, "tensor 'alpha_cell' is missing from search.pt"),
    ("nge_reinforce", {"learned_values": []}, "'learned_values' must be 5 numbers"),
    ("nge_reinforce", {"policy": 3}, "'policy' must be an object"),
    ("nge_evolution", {"learned": None}, "'learned' must be a list"),
    ("predictor", {"planned": [[0]]}, r"\[0\] is no architecture of nasbench201"),
    ("predictor", {"learned_values": [1.0]}, "'learned_values' must be 5 numbers"),
]


@pytest.mark.parametrize(("name", "change", "why"), DAMAGED)
def test_a_damaged_state_is_refused_in_one_line(
    name: str, change: dict[str, Any], why: str, small_policy: SmallPolicy
) -> None:
    strategy = build_strategy(SPACE, small(name), small_policy("direct"))
    codes = strategy.ask(6)
    for code in codes[:5]:
        strategy.tell(code, odd_value(SPACE, code))
    whole = strategy.state_dict()
    with pytest.raises(UserError, match=why) as refused:
        strategy.load_state_dict({**whole, **change}, "search.pt")
    assert "search.pt" in str(refused.value)
    missing = next(iter(change))
    with pytest.raises(UserError, match=rf"search.pt is damaged: '{missing}' is missing"):
        strategy.load_state_dict({key: value for key, value in whole.items() if key != missing}, "search.pt")
    assert exact(strategy.state_dict()) == exact(whole)


def test_an_embedding_too_small_for_the_space_is_refused() -> None:
    with pytest.raises(UserError, match=r"embedding\.input_dim=3: must be at least 4"):
        build_strategy(SPACE, small("nge_reinforce"), PolicySection(input_dim=3))
