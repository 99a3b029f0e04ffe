"""Boosted trees on an architecture's decisions, one-hot (Chen and Guestrin, 2016; as NASLib sets them)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.errors import UserError
from nge_search.predict.base import Predictor, standardised
from nge_search.predict.baselines import one_hot
from nge_search.predict.encoding import Cells, Form
from nge_search.spaces.base import Space

#: NASLib's.
_ROUNDS = 500
_PARAMETERS: dict[str, Any] = {
    "objective": "reg:squarederror",
    "booster": "gbtree",
    "max_depth": 6,
    "min_child_weight": 1,
    "colsample_bytree": 1,
    "colsample_bylevel": 1,
    "learning_rate": 0.3,
    "nthread": 1,
    "verbosity": 0,
}


class BoostedTrees(Predictor):
    """XGBoost on one-hot decisions.

    Raises:
        UserError: xgboost is not installed.
    """

    def __init__(self, space: Space):
        self.form = Form.of(space)
        self._xgboost = _xgboost()
        self._trees: Any = None

    def _features(self, architectures: Sequence[Cells]) -> np.ndarray:
        codes_NL = self.form.decisions(self.form.batch(architectures))
        return one_hot(codes_NL, self.form.options).numpy().astype(np.float32)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        data = self._xgboost.DMatrix(self._features(known), label=standardised(label_N).numpy())
        self._trees = self._xgboost.train({**_PARAMETERS, "seed": seed}, data, num_boost_round=_ROUNDS)

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        predicted_N = self._trees.predict(self._xgboost.DMatrix(self._features(asked)))
        return torch.from_numpy(predicted_N).double()


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise UserError(
            f"the predictor xgboost needs {error.name}; install it: pip install 'nge-search[predict]'"
        ) from error
    return xgboost
