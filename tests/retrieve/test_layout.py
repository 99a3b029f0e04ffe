"""Maps: what is alike is near, and small corpora have one, too."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.retrieve.layout import layout


def test_what_is_alike_is_near() -> None:
    random = np.random.default_rng(0)
    centre_CD = 3 * np.eye(4, 6)
    group_N = np.repeat(np.arange(4), 10)
    embedding_ND = centre_CD[group_N] + 0.3 * random.normal(size=(40, 6))
    point_N2 = layout(embedding_ND)
    assert np.abs(point_N2).max() == pytest.approx(1)
    distance_NN = np.linalg.norm(point_N2[:, None] - point_N2, axis=-1)
    np.fill_diagonal(distance_NN, np.inf)
    assert (group_N[distance_NN.argmin(axis=1)] == group_N).all()
    np.testing.assert_array_equal(layout(embedding_ND), point_N2)


@pytest.mark.parametrize("count", range(6))
def test_few_networks(count: int) -> None:
    found = layout(np.random.default_rng(1).normal(size=(count, 3)))
    assert found.shape == (count, 2)
    assert np.isfinite(found).all()
    assert len(np.unique(found, axis=0)) == count
