"""From rows of trials to means, deviations, and what finds more than the first."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.metrics.retrieval import Answers, family_permutation_test
from nge_search.retrieve.comparison import compare, figures, summarise


def rows_of(model: str, seed: int, precision_FQ: np.ndarray) -> dict[str, object]:
    families = {f"f{number}": [len(own), float(own.sum())] for number, own in enumerate(precision_FQ)}
    figure = float(precision_FQ.mean())
    return {"task": "t", "model": model, "seed": seed, "queries": precision_FQ.size, "families": families,
            "map_at_20": figure, "mrr_at_20": figure / 2, "seconds": 1.0, "epoch": 0, "data": "d"}  # fmt: skip


def test_figures_of_answers() -> None:
    """The third query has no answer, and is left out everywhere."""
    hit_QK = np.array([[True, False], [False, True], [False, False]])
    found = figures(Answers(hit_QK, np.array([1, 2, 0])), np.array(["a", "b", "b"]))
    assert found["queries"] == 2
    assert found["families"] == {"a": [1, 1.0], "b": [1, 0.25]}
    assert found["map_at_20"] == 0.625
    assert found["mrr_at_20"] == 0.75


def test_means_and_deviations_over_seeds() -> None:
    rows = [rows_of("a", seed, np.full((2, 3), value)) for seed, value in ((0, 0.2), (1, 0.6))]
    (found,) = summarise([*rows])
    assert (found["task"], found["model"], found["seeds"], found["queries"]) == ("t", "a", 2, 6)
    assert found["map_at_20"] == {"mean": pytest.approx(0.4), "deviation": pytest.approx(0.2)}
    assert "seconds" not in found
    assert summarise(rows[:1])[0]["map_at_20"]["deviation"] is None


def test_differences_by_exchanging_families() -> None:
    """As the test of all queries side by side, those of all seeds together."""
    random = np.random.default_rng(0)
    first = random.random((2, 9, 4))
    second = first + 0.1 * random.random((2, 9, 4)) - 0.03
    rows = [rows_of(m, seed, own) for seed in (0, 1) for m, own in (("a", first[seed]), ("b", second[seed]))]
    (found,) = compare(rows)
    assert (found["task"], found["model"], found["against"], found["pairs"]) == ("t", "b", "a", 2)
    assert found["difference"] == pytest.approx(float((second - first).mean()))
    assert found["mrr_difference"] == pytest.approx(float((second - first).mean()) / 2)
    family_Q = np.tile(np.repeat(np.arange(9), 4), 2)
    assert found["p"] == family_permutation_test(second.ravel(), first.ravel(), family_Q)
    assert 0 < found["p"] < 0.05
    assert compare(rows[:1]) == []
