"""The losses of predictors against loops over pairs and architectures."""

from __future__ import annotations

import math

import pytest
import torch

from nge_search.predict import losses

LABELS = torch.tensor([0.3, 0.9, 0.3, 0.5, 0.1, 0.9], dtype=torch.float64)


def all_pairs() -> set[tuple[int, int]]:
    """(better, worse) of every two with different labels."""
    count = range(len(LABELS))
    return {(i, j) for i in count for j in count if LABELS[i] > LABELS[j]}


def test_all_pairs_that_differ() -> None:
    better_P, worse_P = losses.pairs(LABELS, 4, torch.Generator())
    found = list(zip(better_P.tolist(), worse_P.tolist()))
    assert len(found) == len(set(found)) == 13
    assert set(found) == all_pairs()


def test_no_more_pairs_than_allowed_each_as_often() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(all_pairs(), 0)
    draws = 2600
    for _ in range(draws):
        better_P, worse_P = losses.pairs(LABELS, 0.5, generator)
        drawn = list(zip(better_P.tolist(), worse_P.tolist()))
        assert len(drawn) == len(set(drawn)) == 3
        for pair in drawn:
            counts[pair] += 1
    expected = draws * 3 / 13
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


def test_labels_that_are_all_equal_have_no_pairs() -> None:
    better_P, worse_P = losses.pairs(torch.ones(5), 4, torch.Generator())
    assert len(better_P) == len(worse_P) == 0


def test_hinge() -> None:
    """Against the published form: the sign of the labels' difference times that of the scores."""
    score_EB = torch.randn(3, len(LABELS), dtype=torch.float64)
    expected = 0.0
    for score_B in score_EB.tolist():
        terms = []
        for i in range(len(LABELS)):
            for j in range(i):
                if LABELS[i] != LABELS[j]:
                    sign = 1 if LABELS[i] > LABELS[j] else -1
                    terms.append(max(0.0, 0.1 - sign * (score_B[i] - score_B[j])))
        expected += sum(terms) / len(terms)
    found = losses.hinge(score_EB, *losses.pairs(LABELS, 100, torch.Generator()))
    assert found.item() == pytest.approx(expected, abs=1e-12)
    assert losses.hinge(LABELS[None] * 10, *losses.pairs(LABELS, 100, torch.Generator())) == 0


def test_regression_and_anytime() -> None:
    score_ETB, label_TB = torch.randn(3, 2, 6, dtype=torch.float64), torch.rand(2, 6, dtype=torch.float64)
    expected = 0.0
    for stage in range(2):
        alone = 0.0
        for score_B in score_ETB[:, stage].tolist():
            squares = [(1 / (1 + math.exp(-s)) - y) ** 2 for s, y in zip(score_B, label_TB[stage].tolist())]
            alone += sum(squares) / len(squares)
        found = losses.regression(score_ETB[:, stage], label_TB[stage])
        assert found.item() == pytest.approx(alone, abs=1e-12)
        expected += alone
    assert losses.anytime(score_ETB, label_TB).item() == pytest.approx(expected, abs=1e-12)
