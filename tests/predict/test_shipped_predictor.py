"""The shipped predictor as one that scores like all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.predict.shipped import expected
from nge_search.predict.shipped_predictor import open_shipped
from nge_search.spaces import DartsSpace, NasBench201Space

SPACE = DartsSpace()
RANDOM = np.random.default_rng(5)
CODES = [SPACE.random(RANDOM) for _ in range(12)]
CELLS = [SPACE.graphs(code) for code in CODES]


def test_scores_are_what_is_expected() -> None:
    found = open_shipped(SPACE)
    score_M = found.scores(CELLS)
    assert score_M.dtype == torch.float64
    errors = [expected(SPACE.genotype(code)).error for code in CODES]
    np.testing.assert_allclose(100 - score_M.numpy(), errors, atol=1e-9)


def test_its_density_is_as_wide_as_the_interval() -> None:
    found = open_shipped(SPACE)
    mean_M, deviation_M = found.posterior(CELLS)
    low_M, high_M = found.quantiles(CELLS, [0.05, 0.95]).T
    low, high = expected(SPACE.genotype(CODES[0])).intervals[90]
    np.testing.assert_allclose((high_M - low_M).numpy(), high - low, atol=1e-9)
    np.testing.assert_allclose(((high_M + low_M) / 2).numpy(), mean_M.numpy(), atol=1e-9)
    assert deviation_M.shape == mean_M.shape == (12,)


def test_its_state_is_the_file() -> None:
    found, other = open_shipped(SPACE), open_shipped(SPACE)
    tensors, document = found.state()
    document["weight"] = [0.0] * len(document["weight"])
    other.load_state(tensors, document)
    assert other.scores(CELLS).tolist() == [document["intercept"]] * 12
    assert found.scores(CELLS).unique().numel() == 12


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match="for cells of darts, not of nasbench201"):
        open_shipped(NasBench201Space())
    found = open_shipped(SPACE)
    with pytest.raises(UserError, match="is trained already"):
        found.fit(CELLS, torch.zeros(12), 0)
    other = NasBench201Space()
    with pytest.raises(UserError, match="has cells normal, reduce"):
        found.scores([CELLS[0], other.graphs(other.random(RANDOM))])
    twice = Graph.build(
        ["input", "input", *["sum"] * 4, "concat"],
        [
            *((1, node, "skip_connect") for node in range(2, 6) for _ in range(2)),
            *((node, 6) for node in range(2, 6)),
        ],
        (0, 1),
        (6,),
    )
    with pytest.raises(UserError, match="reads node 1 twice"):
        found.scores([{"normal": twice, "reduce": twice}])
