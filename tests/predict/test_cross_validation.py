"""Out-of-fold predictions: every label once, by a predictor that had not seen it, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from nge_search.metrics.ranking import kendall_tau_interval
from nge_search.predict.base import Predictor, ProbabilisticPredictor
from nge_search.predict.cross_validation import cross_validate
from nge_search.predict.evaluation import LEVELS, Judged, coverage, judge
from nge_search.predict.splits import halves

#: In place of cells: predictors below know them by what they are.
CELLS = [{"cell": number} for number in range(10)]


class Remembers(Predictor):
    """Scores by the cell's number, each fit on a scale of its own; what it has learnt from in the wrong order."""

    fits = 0

    def fit(self, known: Sequence, label_N: Tensor, seed: int) -> None:
        assert label_N.tolist() == [50.0 + cell["cell"] for cell in known]
        Remembers.fits += 1
        self.scale, self.seen = 10.0**Remembers.fits, {cell["cell"] for cell in known}

    def scores(self, asked: Sequence) -> Tensor:
        assert len(asked) == len(CELLS)  # all, so that scales can be told
        sign = [-1 if cell["cell"] in self.seen else 1 for cell in asked]
        values = [own * self.scale * (cell["cell"] - 4.5) for own, cell in zip(sign, asked)]
        return torch.tensor(values, dtype=torch.float64)

    def state(self):
        raise NotImplementedError

    def load_state(self, tensors, document):
        raise NotImplementedError


class Sure(ProbabilisticPredictor):
    """Expects 50 and the cell's number, with a deviation of 1."""

    def fit(self, known: Sequence, label_N: Tensor, seed: int) -> None:
        self.learnt = len(known)

    def posterior(self, asked: Sequence) -> tuple[Tensor, Tensor]:
        mean_M = torch.tensor([50.0 + cell["cell"] for cell in asked], dtype=torch.float64)
        return mean_M, torch.ones_like(mean_M)

    def target(self, label: Tensor) -> Tensor:
        return label

    def label(self, target: Tensor) -> Tensor:
        return target

    state = Remembers.state
    load_state = Remembers.load_state


def data(labels: Sequence[float]) -> Judged:
    label_N = np.array(labels, dtype=float)
    return Judged(CELLS, label_N, label_N)


def test_no_label_was_seen_by_what_predicts_it() -> None:
    """The scale of each fit, and the wrong order of what was learnt from, would disturb that of the others."""
    own, told = data(50.0 + np.arange(10)), []
    half, whole = cross_validate(
        Remembers,
        own,
        5,
        0,
        (0.25, 0.5, 1.0),
        lambda fold, labels, score_N, label_N: told.append((fold, labels, len(score_N))),
    )
    assert (half.labels, whole.labels) == (4, 8)  # a quarter would be two
    assert told == [(fold, 8, 2) for fold in range(5)]
    assert whole.quantile_NL is None
    assert whole.figures(own.label_N)["kendall_tau"] > 0.6


def test_quantiles_and_what_they_cover() -> None:
    labels = 50.0 + np.arange(10)
    labels[:3] += 1.0  # outside the half, which reaches .67
    labels[0] += 1.0  # and outside 90 %, which reach 1.64
    (found,) = cross_validate(Sure, data(labels), 20, 0)  # more parts than labels
    assert found.labels == 9
    assert found.quantile_NL[:, 2] == pytest.approx(50.0 + np.arange(10))
    figures = found.figures(labels)
    assert (figures["covered_0.5"], figures["covered_0.9"]) == pytest.approx((0.7, 0.9))
    assert figures["interval"] == list(kendall_tau_interval(found.score_N, labels))
    assert coverage(np.array([[0, 1, 2, 3, 4.0]]), np.array([3.5])) == {"covered_0.5": 0.0, "covered_0.9": 1.0}
    assert LEVELS[2] == 0.5


def test_a_trial_trains_on_the_first_of_the_pool() -> None:
    own = data(50.0 + np.arange(10))
    split = halves(10, 0)
    figures = judge(predictor := Sure(), own, split, 3, 0)
    assert predictor.learnt == 3
    assert (figures["kendall_tau"], figures["spearman"]) == pytest.approx((1, 1))
    assert figures["covered_0.5"] == 1
    assert figures["fit_seconds"] >= 0


def test_undefined_figures_are_null() -> None:
    found = cross_validate(Sure, data([50.0] * 10), 5, 0)[0].figures(np.full(10, 50.0))
    assert (found["kendall_tau"], found["interval"]) == (None, None)
