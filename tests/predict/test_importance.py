"""What a ranking loses where a group of features is that of other architectures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.predict.base import SeesFeatures
from nge_search.predict.evaluation import Judged
from nge_search.predict.importance import importances
from nge_search.predict.own import Ensemble, FlowNetworks, OwnSettings, Processes
from nge_search.predict.predictors import open_predictor
from nge_search.predict.training import TrainingSettings
from nge_search.spaces import NasBench201Space

SPACE = NasBench201Space()
SMALL = OwnSettings(members=1, width=8, training=TrainingSettings(epochs=3))


@pytest.fixture(scope="module")
def data() -> Judged:
    random = np.random.default_rng(0)
    codes = list(dict.fromkeys(SPACE.random(random) for _ in range(24)))
    label_N = np.array([80.0 + code.count(3) for code in codes])
    return Judged([SPACE.graphs(code) for code in codes], label_N, label_N)


@pytest.mark.parametrize("build", [Processes, FlowNetworks, Ensemble])
def test_a_group_is_permuted_alone(build: type, data: Judged) -> None:
    predictor = build(SPACE, SMALL)
    data.fit(predictor, np.arange(len(data.cells)), 0)
    assert isinstance(predictor, SeesFeatures)
    same_N, turned_N = torch.arange(len(data.cells)), torch.arange(len(data.cells)).roll(1)
    score_N = predictor.scores(data.cells)
    for group in predictor.feature_groups():
        assert torch.allclose(predictor.permuted_scores(data.cells, group, same_N), score_N)
    changed = [
        group
        for group in predictor.feature_groups()
        if not torch.allclose(predictor.permuted_scores(data.cells, group, turned_N), score_N)
    ]
    assert len(changed) > 2


def test_what_counts_is_told() -> None:
    """A predictor that hears one group of two."""

    class Hears:
        def feature_groups(self) -> list[str]:
            return ["silence", "number"]

        def scores(self, asked: list) -> torch.Tensor:
            return torch.tensor([cell["cell"] for cell in asked], dtype=torch.float64)

        def permuted_scores(self, asked: list, group: str, order_M: torch.Tensor) -> torch.Tensor:
            score_M = self.scores(asked)
            return score_M[order_M] if group == "number" else score_M

    label_N = np.arange(20.0)
    found = importances(Hears(), Judged([{"cell": n} for n in range(20)], label_N, label_N), 0)
    assert [entry["group"] for entry in found] == ["number", "silence"]
    assert found[0]["loss"] > 0.5
    assert found[1]["loss"] == 0


def test_predictors_without_groups_have_none(data: Judged) -> None:
    predictor = open_predictor("nasbowl", SPACE)
    data.fit(predictor, np.arange(len(data.cells)), 0)
    assert importances(predictor, data, 0) == []
