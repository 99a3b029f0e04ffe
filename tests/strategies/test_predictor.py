"""Search by a predictor: acquisitions against integrals, batches against their definition, whole searches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import nge_search.predict.predictors
from nge_search.architecture.graph import Graph
from nge_search.predict.base import ProbabilisticPredictor, State
from nge_search.predict.predictors import open_predictor
from nge_search.settings.names import PREDICTORS, PROBABILISTIC
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import SPACES, Code, NasBench201Space, Queries, Space
from nge_search.spaces.evaluation import Evaluation
from nge_search.strategies import Strategy, build_strategy
from nge_search.strategies.acquisition import expected_improvement, greedy, thompson
from nge_search.strategies.query_loop import run_strategy

SPACE = NasBench201Space()
SmallPolicy = Callable[[str], PolicySection]
Cells = Mapping[str, Graph]


class Ridge(ProbabilisticPredictor):
    """Bayesian regression on which operation stands where, in closed form: weights N(0, 1), noise of deviation .1.

    Targets are exponentials of labels. Only the first five decisions of a code count.

    Attributes:
        fitted: what each `fit` was given.
        asked: the architectures of each question after it.
    """

    def __init__(self, space: Space):
        self.space = space
        self.fitted: list[tuple[list[Code], list[float], int]] = []
        self.asked: list[list[Code]] = []

    def _features(self, cells: Sequence[Cells]) -> np.ndarray:
        codes = np.array([self.space.code(graphs) for graphs in cells])
        return (codes[:, :5, None] == np.arange(5)).reshape(len(codes), -1).astype(float)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        self.fitted.append(([self.space.code(cells) for cells in known], label_N.tolist(), seed))
        x_NF, y_N = self._features(known), self.target(label_N).numpy()
        self.center = y_N.mean()
        self.covariance_FF = np.linalg.inv(x_NF.T @ x_NF / 0.01 + np.eye(x_NF.shape[1]))
        self.weight_F = self.covariance_FF @ x_NF.T @ (y_N - self.center) / 0.01

    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        self.asked.append([self.space.code(cells) for cells in asked])
        x_MF = self._features(asked)
        variance_M = 0.01 + np.einsum("mf,fg,mg->m", x_MF, self.covariance_FF, x_MF)
        return torch.from_numpy(x_MF @ self.weight_F + self.center), torch.from_numpy(np.sqrt(variance_M))

    def target(self, label: Tensor) -> Tensor:
        return torch.exp(label / 50)

    def label(self, target: Tensor) -> Tensor:
        return 50 * torch.log(target)

    def state(self) -> State:
        raise NotImplementedError

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, object]) -> None:
        raise NotImplementedError


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Ridge]:
    """`Ridge` stands for every predictor; those that were opened."""
    found: list[Ridge] = []

    def opening(name: str, space: Space) -> Ridge:
        found.append(Ridge(space))
        return found[-1]

    monkeypatch.setattr(nge_search.predict.predictors, "open_predictor", opening)
    return found


# -- acquisitions


def integrated(mean: float, deviation: float, best: float) -> float:
    """log E max(target - best, 0), by quadrature of the improvement over the rate at which its density falls."""
    z = (mean - best) / deviation
    rate = max(-z, 1.0)
    value, _ = integrate.quad(lambda w: w * math.exp(w * (z / rate) - (w / rate) ** 2 / 2), 0, 60, limit=500)
    return math.log(value) - 2 * math.log(rate) - z**2 / 2 - math.log(2 * math.pi) / 2 + math.log(deviation)


@pytest.mark.parametrize("z", [3.0, 0.5, 0.0, -0.99, -1.01, -4.0, -35.0, -900.0, -2e4])
@pytest.mark.parametrize("deviation", [1e-3, 2.0])
def test_expected_improvement_is_the_integral(z: float, deviation: float) -> None:
    mean, best = 0.7 + z * deviation, 0.7
    given = torch.tensor([mean], dtype=torch.float64), torch.tensor([deviation], dtype=torch.float64)
    found = float(expected_improvement(*given, best, np.random.default_rng(0)))
    assert found == pytest.approx(integrated(mean, deviation, best), rel=1e-8, abs=1e-7)


def test_thompson_s_first_is_each_with_the_chance_that_it_is_the_best() -> None:
    mean_M, deviation_M = np.array([0.0, 0.4, -1.0]), np.array([1.0, 0.3, 3.0])
    chance_M = []
    for place in range(3):
        others = [other for other in range(3) if other != place]

        def density(t: float, place: int = place, others: list[int] = others) -> float:
            below = [stats.norm.cdf(t, mean_M[other], deviation_M[other]) for other in others]
            return stats.norm.pdf(t, mean_M[place], deviation_M[place]) * math.prod(below)

        chance_M.append(integrate.quad(density, -20, 20, limit=200)[0])
    random, first_M = np.random.default_rng(0), np.zeros(3)
    for _ in range(4000):
        first_M[thompson(torch.from_numpy(mean_M), torch.from_numpy(deviation_M), 9.0, random).argmax()] += 1
    assert stats.chisquare(first_M, 4000 * np.array(chance_M)).pvalue > 1e-3


def test_greedy_is_the_mean() -> None:
    mean_M = torch.tensor([1.0, 3.0, 2.0])
    assert torch.equal(greedy(mean_M, torch.rand(3), 0.0, np.random.default_rng(0)), mean_M)


def test_settings_know_which_predictors_say_how_sure_they_are() -> None:
    opened = {name: open_predictor(name, SPACE) for name in PREDICTORS if name != "xgboost"}  # an extra
    assert [n for n, one in opened.items() if isinstance(one, ProbabilisticPredictor)] == list(PROBABILISTIC)


# -- batches


def told(strategy: Strategy, count: int, value: Callable[[Code], float]) -> list[Code]:
    """Asked for and told, one by one."""
    codes = []
    for _ in range(count):
        codes += strategy.ask()
        strategy.tell(codes[-1], value(codes[-1]))
    return codes


def settings(**given: object) -> StrategySection:
    return StrategySection(**{"name": "predictor", "warmup": 8, "batch": 4, "pool": 90, **given})


def test_a_batch_is_the_best_of_the_pool_by_expected_improvement(
    opened: list[Ridge], made_signal: Callable[[Code], float], small_policy: SmallPolicy
) -> None:
    """With some pending, whose forecasts are taken."""
    strategy = build_strategy(SPACE, settings(), small_policy("nge"), 0)
    (predictor,) = opened
    known = told(strategy, 8, made_signal)
    assert not predictor.fitted
    for rounds in range(3):
        batch = strategy.ask(4)
        codes, values, _ = predictor.fitted[rounds]
        pending, pool = predictor.asked[rounds][:rounds], predictor.asked[rounds][rounds:]
        assert (codes, values) == (known, [made_signal(code) for code in known])
        assert len(set(pool)) == len(pool) <= 90
        assert not {*known, *pending} & set(pool)
        mean_M, deviation_M = (part.tolist() for part in predictor.posterior([SPACE.graphs(c) for c in pool]))
        predictor.asked.pop()
        best = math.exp(max(values) / 50)
        worth_M = [integrated(mean, deviation, best) for mean, deviation in zip(mean_M, deviation_M)]
        order = sorted(range(len(pool)), key=lambda place: round(worth_M[place], 4), reverse=True)
        expected: dict[tuple[int, ...], float] = {}
        for place in order:
            if not any(pool[place][:-1] == code[:-1] for code in pending):
                expected.setdefault(pool[place][:-1], worth_M[place])
        assert [expected[code[:-1]] for code in batch] == pytest.approx(list(expected.values())[:4], abs=1e-4)
        assert len({code[:-1] for code in batch}) == 4
        for code in batch[1:]:  # one more stays pending each time
            strategy.tell(code, made_signal(code))
            known.append(code)
    assert len({seed for *_, seed in predictor.fitted}) == 3
    assert len(predictor.fitted) == 3


def test_the_pool_has_neighbours_of_the_best_draws_from_p_and_uniform_ones(
    opened: list[Ridge], made_signal: Callable[[Code], float], small_policy: SmallPolicy
) -> None:
    policy = small_policy("direct")
    policy.learning_rate = 0.1
    strategy = build_strategy(SPACE, settings(pool=300, explore=0.0), policy, 0)
    known = told(strategy, 41, made_signal)
    ((codes, values, _), pool) = opened[0].fitted[-1], opened[0].asked[-1]
    assert len(codes) == 40
    ranked = sorted(range(40), key=lambda place: -values[place])
    near = [code for place in ranked[:8] for code in SPACE.neighbours(codes[place]) if code not in known[:40]]
    assert sorted(set(pool[:100]) - set(near)) == []
    assert set(SPACE.neighbours(codes[ranked[0]])) <= {*pool, *known}
    beyond = [code for code in pool[100:] if code not in near]
    chances = [math.prod(p_E) for p_E in (strategy._learner.policy.matrices()[0][range(6), c] for c in beyond)]
    uniform = np.array(chances) < 0.2**6
    assert 60 < uniform.sum() <= 100 + 60  # all uniform draws but few are unlikely by P
    assert not uniform[:5].all()  # draws from P come first
    assert uniform[-50:].mean() > 0.8


def test_p_learns_as_in_nge_reinforce(made_signal: Callable[[Code], float], small_policy: SmallPolicy) -> None:
    ours, theirs = (
        build_strategy(SPACE, StrategySection(name=name, warmup=20), small_policy("nge"), 3)
        for name in ("predictor", "nge_reinforce")
    )
    assert told(ours, 20, made_signal) == told(theirs, 20, made_signal)
    assert ours.state_dict()["policy"]["embedding"].keys() == theirs.state_dict()["policy"]["embedding"].keys()
    for name, tensor in theirs.state_dict()["policy"]["embedding"].items():
        assert torch.equal(ours.state_dict()["policy"]["embedding"][name], tensor)


@pytest.mark.parametrize("acquisition", ["expected_improvement", "thompson"])
def test_the_best_of_a_toy_space_is_found_in_half_the_queries(
    opened: list[Ridge], tiny: NasBench201Space, small_policy: SmallPolicy, acquisition: str
) -> None:
    """Of 27, the one to which every decision adds most; random search has it in half of all searches."""
    worths = np.random.default_rng(1).random((3, 3))
    values = {code: 50 * sum(worths[range(3), code]) for code in itertools.product(range(3), repeat=3)}
    best = max(values, key=lambda code: values[code])
    for seed in range(5):
        strategy = build_strategy(tiny, settings(warmup=4, acquisition=acquisition), small_policy("nge"), seed)
        asked = run_strategy(strategy, Queries(tiny, lambda code: Evaluation(values[code]), 14)).codes
        assert best in asked


def test_a_state_holds_the_rest_of_a_batch(
    opened: list[Ridge], made_signal: Callable[[Code], float], small_policy: SmallPolicy
) -> None:
    strategy = build_strategy(SPACE, settings(acquisition="thompson"), small_policy("direct"), 0)
    told(strategy, 10, made_signal)
    state = strategy.state_dict()
    assert len(state["planned"]) == 2
    again = build_strategy(SPACE, settings(acquisition="thompson"), small_policy("direct"), 1)
    again.load_state_dict(state)
    assert told(again, 9, made_signal) == told(strategy, 9, made_signal)
    assert len(opened[1].fitted) == 2


# -- with real predictors


@pytest.mark.parametrize("kind", SPACES)
def test_every_space_is_searched_without_repeats_and_by_the_seed_alone(
    kind: str, small_policy: SmallPolicy
) -> None:
    """With the default predictor, and a state half way."""
    space = SPACES[kind]()

    def value(code: Code) -> float:
        labels = [label for cell in space.graphs(code).values() for label in (*cell.nodes, *cell.edges)]
        return 10.0 + sum("3x3" in str(label) for label in labels)

    def begun(seed: int) -> Strategy:
        return build_strategy(space, settings(warmup=4, pool=24), small_policy("direct"), seed)

    torch.manual_seed(0)
    strategy = begun(0)
    codes = told(strategy, 7, value)
    again = begun(1)
    again.load_state_dict(strategy.state_dict())
    torch.manual_seed(1)
    codes += told(strategy, 5, value)
    assert told(again, 5, value) == codes[7:]
    assert len({space.key(code) for code in codes}) == 12
    assert all(space.allows(code) for code in codes)


def test_equal_values_are_no_trouble(small_policy: SmallPolicy) -> None:
    strategy = build_strategy(SPACE, settings(warmup=0, pool=24), small_policy("direct"), 0)
    assert len(set(told(strategy, 7, lambda code: 10.0))) == 7
