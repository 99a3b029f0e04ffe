"""The published sizes against their table, written out a second time by space."""

from __future__ import annotations

import dataclasses

import pytest

from nge_search.errors import UserError
from nge_search.predict.encoders import FlowEncoder
from nge_search.predict.encoding import Form
from nge_search.predict.published import anytime, published
from nge_search.spaces import SPACES

#: steps, layers, operation, node, lifted, width, update, residual, self-loops, open skips, other nodes' vector,
#: update's input, readout, beta; head; batch, pairs.
_TABLE = {
    "nasbench101": (3, 5, 48, 48, 96, 128, 128, 1, True, True, True, "nodes", "mean", 0.1, (200,), 512, 4),
    "nasbench201": (
        4,
        3,
        48,
        48,
        96,
        128,
        128,
        1,
        False,
        True,
        False,
        "messages",
        "output",
        0.1,
        (300,) * 5,
        512,
        4,
    ),
    "darts": (4, 5, 32, 32, 32, 64, 64, 2, False, True, True, "nodes", "output", 1.0, (200,), 128, 16),
    "enas": (2, 6, 32, 32, 32, 64, 64, 2, False, True, False, "nodes", "output", 1.0, (200,), 128, 16),
}


@pytest.mark.parametrize("space", _TABLE)
def test_sizes(space: str) -> None:
    own = published(space)
    flow, training = own.flow, own.training
    found = (
        *(flow.steps, flow.layers, flow.operation_dim, flow.node_dim, flow.hidden_dim, flow.width, flow.update_dim),
        *(flow.residual, flow.self_loops, flow.open_skips, flow.train_other, flow.update_from, flow.readout),
        *(flow.breaking_scale, own.head, training.batch_size, training.pairs_per_architecture),
    )
    assert found == _TABLE[space]
    assert (training.epochs, training.learning_rate, training.weight_decay) == (200, 1e-3, 0)
    assert (flow.step_size, flow.update_parameter_free, flow.breaking) == (0.1, False, "none")
    control = published(space, "control")
    assert control.flow.steps == 1
    assert control.flow.layers == flow.layers


def test_operations_on_nodes_have_the_sizes_of_those_on_edges() -> None:
    own, edges = published("enas_macro"), published("enas")
    assert (own.head, own.training) == (edges.head, edges.training)
    names = [field.name for field in dataclasses.fields(own.flow)]
    changed = {name for name in names if getattr(own.flow, name) != getattr(edges.flow, name)}
    assert changed == {"layers", "residual"}


def test_gates() -> None:
    own = published("nasbench201", "gates")
    assert (own.flow.steps, own.flow.layers, own.flow.open_skips, own.head) == (1, 5, False, (300,) * 5)
    assert published("darts", "gates") == published("darts", "control")


def test_anytime() -> None:
    assert [anytime(space).flow.steps for space in _TABLE] == [2] * 4
    assert [anytime(space).training.learning_rate for space in _TABLE] == [1e-3, 1e-3, 1e-4, 1e-3]
    assert anytime("nasbench101").flow.breaking_scale == 1.0
    assert anytime("nasbench201").head == (200,)


@pytest.mark.parametrize(("space", "width"), [("nasbench101", 128), ("nasbench201", 128), ("darts", 128)])
def test_an_encoding_of_a_space_has_its_width(space: str, width: int) -> None:
    form = Form.of(SPACES[space]())
    encoder = FlowEncoder(published(space).flow, form.labels, form.inputs, len(form.kinds), form.on_edges)
    assert encoder.width == width


def test_a_space_without_settings() -> None:
    with pytest.raises(UserError, match="did you mean 'darts'"):
        published("dart")
