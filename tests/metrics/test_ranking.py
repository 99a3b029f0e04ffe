"""Figures of rankings against brute force over pairs and sorted lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nge_search.metrics import ranking

#: Scores and labels with ties.
_values = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=25)


def tau_b(score_N: np.ndarray, label_N: np.ndarray) -> float:
    concordance, score_pairs, label_pairs = 0, 0, 0
    for i in range(len(score_N)):
        for j in range(i):
            of_score, of_label = np.sign(score_N[i] - score_N[j]), np.sign(label_N[i] - label_N[j])
            concordance += of_score * of_label
            score_pairs += of_score != 0
            label_pairs += of_label != 0
    return concordance / math.sqrt(score_pairs * label_pairs) if score_pairs * label_pairs else math.nan


def correlation(x_N: list[float], y_N: list[float]) -> float:
    x_mean, y_mean = sum(x_N) / len(x_N), sum(y_N) / len(y_N)
    product = sum((x - x_mean) * (y - y_mean) for x, y in zip(x_N, y_N))
    squares = sum((x - x_mean) ** 2 for x in x_N) * sum((y - y_mean) ** 2 for y in y_N)
    return product / math.sqrt(squares) if squares > 1e-12 else math.nan


def mean_ranks(value_N: np.ndarray) -> list[float]:
    return [
        (sum(other < value for other in value_N) + sum(other <= value for other in value_N) + 1) / 2
        for value in value_N
    ]


@settings(max_examples=60, deadline=None, database=None)
@given(_values)
def test_correlations(values: list[tuple[int, int]]) -> None:
    score_N, label_N = np.array(values, dtype=float).T
    same = {"nan_ok": True, "abs": 1e-9}
    assert ranking.kendall_tau(score_N, label_N) == pytest.approx(tau_b(score_N, label_N), **same)
    assert ranking.pearson(score_N, label_N) == pytest.approx(correlation(list(score_N), list(label_N)), **same)
    expected = correlation(mean_ranks(score_N), mean_ranks(label_N))
    assert ranking.spearman(score_N, label_N) == pytest.approx(expected, **same)
    squares = [(score - label) ** 2 for score, label in values]
    assert ranking.mean_squared_error(score_N, label_N) == pytest.approx(sum(squares) / len(squares))


@settings(max_examples=60, deadline=None, database=None)
@given(_values, st.data())
def test_the_best_ones(values: list[tuple[int, int]], data: st.DataObject) -> None:
    score_N, label_N = np.array(values, dtype=float).T
    count = data.draw(st.integers(1, len(values)))
    places = list(range(len(values)))
    chosen = sorted(places, key=lambda place: (-score_N[place], place))[:count]
    best = sorted(places, key=lambda place: (-label_N[place], place))[:count]
    assert ranking.precision_at(score_N, label_N, count) == len(set(chosen) & set(best)) / count
    above = max(label_N[place] for place in chosen)
    assert ranking.best_rank_at(score_N, label_N, count) == 1 + sum(label > above for label in label_N)


def test_all_figures() -> None:
    generator = np.random.default_rng(0)
    score_N, label_N = generator.normal(size=(2, 40))
    found = ranking.ranking_figures(score_N, label_N, (0.001, 0.1))
    assert found == {
        "kendall_tau": ranking.kendall_tau(score_N, label_N),
        "spearman": ranking.spearman(score_N, label_N),
        "pearson": ranking.pearson(score_N, label_N),
        "precision_at_0.001": ranking.precision_at(score_N, label_N, 1),
        "best_rank_at_0.001": ranking.best_rank_at(score_N, label_N, 1),
        "precision_at_0.1": ranking.precision_at(score_N, label_N, 4),
        "best_rank_at_0.1": ranking.best_rank_at(score_N, label_N, 4),
    }


@settings(max_examples=40, deadline=None, database=None)
@given(_values)
def test_tau_without_one_architecture(values: list[tuple[int, int]]) -> None:
    score_N, label_N = np.array(values, dtype=float).T
    found_N = ranking._without_one(score_N, label_N)
    expected = [tau_b(np.delete(score_N, i), np.delete(label_N, i)) for i in range(len(score_N))]
    assert found_N == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_the_interval_of_tau_holds_it_as_often_as_it_says() -> None:
    """Of normal pairs of correlation r, tau is 2 / pi arcsin(r) (Kruskal, 1958)."""
    random, correlation, held = np.random.default_rng(0), 0.8, []
    truth = 2 / math.pi * math.asin(correlation)
    for _ in range(300):
        x_N, noise_N = random.normal(size=(2, 30))
        low, high = ranking.kendall_tau_interval(x_N, correlation * x_N + math.sqrt(1 - correlation**2) * noise_N)
        assert -1 <= low < high <= 1
        held.append(low <= truth <= high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_no_interval_where_tau_may_be_undefined() -> None:
    for scores, labels in (([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 1, 1, 2], [1, 2, 3, 4])):
        assert all(map(math.isnan, ranking.kendall_tau_interval(np.array(scores), np.array(labels))))
