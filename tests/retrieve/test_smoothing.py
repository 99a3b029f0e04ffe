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
    total = total / np.linalg.norm(total)
    if not smoothing.kept:
        return total
    return np.concatenate([smoothing.kept**0.5 * x_D, (1 - smoothing.kept) ** 0.5 * total])


@pytest.mark.parametrize("smoothing", [Smoothing(3, 0.5, 2.0), Smoothing(40, 1.0, 0.0), Smoothing(3, kept=0.3)])
def test_against_loops(smoothing: Smoothing) -> None:
    unit_ND, query_QD = units(9), units(2, 1)
    expected = [slowly(unit_ND[i], [unit_ND[j] for j in range(9) if j != i], smoothing) for i in range(9)]
    np.testing.assert_allclose(smoothing.rows(unit_ND), expected)
    np.testing.assert_allclose(
        smoothing.queries(query_QD, unit_ND), [slowly(q, list(unit_ND), smoothing) for q in query_QD]
    )


@pytest.mark.parametrize("smoothing", [Smoothing(3, 0.7, 2.0), Smoothing(3, 0.7, 2.0, 0.4), Smoothing(20)])
def test_each_query_has_a_database_of_its_own(smoothing: Smoothing) -> None:
    """As if the database had been built anew for each query from what is there."""
    unit_ND = units(12)
    unit_ND[9] = unit_ND[3]  # what is the same is no neighbour
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
    with pytest.raises(UserError, match="a share of 0 to 1"):
        Smoothing(1, kept=1.5)


def test_a_chain_of_relatives() -> None:
    """Members of a family that are unlike each other are found by what lies between them."""
    angles = np.deg2rad([0, 25, 50, 75, 100, 128])
    unit_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    smoothing = Smoothing(2, 1.0, 1.0)
    before = float(unit_ND[0] @ unit_ND[4])
    smoothed = smoothing.rows(unit_ND)
    assert float(smoothed[0] @ smoothed[4]) > before + 0.1


def test_what_was_nearest_stays_near() -> None:
    """Two vectors that are close are told from a cluster beside them only by what is kept of them."""
    angles = np.deg2rad([0, 4, 20, 21, 22, 23])
    unit_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cosine_NN, there_QN = unit_ND @ unit_ND.T, np.array([[False, *[True] * 5]])
    nearest = []
    for kept in (0.0, 0.9):
        found_QN = smoothed_similarities(cosine_NN, np.array([0]), there_QN, Smoothing(4, 5.0, 0.0, kept))
        nearest.append(int(np.where(there_QN, found_QN, -1)[0].argmax()))
    assert nearest[0] != 1
    assert nearest[1] == 1
