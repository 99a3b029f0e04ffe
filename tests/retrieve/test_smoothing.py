"""Vectors that take up their neighbours, against loops; and databases that differ from query to query."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.errors import UserError
from nge_search.retrieve.smoothing import Smoothing, smoothed_similarities


def units(count: int, seed: int = 0) -> np.ndarray:
    x_ND = np.random.default_rng(seed).normal(size=(count, 5)) + 1
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


def slowly(x_D: np.ndarray, others: list[np.ndarray], smoothing: Smoothing) -> np.ndarray:
    near = sorted(others, key=lambda other: -float(x_D @ other))[: smoothing.neighbours]
    total = x_D + smoothing.weight * sum(max(float(x_D @ other), 0) ** smoothing.power * other for other in near)
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("smoothing", [Smoothing(3, 0.5, 2.0), Smoothing(40, 1.0, 0.0)])
def test_against_loops(smoothing: Smoothing) -> None:
    unit_ND, query_QD = units(9), units(2, 1)
    expected = [slowly(unit_ND[i], [unit_ND[j] for j in range(9) if j != i], smoothing) for i in range(9)]
    np.testing.assert_allclose(smoothing.rows(unit_ND), expected)
    np.testing.assert_allclose(
        smoothing.queries(query_QD, unit_ND), [slowly(q, list(unit_ND), smoothing) for q in query_QD]
    )


def test_each_query_has_a_database_of_its_own() -> None:
    """As if the database had been built anew for each query from what is there."""
    unit_ND, smoothing = units(12), Smoothing(3, 0.7, 2.0)
    random = np.random.default_rng(2)
    query_Q = np.array([1, 4, 7])
    there_QN = random.random((3, 12)) < 0.6
    there_QN[np.arange(3), query_Q] = False
    found = smoothed_similarities(unit_ND @ unit_ND.T, query_Q, there_QN, smoothing)
    for q, query in enumerate(query_Q):
        kept = np.flatnonzero(there_QN[q])
        rows = smoothing.rows(unit_ND[kept])
        asked = smoothing.queries(unit_ND[[query]], unit_ND[kept])
        np.testing.assert_allclose(found[q, kept], (asked @ rows.T)[0])
    assert np.ptp(there_QN.sum(axis=1)) > 0


def test_nothing_taken_up() -> None:
    unit_ND = units(4)
    np.testing.assert_array_equal(Smoothing().rows(unit_ND), unit_ND)
    found = smoothed_similarities(unit_ND @ unit_ND.T, np.array([2]), np.ones((1, 4), bool), Smoothing())
    np.testing.assert_allclose(found, unit_ND[[2]] @ unit_ND.T)
    with pytest.raises(UserError, match="at least 0"):
        Smoothing(-1)


def test_a_chain_of_relatives() -> None:
    """Members of a family that are unlike each other are found by what lies between them."""
    angles = np.deg2rad([0, 25, 50, 75, 100, 128])
    unit_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    smoothing = Smoothing(2, 1.0, 1.0)
    before = float(unit_ND[0] @ unit_ND[4])
    smoothed = smoothing.rows(unit_ND)
    assert float(smoothed[0] @ smoothed[4]) > before + 0.1
