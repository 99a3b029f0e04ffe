"""Predictors that are networks: what options change, and that a saved one scores the same, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nge_search.errors import UserError
from nge_search.predict import preparation
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.networks import LAST_EPOCHS, NetworkPredictor
from nge_search.predict.predictors import open_predictor
from nge_search.predict.zero_cost import ZeroCostSettings
from nge_search.spaces import SPACES

MEASURED = ZeroCostSettings(batch=2, side=4)


def cells_of(space: str, count: int) -> list[dict]:
    own, random = SPACES[space](), np.random.default_rng(1)
    return [own.graphs(own.random(random)) for _ in range(count)]


@pytest.mark.parametrize(
    ("space", "model", "options"),
    [
        ("nasbench201", "ta_gates", NetworkOptions(breaking="add", analytic=True, members=2, epochs=3)),
        ("nasbench101", "ta_gates", NetworkOptions(breaking="concat", epochs=2, readout="output")),
        ("darts", "gates", NetworkOptions(breaking="add", epochs=1, analytic=True)),
        ("enas_macro", "ta_gates", NetworkOptions(breaking="concat", epochs=1)),
        ("nasbench201", "gcn", NetworkOptions(epochs=1)),
        ("nasbench201", "ta_gates", NetworkOptions(epochs=1, breaking="random", members=2)),
        ("darts", "lstm", NetworkOptions(epochs=1, analytic=True)),
    ],
)
def test_a_state_scores_the_same(space: str, model: str, options: NetworkOptions, tmp_path: Path) -> None:
    given = {**options.__dict__, "zero_cost": MEASURED, "cache": tmp_path}
    cells, label_N = cells_of(space, 5), torch.arange(4, dtype=torch.float64)
    trained = open_predictor(model, SPACES[space](), NetworkOptions(**given))
    trained.fit(cells[:4], label_N, 5)
    tensors, document = trained.state()
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.float64}
    other = open_predictor(model, SPACES[space](), NetworkOptions(cache=tmp_path))
    other.load_state({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(document)))
    assert torch.equal(other.scores(cells), trained.scores(cells))
    again, said = other.state()
    assert said == document
    assert all(torch.equal(again[name], own) for name, own in tensors.items())
    last_KN = trained.scores_of_last_epochs(cells)
    assert len(last_KN) == min(LAST_EPOCHS, options.epochs)
    assert torch.equal(last_KN[-1], trained.scores(cells))


def test_saliencies_and_features_reach_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Architectures that are the same but for what was measured of them have scores of their own."""
    cells, label_N = cells_of("nasbench201", 6), torch.arange(6, dtype=torch.float64)
    own = NetworkOptions(breaking="add", epochs=2, zero_cost=MEASURED)
    predictor = NetworkPredictor(SPACES["nasbench201"](), "ta_gates", own)
    predictor.fit(cells, label_N, 0)
    before_N = predictor.scores(cells)
    measure = preparation.zero_cost_operations

    def doubled(*given):
        return [{kind: 2 * rows_RS for kind, rows_RS in one.items()} for one in measure(*given)]

    monkeypatch.setattr(preparation, "zero_cost_operations", doubled)
    has_weights = [any("conv" in edge.label.name for edge in one["cell"].edges) for one in cells]
    assert any(has_weights)
    differs_N = predictor.scores(cells) != before_N
    assert differs_N[torch.tensor(has_weights)].all()


@pytest.mark.parametrize("space", ["nasbench201", "nasbench101"])
def test_symmetric_operations_have_numbers_of_their_own(space: str) -> None:
    """Two convolutions side by side, wherever the batch has them; what has no weights has none."""
    own = SPACES[space]()
    if space == "nasbench201":
        ways = ["|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|skip_connect~2|"]
        ways.append("|skip_connect~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|")
    else:
        ways = ["0110000100010000 input,conv3x3-bn-relu,conv3x3-bn-relu,output"]
        ways.append("0100001000010000 input,conv1x1-bn-relu,maxpool3x3,output")
    prepared = preparation.Preparation(own, NetworkOptions(breaking="add", zero_cost=MEASURED))
    inputs = prepared.fit([own.graphs(own.parse(text)) for text in ways])
    metrics = inputs.metrics
    numbers = inputs.batch.edge_BKVV if prepared.form.on_edges else inputs.batch.node_BV
    assert metrics.shape == (*numbers.shape, prepared.metrics)
    convolves = torch.tensor([False, *("conv" in name for name in prepared.form.labels.names)])[numbers]
    assert torch.equal(metrics.any(dim=-1), convolves)
    first, second = metrics[0][convolves[0]]
    assert (first - second).abs().max() > 1e-3


