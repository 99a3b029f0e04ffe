"""Means and deviations over seeds, and differences in pairs of seeds, against numbers by hand and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from nge_search.predict.comparison import compare, paired, summarise


def row(model: str, budget: str, seed: int, fold: int, tau: float | None, **more: Any) -> dict[str, Any]:
    own = {"model": model, "budget": budget, "labels": 10, "seed": seed, "fold": fold, "kendall_tau": tau}
    return {"epoch": 0, **own, "seconds": 1.0, "data": "x", **more}


def test_figures_are_averaged_over_folds_and_then_over_seeds() -> None:
    rows = [
        *(
            row("a", "1%", 0, 0, 0.1),
            row("a", "1%", 0, 1, 0.3),
            row("a", "1%", 1, 0, 0.8),
            row("a", "1%", 1, 1, None),
        ),
        row("b", "1%", 0, 0, 0.5, covered=1.0),
    ]
    first, second = summarise(rows)
    assert first["kendall_tau"] == pytest.approx({"mean": 0.5, "deviation": 0.3})
    assert (first["model"], first["budget"], first["labels"], first["seeds"]) == ("a", "1%", 10, 2)
    assert second["kendall_tau"] == {"mean": 0.5, "deviation": None}  # one seed has none
    assert second["covered"]["mean"] == 1.0
    assert "covered" not in first
    assert not {"seconds", "data", "epoch", "fold", "seed"} & first.keys()


def test_differences_are_of_equal_seeds() -> None:
    taus = {("a", 0): 0.5, ("a", 1): 0.6, ("a", 2): 0.4, ("b", 0): 0.55, ("b", 1): 0.68, ("b", 3): 0.0}
    (found,) = compare([row(model, "9", seed, 0, tau) for (model, seed), tau in taus.items()])
    assert (found["model"], found["against"], found["budget"], found["pairs"]) == ("b", "a", "9", 2)
    assert found["mean"] == pytest.approx(0.065)
    assert compare([row("a", "9", 0, 0, 0.1)]) == []


def test_pairs_as_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.01, 0.02, 9)
    found, theirs = paired(differences.tolist()), stats.ttest_1samp(differences, 0)
    low, high = theirs.confidence_interval(0.95)
    assert [found["low"], found["high"], found["p"]] == pytest.approx([low, high, theirs.pvalue])
    assert paired([0.5]) == {"pairs": 1, "mean": 0.5, "low": None, "high": None, "p": None}
    assert paired([0.0, 0.0])["p"] == 1.0
    assert paired([0.5, 0.5])["p"] == 0.0
