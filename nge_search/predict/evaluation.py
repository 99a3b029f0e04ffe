"""How well predictors rank what they have not seen, trial by trial; `comparison` makes means of their rows.

A trial trains one predictor on a number of labels of one division, and judges it on the other side. Nothing here
knows of runs or files: `nge predict bench` and experiments use it alike.

Legend: N architectures, L levels of quantiles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nge_search.metrics.ranking import ranking_figures
from nge_search.predict.anytime import STAGES, AnytimePredictor, anytime_figures
from nge_search.predict.base import Predictor
from nge_search.predict.encoding import Cells
from nge_search.predict.labels import Labelled
from nge_search.predict.splits import Split

#: Shares of architectures that intervals are to cover, and the levels of their ends.
COVERED = (0.5, 0.9)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Judged:
    """Architectures as predictors take them.

    Attributes:
        cells: of each.
        label_N: what predictors learn from, in percent.
        truth_N: what they are judged by; often the same.
    """

    cells: Sequence[Cells]
    label_N: np.ndarray
    truth_N: np.ndarray

    @staticmethod
    def of(labelled: Labelled, truth_N: np.ndarray | None = None) -> Judged:
        cells = [labelled.space.graphs(code) for code in labelled.codes]
        return Judged(cells, labelled.label_N, labelled.label_N if truth_N is None else truth_N)

    def fit(self, predictor: Predictor, positions: np.ndarray, seed: int) -> None:
        """Train a predictor on some of the labels."""
        label_N = torch.from_numpy(self.label_N[positions])
        predictor.fit([self.cells[position] for position in positions.tolist()], label_N, seed)

    def asked(self, positions: np.ndarray) -> list[Cells]:
        return [self.cells[position] for position in positions.tolist()]


def judge(predictor: Predictor, data: Judged, split: Split, labels: int, seed: int) -> dict[str, float]:
    """Train a predictor on the first `labels` of a division's pool; the figures of its ranking of the test.

    They are those of `ranking_figures`, the seconds that training and scoring took, and for predictors that say how
    sure they are what their intervals covered.
    """
    start = time.perf_counter()
    data.fit(predictor, split.train(labels), seed)
    trained = time.perf_counter()
    asked, truth_N = data.asked(split.test), data.truth_N[split.test]
    score_N, quantile_NL = predictor.forecast(asked, LEVELS)
    scored = time.perf_counter()
    figures = ranking_figures(score_N.numpy(), truth_N)
    if quantile_NL is not None:
        figures |= coverage(quantile_NL.numpy(), truth_N)
    return {**figures, "fit_seconds": trained - start, "score_seconds": scored - trained}


def judge_anytime(
    predictor: AnytimePredictor, data: Judged, half_N: np.ndarray, split: Split, labels: int, seed: int
) -> dict[str, float]:
    """As `judge`, of a predictor of accuracies half-way (`half_N`) and at the end (`data.label_N`), in percent.

    Figures of the half-way ones begin with "half_".
    """
    start = time.perf_counter()
    positions = split.train(labels)
    label_TN = torch.from_numpy(np.stack([half_N, data.label_N]))
    predictor.fit(data.asked(positions), label_TN[:, positions], seed)
    trained = time.perf_counter()
    estimate_TM = predictor.estimates(data.asked(split.test)).numpy()
    scored = time.perf_counter()
    found = anytime_figures(estimate_TM, np.stack([half_N, data.truth_N])[:, split.test])
    half, final = (found[stage] for stage in STAGES)
    figures = {**final, **{f"half_{name}": value for name, value in half.items()}}
    return {**figures, "fit_seconds": trained - start, "score_seconds": scored - trained}


def coverage(quantile_NL: np.ndarray, truth_N: np.ndarray) -> dict[str, float]:
    """The shares of labels within the intervals that are to cover `COVERED`; L are `LEVELS`."""
    found = {}
    for share in COVERED:
        low, high = (LEVELS.index(round(level, 2)) for level in ((1 - share) / 2, (1 + share) / 2))
        within_N = (quantile_NL[:, low] <= truth_N) & (truth_N <= quantile_NL[:, high])
        found[f"covered_{share:g}"] = float(within_N.mean())
    return found


@dataclass(frozen=True)
class Trial:
    """One training of one predictor.

    Attributes:
        model: its name.
        budget: the number of labels as it was asked for, such as "1%".
        labels: that number.
        seed: of the division and of the training.
        fold: which of a seed's divisions, from 0.
        split: the division.
    """

    model: str
    budget: str
    labels: int
    seed: int
    fold: int
    split: Split

    @property
    def names(self) -> dict[str, Any]:
        """What a row says of it."""
        own = ("model", "budget", "labels", "seed", "fold")
        return {name: getattr(self, name) for name in own}


def run_trials(
    trials: Iterable[Trial], judged: Callable[[Trial], dict[str, float]], after: Callable[[dict[str, Any]], None]
) -> None:
    """Carry out trials, and hand over the row of each: what `judged` finds, null where it is undefined."""
    for trial in trials:
        figures = judged(trial)
        after({**trial.names, **{name: _finite(value) for name, value in figures.items()}})


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
