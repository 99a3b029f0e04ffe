"""How the predictor that ships with the package is made, and how well it ranks: `shipped.Shipped` from trainings.

Legend: N architectures, F features, S seeds of divisions into folds, R residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nge_search.metrics.ranking import kendall_tau
from nge_search.predict.input_features import features_by_input
from nge_search.predict.shipped import CELLS, LEVELS, Ridge, Shipped
from nge_search.predict.splits import Split, folds
from nge_search.tables import Table

#: What is added to the eigenvalues of the standardised features' products; chosen on the seeds of `CHOOSING`.
PENALTY = 50.0
FOLDS = 10
CHOOSING, REPORTING = range(100, 109), range(9)
#: The accuracy after a training's last epoch: the best epoch's would be chosen on the test images.
LABEL = "final_test_acc"

#: From features and labels of some architectures to the scores of others, by their features.
Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]

_NORMAL_95 = 1.6448536269514722


def fit_ridge(x_NF: np.ndarray, label_N: np.ndarray, penalty: float = PENALTY) -> Ridge:
    """The ridge regression (Hoerl and Kennard, 1970) of labels on standardised features; the intercept is free."""
    mean_F, deviation_F = x_NF.mean(axis=0), x_NF.std(axis=0)
    deviation_F = np.where(deviation_F > 1e-9, deviation_F, 1)
    z_NF = (x_NF - mean_F) / deviation_F
    intercept = float(label_N.mean())
    dual_N = np.linalg.solve(z_NF @ z_NF.T + penalty * np.eye(len(z_NF)), label_N - intercept)
    return Ridge(mean_F, deviation_F, z_NF.T @ dual_N, intercept)


def left_out(x_NF: np.ndarray, label_N: np.ndarray, splits: Iterable[Split], fit: Fit = fit_ridge) -> np.ndarray:
    """The scores of architectures by what was fitted without them: [N]."""
    score_N = np.full(len(label_N), np.nan)
    for split in splits:
        score_N[split.test] = fit(x_NF[split.pool], label_N[split.pool])(x_NF[split.test])
    return score_N


def fold_tau(score_N: np.ndarray, label_N: np.ndarray, splits: Sequence[Split]) -> float:
    """Kendall's tau within the part that a split left out, averaged over splits."""
    return float(np.mean([kendall_tau(score_N[split.test], label_N[split.test]) for split in splits]))


def tau_interval(
    score_SN: np.ndarray, label_N: np.ndarray, splits_S: Sequence[Sequence[Split]]
) -> tuple[float, float, float]:
    """`fold_tau`, averaged over seeds, and its 90 % interval over the choice of architectures (the jackknife)."""
    taus = [fold_tau(score_N, label_N, splits) for score_N, splits in zip(score_SN, splits_S, strict=True)]
    tau, count = float(np.mean(taus)), len(label_N)
    change_N = np.zeros(count)  # of tau, when an architecture is left away
    for score_N, splits in zip(score_SN, splits_S):
        for split in splits:
            whole = kendall_tau(score_N[split.test], label_N[split.test])
            for left in split.test:
                others = split.test[split.test != left]
                rest = kendall_tau(score_N[others], label_N[others])
                change_N[left] += (rest - whole) / (len(splits) * len(score_SN))
    error = math.sqrt((count - 1) / count * float(((change_N - change_N.mean()) ** 2).sum()))
    return tau, tau - _NORMAL_95 * error, tau + _NORMAL_95 * error


def between(residual_R: np.ndarray, level: int) -> tuple[float, float]:
    """Two of the residuals: a next one, drawn alike, lies between them with at least `level` percent probability.

    The k-th smallest and the k-th largest, k = floor((R + 1) (1 - level / 100) / 2) (Vovk et al., 2005).
    """
    ordered_R = np.sort(residual_R)
    rank = (len(ordered_R) + 1) * (100 - level) // 200
    if rank < 1:
        raise ValueError(f"{len(ordered_R)} residuals are too few for an interval of {level} %")
    return float(ordered_R[rank - 1]), float(ordered_R[-rank])


def left_out_residuals(x_NF: np.ndarray, label_N: np.ndarray, seeds: Iterable[int]) -> np.ndarray:
    """Label less score of every architecture, left out in ten folds once for each seed: [R]."""
    count = len(label_N)
    return np.concatenate([label_N - left_out(x_NF, label_N, folds(count, FOLDS, seed)) for seed in seeds])


def coverage(x_NF: np.ndarray, label_N: np.ndarray, seeds: Iterable[int]) -> dict[int, float]:
    """How many percent of architectures lie in intervals that are made without them: folds within folds."""
    inside: dict[int, list[np.ndarray]] = {level: [] for level in LEVELS}
    for seed in seeds:
        for split in folds(len(label_N), FOLDS, seed):
            x_KF, label_K = x_NF[split.pool], label_N[split.pool]
            residual_R = left_out_residuals(x_KF, label_K, [seed])
            off = label_N[split.test] - fit_ridge(x_KF, label_K)(x_NF[split.test])
            for level, held in inside.items():
                low, high = between(residual_R, level)
                held.append((low <= off) & (off <= high))
    return {level: 100 * float(np.mean(np.concatenate(held))) for level, held in inside.items()}


def table_features(table: Table) -> np.ndarray:
    """The features of a table's architectures, [N, F]."""
    return features_by_input([table.space.graphs(table.code(row)) for row in range(len(table))], CELLS.kinds)


def ship(table: Table) -> Shipped:
    """The predictor of a table of DARTS cells, fitted to all, with what the seeds of `REPORTING` say of it.

    Raises:
        UserError: a table without the column `LABEL`.
    """
    label_N = table.column(LABEL)
    x_NF = table_features(table)
    splits_S = [folds(len(label_N), FOLDS, seed) for seed in REPORTING]
    score_SN = np.stack([left_out(x_NF, label_N, splits) for splits in splits_S])
    ridge = fit_ridge(x_NF, label_N)
    residual_R = (label_N - score_SN).ravel()
    return Shipped(
        ridge,
        {level: between(residual_R, level) for level in LEVELS},
        float(ridge.distance(x_NF).max()),
        tau_interval(score_SN, label_N, splits_S),
        len(label_N),
        math.floor(10 * label_N.min()) / 10,
        math.ceil(10 * label_N.max()) / 10,
    )
