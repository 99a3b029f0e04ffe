"""Predictors by name: each learns to rank, and the same from the same seed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from nge_search.errors import UserError
from nge_search.metrics.ranking import kendall_tau
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.predictors import NETWORKS, open_predictor
from nge_search.spaces import SPACES


def some(name: str, count: int) -> tuple[list[dict], torch.Tensor]:
    """Architectures, and as labels their convolutions of 3x3 with a little noise."""
    space, random = SPACES[name](), np.random.default_rng(0)
    cells = [space.graphs(space.random(random)) for _ in range(count)]
    labels = [
        sum(
            "3x3" in str(label)
            for cell in graphs.values()
            for label in [*cell.nodes, *(e.label for e in cell.edges)]
        )
        for graphs in cells
    ]
    return cells, torch.tensor(labels, dtype=torch.float64) + torch.from_numpy(random.random(count)) / 100


@pytest.mark.parametrize("name", ["ta_gates", "gates", "gcn", "lstm", "mlp", "nasbowl", "xgboost"])
@pytest.mark.parametrize("space", ["nasbench101", "nasbench201", "darts"])
def test_learns_to_rank(name: str, space: str) -> None:
    if name == "xgboost":
        pytest.importorskip("xgboost")
    cells, label_N = some(space, 50)
    found = []
    for _ in range(2 if space == "nasbench201" else 1):
        options = NetworkOptions(epochs=4 if space == "darts" else 12, learning_rate=3e-3)
        predictor = open_predictor(name, SPACES[space](), options if name in NETWORKS else None)
        predictor.fit(cells[:30], label_N[:30], 0)
        found.append(predictor.scores(cells))
    assert found[0].shape == (50,)
    assert found[0].dtype == torch.float64
    assert torch.equal(found[0], found[-1])
    assert kendall_tau(found[0][:30].numpy(), label_N[:30].numpy()) > 0.3


def test_bad_names() -> None:
    space = SPACES["nasbench201"]()
    with pytest.raises(UserError, match=r"no predictor 'ta-gates'; did you mean 'ta_gates'"):
        open_predictor("ta-gates", space)


def test_xgboost_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UserError, match=r"pip install 'nge-search\[predict\]'"):
        open_predictor("xgboost", SPACES["nasbench201"]()).require_installed()
