"""How well predictors rank what they have not seen: trials with seeds, means, and differences in pairs.

A trial trains one predictor on a number of labels of one division, and judges it on the other side. Nothing here
knows of runs or files: `nge predict bench` and experiments use it alike.

Legend: N architectures, L levels of quantiles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from nge_search.metrics.ranking import ranking_figures
from nge_search.predict.base import Predictor, ProbabilisticPredictor
from nge_search.predict.encoding import Cells
from nge_search.predict.labels import Labelled
from nge_search.predict.splits import Split

#: Shares of architectures that intervals are to cover, and the levels of their ends.
COVERED = (0.5, 0.9)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
#: What a row says of its trial; everything else in it is a figure.
_NAMES = ("epoch", "model", "budget", "labels", "seed", "fold", "seconds", "data")

Row = Mapping[str, Any]


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
    """Train an untrained predictor on the first `labels` of a division's pool; the figures of its ranking of the rest.

    They are those of `ranking_figures`, the seconds that training and scoring took, and for predictors that say how
    sure they are what their intervals covered.
    """
    start = time.perf_counter()
    data.fit(predictor, split.train(labels), seed)
    trained = time.perf_counter()
    asked, truth_N = data.asked(split.test), data.truth_N[split.test]
    score_N = predictor.scores(asked).numpy()
    scored = time.perf_counter()
    figures = ranking_figures(score_N, truth_N)
    if isinstance(predictor, ProbabilisticPredictor):
        figures |= coverage(predictor.quantiles(asked, LEVELS).numpy(), truth_N)
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
    trials: Iterable[Trial],
    data: Judged,
    build: Callable[[str], Predictor],
    after: Callable[[dict[str, Any]], None],
) -> None:
    """Carry out trials, and hand over the row of each.

    Args:
        build: an untrained predictor from a model's name.
    """
    for trial in trials:
        figures = judge(build(trial.model), data, trial.split, trial.labels, trial.seed)
        after({**trial.names, **{name: _finite(value) for name, value in figures.items()}})


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each model and budget, in the rows' order, the mean and deviation of every figure over seeds.

    Where a seed has several divisions its figures are first averaged over these. The deviation is that of the
    population, null of one seed.
    """
    results = []
    for model, budget in dict.fromkeys((row["model"], row["budget"]) for row in rows):
        own = [row for row in rows if (row["model"], row["budget"]) == (model, budget)]
        figures = {}
        for name in dict.fromkeys(name for row in own for name in row if name not in _NAMES):
            by_seed = list(_by_seed(own, name).values())
            if by_seed:
                deviation = float(np.std(by_seed)) if len(by_seed) > 1 else None
                figures[name] = {"mean": float(np.mean(by_seed)), "deviation": deviation}
        labels = sorted({row["labels"] for row in own})
        seeds = len({row["seed"] for row in own})
        results.append({"model": model, "budget": budget, "labels": labels[0], "seeds": seeds, **figures})
    return results


def compare(rows: Sequence[Row], figure: str = "kendall_tau", level: float = 0.95) -> list[dict[str, Any]]:
    """For each budget the difference of every other model to the first one, in pairs of equal seeds.

    Each has the mean, the ends of its interval by Student's t, and the p-value of no difference; null of less than two
    pairs.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    found = []
    for budget in dict.fromkeys(row["budget"] for row in rows):
        own = {
            model: _by_seed([row for row in rows if (row["model"], row["budget"]) == (model, budget)], figure)
            for model in models
        }
        for model in models[1:]:
            pairs = [own[model][seed] - own[models[0]][seed] for seed in own[model] if seed in own[models[0]]]
            if pairs:
                difference = paired(pairs, level)
                found.append(
                    {"model": model, "against": models[0], "budget": budget, "figure": figure, **difference}
                )
    return found


def paired(differences: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """The mean of differences, its interval by Student's t, and the two-sided p-value of none."""
    count, mean = len(differences), float(np.mean(differences))
    found: dict[str, Any] = {"pairs": count, "mean": mean, "low": None, "high": None, "p": None}
    if count < 2:
        return found
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    if error == 0:
        return {**found, "low": mean, "high": mean, "p": 1.0 if mean == 0 else 0.0}
    reach = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    return {**found, "low": mean - reach, "high": mean + reach, "p": p}


def _by_seed(rows: Sequence[Row], name: str) -> dict[int, float]:
    """A figure by seed, averaged over the divisions that have it."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.get(name) is not None:
            found.setdefault(row["seed"], []).append(row[name])
    return {seed: float(np.mean(values)) for seed, values in found.items()}
