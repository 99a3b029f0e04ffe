"""Drawn cells: always of their space, the same by seed, and as likely as the probabilities say."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import chisquare

from nge_search.design.controls import FrequencyScorer, LinkModelScorer, UniformScorer
from nge_search.design.darts import DartsRules
from nge_search.design.generator import DrawSettings, Generator
from nge_search.design.growth import Choice, Rules
from nge_search.design.link_model import build_model
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.errors import UserError
from nge_search.spaces.nasbench101 import MAX_EDGES


class Opinionated:
    """Scores by the number and kind of what is linked, different for each of two judges; no model."""

    members = 2

    def __init__(self, rules: Rules):
        self._rules = rules

    def __call__(self, choices: Sequence[Sequence[Choice]]) -> list[list[np.ndarray]]:
        return [[self._scores(member, choice) for choice in own] for member, own in enumerate(choices)]

    def _scores(self, member: int, choice: Choice) -> np.ndarray:
        nodes = len(choice.graph.labels)
        return np.array([np.sin(3 * member + 2 * s + 1.7 * t + nodes) for ((s, t), *_), _ in choice.moves])


def exact(rules: Rules, scorer: Opinionated, member: int, size: int, settings: DrawSettings) -> dict[bytes, float]:
    """The probability of each cell, by following all ways."""
    found: Counter[bytes] = Counter()

    def follow(state, probability: float) -> None:
        moves = rules.moves(state)
        if not moves:
            found[rules.key(rules.code(state))] += probability
            return
        score = scorer._scores(member, Choice(rules.graph(state), moves))
        score = 1 / (1 + np.exp(-score)) if settings.score == "probability" else score
        weight = np.exp(score / settings.temperature)
        for move, share in zip(moves, weight / weight.sum()):
            follow(rules.moved(state, move), probability * share)

    follow(rules.start(size), 1.0)
    return dict(found)


@pytest.mark.parametrize("settings", [DrawSettings(0.5), DrawSettings(1.0, "probability")])
def test_cells_are_as_likely_as_the_probabilities_say(settings: DrawSettings) -> None:
    rules, count = NasBench101Rules(4), 4000
    scorer = Opinionated(rules)
    drawn = Generator(rules, scorer, [3, 4], settings, seed=5).draw(2 * count)
    other = DrawSettings(2 * settings.temperature)
    for member in range(2):
        seen = Counter(rules.key(code) for code in drawn[member::2])
        assert goodness(rules, scorer, member, settings, seen) > 1e-3
        assert goodness(rules, scorer, member, other, seen) < 1e-6  # the test can tell


def goodness(rules: Rules, scorer: Opinionated, member: int, settings: DrawSettings, seen: Counter[bytes]) -> float:
    """The chi-square test's p; cells that are rare are counted as one."""
    halves = [exact(rules, scorer, member, size, settings) for size in (3, 4)]
    expected = {key: sum(half.get(key, 0) for half in halves) / 2 for key in {**halves[0], **halves[1]}}
    assert sum(expected.values()) == pytest.approx(1)
    assert set(seen) <= set(expected)
    total = sum(seen.values())
    common = [key for key, share in expected.items() if share * total >= 5]
    observed = [seen[key] for key in common]
    shares = [expected[key] for key in common]
    rest = 1 - sum(shares)
    if rest * total >= 5:
        observed, shares = [*observed, total - sum(observed)], [*shares, rest]
    else:
        total = sum(observed)
    return float(chisquare(observed, np.array(shares) / sum(shares) * total).pvalue)


@pytest.mark.parametrize(
    ("rules", "sizes", "count"),
    [
        (NasBench101Rules(5), [4, 5, 6, 7, 8, 9], 5000),
        (NasBench101Rules(7), [7, 8, 9], 2000),
        (NasBench101Rules(7, dangling=True), [9], 1000),
        (NasBench201Rules(), [1, 3, 5, 6], 1500),
        (DartsRules(), [16], 500),
    ],
)
def test_ten_thousand_cells_are_all_of_their_space(rules: Rules, sizes: list[int], count: int) -> None:
    """`Graph` refuses circles, `code` what is no cell; that codes are read back shows that they are whole."""
    generator = Generator(rules, UniformScorer(), sizes, seed=1)
    for code in generator.draw(count):
        graphs = rules.space.graphs(code)
        assert rules.space.allows(code)
        assert rules.space.key(rules.space.code(graphs)) == rules.space.key(code)
        if isinstance(rules, NasBench101Rules):
            (cell,) = graphs.values()
            assert len(cell.edges) <= min(max(sizes), MAX_EDGES)
            assert len(cell.nodes) <= rules.vertices
        if isinstance(rules, NasBench201Rules):
            assert rules.key(code) == rules.space.key(code)  # nothing leads nowhere


def built(rules: Rules, seed: int = 0, members: int = 3, **settings: float) -> Generator:
    scorer = LinkModelScorer(rules, build_model(rules, members=members, seed=1))
    return Generator(rules, scorer, [5, 6, 7], DrawSettings(**settings), seed)


