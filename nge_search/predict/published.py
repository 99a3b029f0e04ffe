"""Published sizes and training of GATES and TA-GATES (Ning et al., 2020 and 2022), for each space.

They are those of the authors' configurations. `breaking` is "none" throughout, as the metrics that break symmetries
have to be computed first; `breaking_scale` is the published one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nge_search.errors import UserError, nearest
from nge_search.predict.encoders import FlowSettings
from nge_search.predict.training import TrainingSettings


@dataclass(frozen=True)
class Published:
    """An encoder, the hidden layers of the head behind it, and how both are trained."""

    flow: FlowSettings
    head: tuple[int, ...]
    training: TrainingSettings


_SMALL = FlowSettings(
    layers=5,
    operation_dim=32,
    node_dim=32,
    hidden_dim=32,
    width=64,
    update_dim=64,
    residual=2,
    update_from="nodes",
    breaking_scale=1.0,
)
_SMALL_TRAINING = TrainingSettings(batch_size=128, pairs_per_architecture=16.0)
_ENAS = dataclasses.replace(_SMALL, steps=2, layers=6)

#: TA-GATES, by space. `enas` has operations on edges; `enas_macro` takes its sizes to operations on nodes, with as
#: many layers as the longest path has edges, which is what the published number is in ENAS' cells.
_TA_GATES = {
    "nasbench101": Published(
        FlowSettings(
            steps=3,
            layers=5,
            self_loops=True,
            train_other=True,
            update_from="nodes",
            readout="mean",
            mean_of=6,
        ),
        (200,),
        TrainingSettings(),
    ),
    "nasbench201": Published(FlowSettings(), (300,) * 5, TrainingSettings()),
    "darts": Published(dataclasses.replace(_SMALL, train_other=True), (200,), _SMALL_TRAINING),
    "enas": Published(_ENAS, (200,), _SMALL_TRAINING),
    "enas_macro": Published(dataclasses.replace(_ENAS, residual=1, layers=7), (200,), _SMALL_TRAINING),
}
MODELS = ("ta_gates", "control", "gates")


def published(space: str, model: str = "ta_gates") -> Published:
    """The settings of a space.

    Args:
        space: its name.
        model: "ta_gates"; "control": the same with one pass; "gates": that of GATES' own configuration where it is
            known (NAS-Bench-201), else the control.

    Raises:
        UserError: a space without published settings.
    """
    if space not in _TA_GATES:
        raise UserError(f"no settings of GATES for space '{space}'{nearest(space, _TA_GATES)}")
    assert model in MODELS
    own = _TA_GATES[space]
    if model == "ta_gates":
        return own
    control = dataclasses.replace(own, flow=dataclasses.replace(own.flow, steps=1))
    if model == "control" or space != "nasbench201":
        return control
    return dataclasses.replace(control, flow=dataclasses.replace(control.flow, layers=5, open_skips=False))


def anytime(space: str) -> Published:
    """TA-GATES as it predicts accuracies half-way and at the end: a step for each (Section 4.3)."""
    own = published(space)
    flow = dataclasses.replace(own.flow, steps=2)
    if space == "nasbench101":
        flow = dataclasses.replace(flow, breaking_scale=1.0)
    training = dataclasses.replace(own.training, learning_rate=1e-4) if space == "darts" else own.training
    return Published(flow, (200,), training)
