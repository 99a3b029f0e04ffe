"""How score networks learn from pairs."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from nge_search.predict.encoders import FlowEncoder, FlowSettings
from nge_search.predict.encoding import Form
from nge_search.predict.members import Members
from nge_search.predict.training import Inputs, ScoreNetwork, TrainingSettings, scores, train
from nge_search.spaces import NasBench201Space

SPACE = NasBench201Space()
FORM = Form.of(SPACE)
SMALL = FlowSettings(steps=1, layers=2, operation_dim=4, node_dim=4, hidden_dim=4, width=6)


def inputs(count: int) -> Inputs:
    random = np.random.default_rng(0)
    batch = FORM.batch([SPACE.graphs(SPACE.random(random)) for _ in range(count)])
    return Inputs(dataclasses.replace(batch, a_BVV=batch.a_BVV.double()))


def networks(dropout: float) -> Members:
    def build() -> ScoreNetwork:
        return ScoreNetwork(FlowEncoder(SMALL, FORM.labels), 0, (5, 5), dropout).double()

    return Members(build, 2, 3)


def test_an_architecture_has_other_units_dropped_in_every_pair() -> None:
    members, given, positions_S = networks(0.5), inputs(3), torch.tensor([1] * 40 + [2] * 40)
    all_ETB = members(given.batch, None)
    torch.testing.assert_close(members(given.batch, None, None, positions_S), all_ETB[..., positions_S])
    torch.manual_seed(0)
    dropped_ETS = members(given.batch, None, None, positions_S, train=True)
    for member_S in dropped_ETS[:, 0]:
        assert len(set(member_S[:40].tolist())) > 5


def test_without_dropout_both_ways_of_scoring_pairs_learn_the_same() -> None:
    given, label_N = inputs(12), torch.randn(12, generator=torch.Generator().manual_seed(1))
    settings, found = TrainingSettings(epochs=5, batch_size=7, pairs_per_architecture=2.0), []
    for by_pair in (True, False):
        members = networks(0.0)
        before = scores(members, given)
        train(members, given, label_N, dataclasses.replace(settings, drops_by_pair=by_pair), seed=4)
        found.append(scores(members, given))
        assert not torch.allclose(found[-1], before)
    torch.testing.assert_close(*found)