def test_draws_depend_on_seed_and_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = NasBench101Rules(5)
    whole = built(rules).draw(60)
    assert built(rules).draw(30) + built(rules).draw(30, 30) == whole
    monkeypatch.setattr("nge_search.design.generator._AT_ONCE", 7)
    monkeypatch.setattr("nge_search.design.generator._REMEMBERED", 20)
    assert built(rules).draw(60) == whole
    assert built(rules, seed=1).draw(60) != whole
    assert len(set(whole)) > 20


def test_low_temperatures_take_the_best_move() -> None:
    rules = NasBench101Rules(5)
    generator = Generator(rules, Opinionated(rules), [6], DrawSettings(1e-6), seed=0)
    assert len(set(generator.draw(20))) <= 2  # one for each judge
    _, steps = generator.record(0)
    for step in steps:
        assert step.chosen == int(np.argmax(step.scores))


def test_records_show_what_was_weighed() -> None:
    rules = NasBench101Rules(5)
    generator = built(rules)
    code, steps = generator.record(4)
    assert [code] == generator.draw(1, 4)
    assert [len(step.graph.edges) for step in steps] == list(range(len(steps)))
    for step, after in itertools.pairwise(steps):
        assert len(step.candidates) == len(step.scores) == len(step.probabilities)
        weight = np.exp(np.array(step.scores) / 0.5)
        np.testing.assert_allclose(step.probabilities, weight / weight.sum(), rtol=1e-9)
        assert ("new" in step.candidates[step.chosen][1]) == (len(after.graph.nodes) > len(step.graph.nodes))
    np.testing.assert_array_equal(generator.probabilities(4 % 3, rules.start(5)).shape, (4,))


def test_different_cells_by_nasbench101s_hash() -> None:
    rules = NasBench101Rules(5)
    generator = built(rules)
    found = generator.distinct(20)
    keys = [rules.space.key(code) for code in found.codes]
    assert len(set(keys)) == 20
    drawn = generator.draw(found.draws)
    assert [drawn[number] for number in found.numbers] == found.codes
    assert found.draws == found.numbers[-1] + 1
    assert len({rules.key(code) for code in drawn}) == 20
    others = generator.distinct(5, known=set(keys))
    assert not {rules.key(code) for code in others.codes} & set(keys)


def test_more_cells_than_there_are() -> None:
    rules = NasBench101Rules(2)
    with pytest.raises(UserError, match="400 draws gave 1 new different cells, not 2; raise the temperature"):
        Generator(rules, UniformScorer(), [1]).distinct(2)


def test_cells_of_a_space_are_drawn_by_what_another_taught() -> None:
    taught, into = NasBench101Rules(5), DartsRules()
    scorer = LinkModelScorer(into, build_model(taught, members=2))
    code = Generator(into, scorer, [1]).draw(2)[1]
    document = into.space.to_dict(code)
    assert into.space.parse(into.space.text(code)) == code
    assert len(document["normal"]) == len(document["reduce"]) == 8


def test_models_that_judge_together_say_their_mean() -> None:
    rules = NasBench101Rules(5)
    model = build_model(rules, members=3, seed=1)
    state = rules.start(6)
    choice = Choice(rules.graph(state), rules.moves(state))
    each = LinkModelScorer(rules, model)([[choice, choice]] * 3)
    together = LinkModelScorer(rules, model, together=True)
    assert together.members == 1
    ((first, second),) = together([[choice, choice]])
    np.testing.assert_allclose(first, np.mean([scores for scores, _ in each], axis=0), rtol=1e-6)
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_frequencies_are_counts() -> None:
    rules = NasBench101Rules(4)
    whole = rules.graphs(rules.space.parse("0111000100010000 input,conv3x3-bn-relu,conv1x1-bn-relu,output"))
    scorer = FrequencyScorer(rules, [*whole, *whole], added=0.5)
    assert scorer.count_LL.sum() == 10
    assert scorer.count_LL[0].tolist() == [0, 2, 2, 0, 2]
    generator = Generator(rules, scorer, [3], DrawSettings(1.0))
    np.testing.assert_allclose(generator.probabilities(0, rules.start(3)), np.array([2.5, 2.5, 0.5, 2.5]) / 8)


@pytest.mark.parametrize(("temperature", "score"), [(0.0, "logit"), (float("nan"), "logit"), (1.0, "odds")])
def test_settings_of_draws(temperature: float, score: str) -> None:
    with pytest.raises(UserError, match=r"temperature|not 'odds'"):
        DrawSettings(temperature, score)


def test_infinite_temperature_is_even() -> None:
    rules = NasBench101Rules(4)
    generator = Generator(rules, Opinionated(rules), [3], DrawSettings(float("inf")))
    assert generator.probabilities(0, rules.start(3)).tolist() == [0.25] * 4


def test_no_sizes() -> None:
    with pytest.raises(UserError, match="no number of links"):
        Generator(NasBench101Rules(), UniformScorer(), [])
