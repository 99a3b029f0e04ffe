"""Trees as arrays: walked by hand, against XGBoost where it is there, kept, and refused where they lead astray."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from nge_search.errors import UserError
from nge_search.predict import trees
from nge_search.predict.boosting import BoostedTrees
from nge_search.predict.trees import Trees
from nge_search.spaces import SPACES

#: As XGBoost writes them: one split and a second one below its right child; then a leaf alone.
MODEL = {
    "learner": {
        "gradient_booster": {
            "model": {
                "trees": [
                    {
                        "left_children": [1, -1, 3, -1, -1],
                        "right_children": [2, -1, 4, -1, -1],
                        "split_indices": [0, 0, 2, 0, 0],
                        "split_conditions": [0.5, 10.0, 0.25, 20.0, 30.0],
                    },
                    {
                        "left_children": [-1],
                        "right_children": [-1],
                        "split_indices": [0],
                        "split_conditions": [1.5],
                    },
                ]
            }
        }
    }
}
ROWS = np.array([[0.0, 0, 0], [0.5, 0, 0], [1.0, 9, 0.25]], dtype=np.float32)


def test_rows_come_to_their_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Trees.of_xgboost(MODEL)
    assert own(ROWS).tolist() == [11.5, 21.5, 31.5]
    assert own(ROWS[:0]).shape == (0,)
    monkeypatch.setattr(trees, "_AT_ONCE", 4)  # two rows at a time
    assert own(ROWS).tolist() == [11.5, 21.5, 31.5]


def test_what_is_kept_is_the_same() -> None:
    own = Trees.of_xgboost(MODEL)
    again = Trees.of_tensors(own.tensors(), 3)
    assert np.array_equal(again(ROWS), own(ROWS))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("left", torch.tensor([1, 1, 0, 3, 4, 5]), "leads to none that stands behind it"),
        ("left", torch.tensor([1, 1, 6, 3, 4, 5]), "leads to none that stands behind it"),
        ("right", torch.tensor([2, 2, 4, 3, 4, 5]), "half a leaf"),
        ("feature", torch.tensor([0, 0, 3, 0, 0, 0]), "asks for a feature"),
        ("root", torch.tensor([0, 6]), "begins at a node"),
        ("root", torch.tensor([], dtype=torch.int64), "not of one length"),
        ("value", torch.zeros(5, dtype=torch.float64), "not of one length"),
        ("value", torch.zeros(6), "of other types"),
        ("left", torch.zeros(6), "of other types"),
        ("more", torch.zeros(6), "trees are the tensors root, left"),
    ],
)
def test_trees_that_lead_astray_are_refused(name: str, value: torch.Tensor, says: str) -> None:
    tensors = {**Trees.of_xgboost(MODEL).tensors(), name: value}
    with pytest.raises(UserError, match=says):
        Trees.of_tensors(tensors, 3)


def some(count: int) -> tuple[list[dict], torch.Tensor]:
    space, random = SPACES["nasbench201"](), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(count)]
    return [space.graphs(code) for code in codes], torch.tensor([float(code.count(3)) for code in codes]).double()


def test_a_boosted_predictor_takes_over_what_it_had_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a library that learns nothing: it hands over `MODEL`."""

    class Booster:
        def save_raw(self, form: str) -> bytearray:
            assert form == "json"
            return bytearray(json.dumps(MODEL).encode())

    def train(parameters: Mapping[str, Any], data: Any, num_boost_round: int) -> Booster:
        return Booster()

    library = types.SimpleNamespace(DMatrix=lambda x, label: (x, label), train=train)
    monkeypatch.setitem(sys.modules, "xgboost", library)
    cells, label_N = some(12)
    first = BoostedTrees(SPACES["nasbench201"]())
    first.fit(cells, label_N, 0)
    monkeypatch.setitem(sys.modules, "xgboost", None)  # is no longer needed
    second = BoostedTrees(SPACES["nasbench201"]())
    second.load_state(*first.state())
    assert torch.equal(second.scores(cells), first.scores(cells))
    assert set(first.scores(cells).tolist()) <= {11.5, 21.5, 31.5}


def test_as_xgboost_itself() -> None:
    xgboost = pytest.importorskip("xgboost")
    cells, label_N = some(60)
    predictor = BoostedTrees(SPACES["nasbench201"]())
    x_NF = predictor._features(cells)
    data = xgboost.DMatrix(x_NF, label=label_N.numpy())
    booster = xgboost.train({"max_depth": 4, "nthread": 1}, data, num_boost_round=20)
    own_N = Trees.of_xgboost(json.loads(booster.save_raw("json")))(x_NF)
    difference_N = booster.predict(data) - own_N
    assert np.ptp(difference_N) < 1e-5  # all but the constant
