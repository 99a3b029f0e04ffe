"""Who asks, of whom, and what is right: small sets by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.retrieve.tasks import (
    between,
    cross_fitted,
    family_folds,
    held_out,
    large_families,
    near_twins,
    nearest_with_and_without,
    relations,
    same_family,
)

FAMILIES = ["a"] * 5 + ["b"] * 6 + ["c"] * 4 + [""]


def test_leave_one_out() -> None:
    assert large_families(FAMILIES) == ["a", "b"]
    task = same_family(FAMILIES)
    assert task.query_Q.tolist() == list(range(11))
    assert task.family_Q.tolist() == FAMILIES[:11]
    assert task.there_QN.sum(axis=1).tolist() == [15] * 11
    assert not task.there_QN[np.arange(11), task.query_Q].any()
    assert task.answers(np.ones(task.there_QN.shape)).relevant_Q.tolist() == [4] * 5 + [5] * 6
    some = same_family(FAMILIES, ["c"])
    assert some.query_Q.tolist() == [11, 12, 13, 14]
    fewer = task.of_queries(task.family_Q == "b")
    assert fewer.query_Q.tolist() == [5, 6, 7, 8, 9, 10]


def test_perfect_answers() -> None:
    """A similarity that knows the families finds all of them."""
    task = same_family(FAMILIES)
    figures = task.answers(task.relevant_QN + 0.0).figures()
    assert set(figures.values()) == {1.0}


def test_how_near_the_nearest_is() -> None:
    task = same_family(["a", "a", "b"], ["a"])
    similarity = np.array([[1.0, 0.9, 0.4], [0.9, 1.0, 0.95]])
    known, left_out = nearest_with_and_without(similarity, task)
    assert (known.tolist(), left_out.tolist()) == ([0.9, 0.95], [0.4, 0.95])


def test_one_set_in_another() -> None:
    asking, asked = np.zeros(16, bool), np.zeros(16, bool)
    asking[[0, 5, 11, 15]], asked[[0, 1, 6, 15]] = True, True
    task = between(FAMILIES, asking, asked)
    assert task.query_Q.tolist() == [0, 5]
    assert [np.flatnonzero(row).tolist() for row in task.there_QN] == [[1, 6, 15], [0, 1, 6, 15]]
    assert task.answers(np.ones((2, 16))).relevant_Q.tolist() == [1, 1]


def test_relations() -> None:
    task = relations({(0, 2), (0, 3), (4, 1), (4, 4)}, 5, ["x", "y", "x", "y", "z"])
    assert task.query_Q.tolist() == [0, 4]
    assert [np.flatnonzero(row).tolist() for row in task.relevant_QN] == [[2, 3], [1]]
    assert task.family_Q.tolist() == ["x", "z"]


def test_near_twins() -> None:
    """Jaccard's index by hand: 0 and 1 share 2 of 4 words, 0 and 2 share 1 of 5."""
    bags = [np.array(words, np.uint64) for words in ([1, 2, 3], [2, 3, 4], [3, 5, 6])]
    twins = near_twins(bags, np.array([0, 1]), 0.5)
    assert twins.tolist() == [[True, True, False], [True, True, False]]
    assert near_twins(bags, np.array([0]), 0.6).tolist() == [[True, False, False]]
    task = same_family(["a", "a", "a"], ["a"]).of_queries(np.array([True, True, False])).without(twins)
    assert task.there_QN.tolist() == [[False, False, True], [False, False, True]]


def test_held_out() -> None:
    held_N = held_out(FAMILIES, 0.25, 0)
    counts = [int(held_N[np.array(FAMILIES) == name].sum()) for name in ("a", "b", "c", "")]
    assert counts == [1, 2, 1, 0]
    assert (held_out(FAMILIES, 0.25, 0) == held_N).all()
    assert any((held_out(FAMILIES, 0.25, seed) != held_N).any() for seed in range(5))


def test_models_never_see_the_families_that_ask() -> None:
    families = [f"family {i // 5}" for i in range(40)] + ["small"] * 2
    task = same_family(families, [*large_families(families), "small"])
    fits = []

    def fit(seen: list[str], query_Q: np.ndarray) -> np.ndarray:
        asking = {families[query] for query in query_Q}
        assert not asking & set(seen)
        assert all(name in ("", own) for name, own in zip(seen, families))
        fits.append(asking)
        return np.repeat(query_Q[:, None], len(families), axis=1).astype(float)

    found = cross_fitted(families, task, fit, 3, 0)
    assert (found == task.query_Q[:, None]).all()
    assert len(fits) == 4
    assert sorted(name for asking in fits for name in asking) == sorted(set(families))
    folds = list(family_folds(families, 3, 0))
    assert sorted(map(len, folds)) == [2, 3, 3]
    assert folds != list(family_folds(families, 3, 1))


def test_folds_of_few_families() -> None:
    assert list(family_folds(FAMILIES, 5, 0)) in ([["a"], ["b"]], [["b"], ["a"]])
    with pytest.raises(StopIteration):
        next(family_folds(["", ""], 2, 0))
