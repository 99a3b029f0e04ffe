"""Boosted trees on an architecture's decisions, one-hot (Chen and Guestrin, 2016; as NASLib sets them)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.errors import UserError
from nge_search.predict.base import Predictor, State, standardised
from nge_search.predict.baselines import one_hot
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.trees import Trees
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
    """XGBoost on one-hot decisions. `fit` alone needs xgboost: what it has learnt is kept as arrays."""

    def __init__(self, space: Space):
        self.form = Form.of(space)
        self._trees: Trees | None = None

    def _features(self, architectures: Sequence[Cells]) -> np.ndarray:
        codes_NL = self.form.decisions(self.form.batch(architectures))
        return one_hot(codes_NL, self.form.options).numpy().astype(np.float32)

    def require_installed(self) -> None:
        _xgboost()

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        xgboost = _xgboost()
        data = xgboost.DMatrix(self._features(known), label=standardised(label_N).numpy())
        booster = xgboost.train({**_PARAMETERS, "seed": seed}, data, num_boost_round=_ROUNDS)
        self._trees = Trees.of_xgboost(json.loads(booster.save_raw("json")))

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        assert self._trees is not None, "fit comes first"
        return torch.from_numpy(self._trees(self._features(asked)))

    def state(self) -> State:
        assert self._trees is not None, "fit comes first"
        return self._trees.tensors(), {}

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        self._trees = Trees.of_tensors(tensors, sum(self.form.options))


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise UserError(
            f"the predictor xgboost needs {error.name}; install it: pip install 'nge-search[predict]'"
        ) from error
    return xgboost
