"""Figures of answers: a ranking worked by hand, scikit-learn's, and tests of significance by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from nge_search.metrics.retrieval import Answers, auroc, cosines, family_permutation_test


def test_a_ranking_by_hand() -> None:
    """Six items, the query's own left out, ranked b d a e c: b and a and c are relevant.

    Hits at ranks 1, 3 and 5: AP@2 = 1 / 2, AP@5 = (1 + 2/3 + 3/5) / 3;
    NDCG@2 = 1 / (1 + 1/log2 3), NDCG@5 = (1 + 1/2 + 1/log2 6) / (1 + 1/log2 3 + 1/2).
    """
    similarity = np.array([[0.7, 0.9, 0.1, 0.8, 0.5, 1.0]])
    relevant = np.array([[True, True, True, False, False, True]])
    there = np.array([[True, True, True, True, True, False]])
    answers = Answers.of(similarity, relevant, there, 5)
    assert answers.hit_QK.tolist() == [[True, False, True, False, True]]
    assert answers.relevant_Q.tolist() == [3]
    assert answers.figures((2, 5)) == {
        "mrr_at_2": 1.0,
        "map_at_2": 0.5,
        "ndcg_at_2": pytest.approx(1 / (1 + 1 / math.log2(3))),
        "mrr_at_5": 1.0,
        "map_at_5": pytest.approx((1 + 2 / 3 + 3 / 5) / 3),
        "ndcg_at_5": pytest.approx((1 + 1 / 2 + 1 / math.log2(6)) / (1 + 1 / math.log2(3) + 1 / 2)),
    }


def test_ranks_of_first_hits() -> None:
    answers = Answers(np.array([[False, False, True], [False, False, False]]), np.array([1, 2]))
    assert answers.reciprocal_ranks(3).tolist() == [1 / 3, 0]
    assert answers.reciprocal_ranks(2).tolist() == [0, 0]


def test_fewer_items_than_places() -> None:
    """A query's own place, and those of items that are left out, are never hits."""
    answers = Answers.of(np.zeros((1, 3)), np.ones((1, 3), bool), np.array([[False, True, True]]), 100)
    assert answers.hit_QK.tolist() == [[True, True, False]]
    assert answers.figures((100,)) == {"mrr_at_100": 1.0, "map_at_100": 1.0, "ndcg_at_100": pytest.approx(1.0)}


def test_queries_that_nothing_answers() -> None:
    """They are left out of the means."""
    similarity = np.array([[0.5, 0.4], [0.5, 0.4]])
    relevant = np.array([[False, True], [False, False]])
    there = np.ones((2, 2), bool)
    answers = Answers.of(similarity, relevant, there, 2)
    assert answers.figures((2,))["map_at_2"] == 0.5
    assert np.isnan(answers.average_precisions(2)).tolist() == [False, True]
    assert all(math.isnan(value) for value in Answers.of(similarity, ~there, there, 2).figures().values())


def test_against_scikit_learn() -> None:
    """At full depth AP and NDCG are scikit-learn's; at K its NDCG, and its AP of the first K where all are relevant
    within."""
    random = np.random.default_rng(0)
    similarity = random.normal(size=(20, 15))
    relevant = random.random((20, 15)) < 0.3
    relevant[:, 0] = True
    there = np.ones_like(relevant)
    answers = Answers.of(similarity, relevant, there, 15)
    precisions = [reference.average_precision_score(r, s) for r, s in zip(relevant, similarity)]
    np.testing.assert_allclose(answers.average_precisions(15), precisions)
    for depth in (1, 4, 15):
        expected = [reference.ndcg_score(r[None], s[None], k=depth) for r, s in zip(relevant, similarity)]
        np.testing.assert_allclose(answers.ndcgs(depth), expected)
        for q in range(20):
            order = np.argsort(-similarity[q])[:depth]
            hits = relevant[q, order]
            ap = sum(hits[: r + 1].mean() * hits[r] for r in range(depth)) / min(relevant[q].sum(), depth)
            assert answers.average_precisions(depth)[q] == pytest.approx(ap)


def test_cosines() -> None:
    x, y = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [-3.0, -4.0]])
    np.testing.assert_allclose(cosines(x, y), [[0.96, -1.0], [0.0, 0.0]])


def test_areas_under_curves() -> None:
    random = np.random.default_rng(1)
    positive, negative = random.integers(0, 6, 30), random.integers(-2, 4, 40)
    expected = reference.roc_auc_score([1] * 30 + [0] * 40, np.concatenate([positive, negative]))
    assert auroc(positive, negative) == pytest.approx(expected)
    assert math.isnan(auroc(positive, negative[:0]))


def test_significance_against_all_exchanges() -> None:
    random = np.random.default_rng(2)
    family = np.array(["a", "b", "a", "c", "d", "c", "b", "e"])
    first, second = random.random((2, 8))
    second[3] = np.nan
    values = []
    for signs in itertools.product((1, -1), repeat=5):
        sign = dict(zip("abcde", signs))
        values.append(np.nanmean([sign[f] * d for f, d in zip(family, first - second)]))
    expected = np.mean([value >= values[0] - 1e-12 for value in values])
    assert family_permutation_test(first, second, family) == pytest.approx(expected)
    assert 0 < expected < 1


def test_significance_by_drawing() -> None:
    """With more families than can be exchanged one by one it comes close to the exact p, and repeats itself."""
    random = np.random.default_rng(3)
    family = np.repeat(np.arange(12), 3)
    first = random.random(36) + 0.1
    second = random.random(36)
    exact = family_permutation_test(first, second, family)
    drawn = family_permutation_test(first, second, family, draws=4000)
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn == family_permutation_test(first, second, family, draws=4000)


def test_significance_of_families_not_queries() -> None:
    """One family that is better at everything is one piece of evidence, however many queries it has."""
    first, second = np.ones(50), np.zeros(50)
    assert family_permutation_test(first, second, np.zeros(50)) == 0.5
    assert family_permutation_test(first, second, np.arange(50)) == pytest.approx(1e-5, rel=0.01)
    assert family_permutation_test(first, first, np.arange(50)) == 1.0
    assert family_permutation_test(second, first, np.arange(50)) == 1.0
