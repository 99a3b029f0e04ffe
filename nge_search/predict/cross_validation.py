"""How good a predictor is on labels that it has not seen, told from the labels at hand (cross-validation).

Each part of the labels is predicted once, by a predictor that the other parts have taught. Scores of different
predictors have no common scale, so each predictor's are standardised over all architectures before they are joined.

Legend: N architectures with labels, L levels of quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nge_search.metrics.ranking import kendall_tau, kendall_tau_interval
from nge_search.predict.base import Predictor
from nge_search.predict.evaluation import LEVELS, Judged, coverage
from nge_search.predict.splits import folds

#: Shares of the labels, for the curve of quality by number of labels; the last is all.
SHARES = (0.25, 0.5, 1.0)
#: Labels without which nothing can be told: two to learn from, and one to test.
FEWEST = 3
#: Labels below which a point of the curve tells nothing.
_FEWEST_TAUGHT = 4


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of every architecture by a predictor that had not seen its label.

    Attributes:
        labels: how many it had seen, of the smallest part that taught.
        score_N: the higher, the better, on one scale.
        quantile_NL: labels in percent at `LEVELS`; None of predictors that do not say how sure they are.
    """

    labels: int
    score_N: np.ndarray
    quantile_NL: np.ndarray | None

    def figures(self, label_N: np.ndarray) -> dict[str, Any]:
        """Kendall's tau with its interval, and what intervals covered; null where undefined."""
        tau, interval = kendall_tau(self.score_N, label_N), kendall_tau_interval(self.score_N, label_N)
        covered = {} if self.quantile_NL is None else coverage(self.quantile_NL, label_N)
        defined = math.isfinite(interval[0])
        return {
            "labels": self.labels,
            "kendall_tau": tau if math.isfinite(tau) else None,
            "interval": list(interval) if defined else None,
            **covered,
        }


def cross_validate(
    build: Callable[[], Predictor],
    data: Judged,
    parts: int,
    seed: int,
    shares: Sequence[float] = (1.0,),
    after: Callable[[int, int, np.ndarray, np.ndarray], None] = lambda fold, labels, score_N, label_N: None,
) -> list[OutOfFold]:
    """Predict every architecture out of its part, once for each share of the labels in the other parts.

    Args:
        build: makes an untrained predictor.
        parts: of the labels; where there are fewer labels, as many as these.
        seed: of the division and of the trainings.
        shares: in rising order, of the labels that teach; those that come to less than four labels are left out.
        after: called after each part with its position, how many labels taught, and of it scores and labels, at the
            last of the shares.

    Raises:
        UserError: a division into less than two parts, or of labels that are fewer than `FEWEST`.
    """
    count = len(data.label_N)
    divisions = folds(count, min(parts, count), seed)
    fewest = min(len(split.pool) for split in divisions)
    sizes = sorted({int(share * fewest) for share in shares[:-1] if share * fewest >= _FEWEST_TAUGHT})
    found = []
    for size in [*sizes, 0]:
        score_N, quantile_NL, is_sure = np.empty(count), np.empty((count, len(LEVELS))), False
        for fold, split in enumerate(divisions):
            pool = split.pool[:size] if size else split.pool
            predictor = build()
            data.fit(predictor, pool, seed)
            forecast_N, expected_NL = predictor.forecast(data.cells, LEVELS)
            all_N, is_sure = forecast_N.numpy(), expected_NL is not None
            score_N[split.test] = ((all_N - all_N.mean()) / max(float(all_N.std()), 1e-12))[split.test]
            if expected_NL is not None:
                quantile_NL[split.test] = expected_NL.numpy()[split.test]
            if not size:
                after(fold, len(pool), all_N[split.test], data.label_N[split.test])
        found.append(OutOfFold(size or fewest, score_N, quantile_NL if is_sure else None))
    return found
