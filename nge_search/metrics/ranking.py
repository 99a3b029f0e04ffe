"""How well scores rank architectures that have labels: the figures that predictors are judged by.

Legend: N architectures. Scores and labels are [N], both the higher, the better.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import stats

#: Of P@K's and N@K's curves, as shares of N.
SHARES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5)


def kendall_tau(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Kendall's tau-b: concordant minus discordant pairs, corrected for ties; NaN where either is constant."""
    return float(stats.kendalltau(score_N, label_N).statistic)


def kendall_tau_interval(score_N: np.ndarray, label_N: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Between what tau-b would lie for other such architectures, by the jackknife; NaN where undefined.

    It is that of Student's t for Fisher's z = arctanh(tau), taken without each architecture in turn, so that it
    stays within -1 and 1. It takes the scores as given: that others would come of other labels is not in it.
    """
    without_N = _without_one(np.asarray(score_N, dtype=float), np.asarray(label_N, dtype=float))
    count = len(without_N)
    if count < 4 or not np.isfinite(without_N).all():
        return float("nan"), float("nan")
    z_N = np.arctanh(without_N.clip(-1 + 1e-9, 1 - 1e-9))
    z = np.arctanh(np.clip(kendall_tau(score_N, label_N), -1 + 1e-9, 1 - 1e-9))
    error = np.sqrt((count - 1) / count * np.sum((z_N - z_N.mean()) ** 2))
    reach = stats.t.ppf((1 + level) / 2, count - 1) * error
    return float(np.tanh(z - reach)), float(np.tanh(z + reach))


def _without_one(score_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """tau-b of all architectures but one, for each: the pairs of one are taken off the sums over all: [N]."""
    agree_N, scored_N, labelled_N = (np.empty(len(score_N)) for _ in range(3))
    for i in range(len(score_N)):
        by_score, by_label = np.sign(score_N - score_N[i]), np.sign(label_N - label_N[i])
        agree_N[i] = by_score @ by_label
        scored_N[i], labelled_N[i] = np.abs(by_score).sum(), np.abs(by_label).sum()
    agree, scored, labelled = (own.sum() / 2 - own for own in (agree_N, scored_N, labelled_N))
    with np.errstate(divide="ignore", invalid="ignore"):
        return agree / np.sqrt(scored * labelled)


def spearman(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where either is constant."""
    if np.ptp(score_N) == 0 or np.ptp(label_N) == 0:
        return float("nan")
    return float(stats.spearmanr(score_N, label_N).statistic)


def pearson(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """The linear correlation (LC in TA-GATES); NaN where either is constant."""
    if np.ptp(score_N) == 0 or np.ptp(label_N) == 0:
        return float("nan")
    return float(np.corrcoef(score_N, label_N)[0, 1])


def mean_squared_error(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Of scores that estimate the labels themselves."""
    return float(np.mean((np.asarray(score_N) - label_N) ** 2))


def precision_at(score_N: np.ndarray, label_N: np.ndarray, count: int) -> float:
    """P@K: the share of the K architectures of highest score among the K of highest label (TA-GATES, Fig. 3)."""
    chosen, best = _top(score_N, count), _top(label_N, count)
    return len(np.intersect1d(chosen, best)) / len(best)


def best_rank_at(score_N: np.ndarray, label_N: np.ndarray, count: int) -> int:
    """N@K: the rank, from 1, of the best label among the K architectures of highest score (GATES, Section 4.1)."""
    best = np.max(np.asarray(label_N)[_top(score_N, count)])
    return int(np.sum(np.asarray(label_N) > best)) + 1


def _top(value_N: np.ndarray, count: int) -> np.ndarray:
    """The positions of the `count` largest values; of equals the first."""
    return np.argsort(-np.asarray(value_N, dtype=float), kind="stable")[:count]


def ranking_figures(score_N: np.ndarray, label_N: np.ndarray, shares: Iterable[float] = SHARES) -> dict[str, float]:
    """All figures of a ranking, by name; P@K and N@K for K as shares of N, at least 1."""
    figures = {
        "kendall_tau": kendall_tau(score_N, label_N),
        "spearman": spearman(score_N, label_N),
        "pearson": pearson(score_N, label_N),
    }
    for share in shares:
        count = max(1, int(share * len(label_N)))
        figures[f"precision_at_{share:g}"] = precision_at(score_N, label_N, count)
        figures[f"best_rank_at_{share:g}"] = best_rank_at(score_N, label_N, count)
    return figures
