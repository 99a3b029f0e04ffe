"""Predictors that are networks: an encoder, a head, and the published way of training them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nge_search.predict.base import Predictor
from nge_search.predict.baselines import Decisions, GraphEncoder, SequenceEncoder
from nge_search.predict.encoders import Encoder, FlowEncoder
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.members import Members
from nge_search.predict.published import published
from nge_search.predict.training import Inputs, ScoreNetwork, TrainingSettings, scores, train
from nge_search.spaces.base import Space

#: Hidden layers of the head that is the MLP on an architecture's decisions.
_MLP = (200, 200, 200)


class NetworkPredictor(Predictor):
    """Networks that are trained side by side; the score is the mean of theirs.

    Args:
        form: of the space's cells.
        encoder: makes an encoder.
        head: hidden layers between an encoding and the score.
        training: how they are trained.
        members: how many networks.
    """

    def __init__(
        self,
        form: Form,
        encoder: Callable[[], Encoder],
        head: Sequence[int],
        training: TrainingSettings,
        members: int = 1,
    ):
        self.form, self.encoder, self.head = form, encoder, tuple(head)
        self.training, self.members = training, members
        self._trained: Members | None = None

    def inputs(self, architectures: Sequence[Cells]) -> Inputs:
        """The architectures as the networks take them."""
        return Inputs(self.form.batch(architectures), len(self.form.kinds))

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        self._trained = Members(lambda: ScoreNetwork(self.encoder(), 0, self.head), self.members, seed)
        train(self._trained, self.inputs(known), label_N, self.training, seed)

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        assert self._trained is not None, "fit comes first"
        return scores(self._trained, self.inputs(asked))[:, -1].double().mean(dim=0)


def flow_predictor(space: Space, model: str) -> NetworkPredictor:
    """GATES or TA-GATES with the settings of `published`.

    Raises:
        UserError: a space without published settings.
    """
    form, own = Form.of(space), published(space.name, model)

    def encoder() -> FlowEncoder:
        return FlowEncoder(own.flow, form.labels, form.inputs, len(form.kinds), form.on_edges)

    return NetworkPredictor(form, encoder, own.head, own.training)


def ta_gates(space: Space) -> NetworkPredictor:
    """TA-GATES, symmetries unbroken."""
    return flow_predictor(space, "ta_gates")


def gates(space: Space) -> NetworkPredictor:
    """GATES."""
    return flow_predictor(space, "gates")


def _baseline(space: Space, encoder: Callable[[Form], Encoder], head: Sequence[int] = ()) -> NetworkPredictor:
    form, own = Form.of(space), published(space.name)
    return NetworkPredictor(form, lambda: encoder(form), head or own.head, own.training)


def gcn(space: Space) -> NetworkPredictor:
    """Graph convolutions, with a global node where operations are on nodes."""

    def encoder(form: Form) -> GraphEncoder:
        if not form.on_edges:
            return GraphEncoder(form, global_node=True)
        return GraphEncoder(form, hidden_dim=96, layers=3)

    return _baseline(space, encoder)


def lstm(space: Space) -> NetworkPredictor:
    """An LSTM over decisions."""
    return _baseline(space, SequenceEncoder)


def mlp(space: Space) -> NetworkPredictor:
    """An MLP on the integers of decisions."""
    return _baseline(space, Decisions, _MLP)