def test_features_are_standardised_on_the_training_architectures() -> None:
    cells = cells_of("nasbench201", 30)
    options = NetworkOptions(analytic=True)
    prepared = preparation.Preparation(SPACES["nasbench201"](), options)
    inputs = prepared.fit(cells[:20])
    features_NF = inputs.features_NF.double()
    assert features_NF.shape == (20, prepared.features)
    torch.testing.assert_close(features_NF.mean(dim=0), torch.zeros(prepared.features).double(), atol=1e-6, rtol=0)
    varies_F = features_NF.any(dim=0)
    assert varies_F.sum() > 20
    deviation_F = features_NF.std(dim=0, correction=0)[varies_F]
    torch.testing.assert_close(deviation_F, torch.ones_like(deviation_F), atol=1e-5, rtol=0)
    torch.testing.assert_close(prepared(cells[:20]).features_NF, inputs.features_NF)
    alike = prepared.fit([cells[0]] * 3)
    assert not alike.features_NF.any()
    assert not prepared(cells).features_NF.any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"members": 0}, "members must be an integer from 1 to 64, not 0"),
        ({"members": True}, "members must be an integer"),
        ({"members": None}, "members must be an integer"),
        ({"steps": 2.0}, "steps must be an integer"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number from 0 to 10"),
        ({"breaking": "adds"}, "breaking must be one of none, random, add, concat"),
        ({"stop_gradients": "fo"}, "stop_gradients must be some of the letters ofb, in this order"),
        ({"update_inputs": ""}, "at least one of o, f and b"),
        ({"analytic": 1}, "analytic must be true or false"),
        ({"widths": 3}, "no option 'widths' of networks"),
        ({"zero_cost": {"channels": 1 << 40}}, "channels must be an integer from"),
        ({"zero_cost": {"examples": 3}}, "no option 'examples'"),
        (["members"], "options of a network are an object"),
    ],
)
def test_options_that_cannot_be(options, says: str) -> None:
    with pytest.raises(UserError, match=says):
        NetworkOptions.of_dict(options)


def test_options_that_a_model_does_not_have() -> None:
    space = SPACES["nasbench201"]()
    with pytest.raises(UserError, match="lstm has no option steps, breaking"):
        open_predictor("lstm", space, NetworkOptions(steps=2, breaking="random"))
    with pytest.raises(UserError, match="xgboost has no options of networks; those that have are ta_gates"):
        open_predictor("xgboost", space, NetworkOptions())


def test_states_that_do_not_fit() -> None:
    space, cells = SPACES["nasbench201"](), cells_of("nasbench201", 4)
    trained = open_predictor("gates", space, NetworkOptions(epochs=1, analytic=True))
    trained.fit(cells, torch.arange(4, dtype=torch.float64), 0)
    tensors, document = trained.state()
    name = next(iter(tensors))
    for wrong, said, says in (
        (tensors, {**document, "model": "gcn"}, "a predictor of the model 'gcn', not gates"),
        (tensors, {**document, "options": {"members": 2, "analytic": True}}, "is .* not .*2,"),
        (tensors, {**document, "options": {}}, "is .* of torch.float32, not|scales are not"),
        ({key: own for key, own in tensors.items() if key != name}, document, "are not those of this one"),
        ({**tensors, name: tensors[name].double()}, document, "of torch.float64, not"),
        ({**tensors, name: tensors[name] / 0}, document, "not finite"),
        (
            {**tensors, "analytic.mean_F": torch.zeros(2).double()},
            document,
            "analytic.mean_F of a predictor is not",
        ),
        ({**tensors, "more": torch.zeros(2)}, document, "scales are not those"),
    ):
        with pytest.raises(UserError, match=says):
            open_predictor("gates", space).load_state(wrong, said)
