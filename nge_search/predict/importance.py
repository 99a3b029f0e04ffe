"""Which groups of features a predictor relies on: what its ranking loses without them (Breiman, 2001)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nge_search.metrics.ranking import kendall_tau
from nge_search.predict.base import Predictor, SeesFeatures
from nge_search.predict.evaluation import Judged
from nge_search.predict.splits import order

#: Permutations over which a loss is averaged.
_REPEATS = 5


def importances(predictor: Predictor, data: Judged, seed: int) -> list[dict[str, Any]]:
    """For each group by how much Kendall's tau with the labels falls where it is taken from other architectures.

    It is taken on the labels that the predictor has learnt from, largest first; empty for predictors without groups
    of features.
    """
    if not isinstance(predictor, SeesFeatures):
        return []
    whole = kendall_tau(predictor.scores(data.cells).numpy(), data.label_N)
    found = []
    for group in predictor.feature_groups():
        taus = []
        for repeat in range(_REPEATS):
            order_N = torch.from_numpy(order(len(data.label_N), seed + repeat))
            taus.append(kendall_tau(predictor.permuted_scores(data.cells, group, order_N).numpy(), data.label_N))
        loss = whole - float(np.nan_to_num(taus).mean())
        if np.isfinite(loss):
            found.append({"group": group, "loss": loss})
    return sorted(found, key=lambda entry: -entry["loss"])
