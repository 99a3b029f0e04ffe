"""Predictors that are networks: an encoder, a head, and the published way of training them.

Legend: N architectures with labels, M asked for, E members, K epochs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nge_search.errors import UserError, shorten
from nge_search.predict.base import Predictor, State
from nge_search.predict.baselines import Decisions, GraphEncoder, SequenceEncoder
from nge_search.predict.encoders import Encoder, FlowEncoder
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.members import Members
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.preparation import Preparation
from nge_search.predict.published import MODELS as FLOWS
from nge_search.predict.published import Published, published
from nge_search.predict.training import ScoreNetwork, TrainingSettings, scores, train
from nge_search.spaces.base import Space

#: Hidden layers of the head that is the MLP on an architecture's decisions.
_MLP = (200, 200, 200)
#: Epochs at the end of training whose scores are told apart, too.
LAST_EPOCHS = 5
_MEMBERS = "members."


@dataclass(frozen=True)
class Design:
    """Makes an encoder from the numbers of an operation that break symmetries; the head; how both are trained."""

    encoder: Callable[[int], Encoder]
    head: tuple[int, ...]
    training: TrainingSettings


def design(space: Space, model: str, options: NetworkOptions, own: Published | None = None) -> Design:
    """That of a model, one of those of this module or of `published`.

    Args:
        own: published settings; None: those of the space and model.

    Raises:
        UserError: a space without published settings.
    """
    form = Form.of(space)
    own = own or published(space.name, model if model in FLOWS else "ta_gates")
    training = options.training(own.training)
    if model in FLOWS:
        flow = options.flow(own.flow)

        def encoder(metrics: int) -> Encoder:
            return FlowEncoder(flow, form.labels, form.inputs, len(form.kinds), form.on_edges, metrics)

        return Design(encoder, own.head, training)
    head = _MLP if model == "mlp" else own.head
    return Design(lambda _: _BASELINES[model](form), head, training)


def _graph_encoder(form: Form) -> Encoder:
    """With a global node where operations are on nodes."""
    if not form.on_edges:
        return GraphEncoder(form, global_node=True)
    return GraphEncoder(form, hidden_dim=96, layers=3)


_BASELINES: dict[str, Callable[[Form], Encoder]] = {
    "gcn": _graph_encoder,
    "lstm": SequenceEncoder,
    "mlp": Decisions,
}


class NetworkPredictor(Predictor):
    """Networks that are trained side by side; the score is the mean of theirs.

    Args:
        space: of the architectures.
        model: as `design`.
        options: what is not as published.

    Raises:
        UserError: a space without published settings, or options that no network of this model has.
    """

    def __init__(self, space: Space, model: str, options: NetworkOptions | None = None):
        self.space, self.model = space, model
        self._configure(options or NetworkOptions())

    def _configure(self, options: NetworkOptions) -> None:
        if options.of_flow and self.model not in FLOWS:
            raise UserError(f"{self.model} has no option {', '.join(options.of_flow)}; ta_gates and gates have")
        self.options = options
        self.design = design(self.space, self.model, options)
        self.preparation = Preparation(self.space, options)
        self._trained: Members | None = None
        self._last: deque[dict[str, Tensor]] = deque(maxlen=LAST_EPOCHS)

    def _untrained(self, seed: int) -> Members:
        own, prepared = self.design, self.preparation

        def build() -> ScoreNetwork:
            return ScoreNetwork(own.encoder(prepared.metrics), prepared.features, own.head)

        return Members(build, self.options.members, seed)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        inputs, members = self.preparation.fit(known), self._untrained(seed)
        self._last.clear()
        first = self.design.training.epochs - LAST_EPOCHS

        def keep(epoch: int) -> None:
            if epoch >= first:
                self._last.append({name: own.detach().clone() for name, own in members.parameters.items()})

        train(members, inputs, label_N, self.design.training, seed, keep)
        self._trained = members

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        assert self._trained is not None, "fit comes first"
        return scores(self._trained, self.preparation(asked))[:, -1].double().mean(dim=0)

    def scores_of_last_epochs(self, asked: Sequence[Cells]) -> Tensor:
        """Scores after each of the last epochs of `fit`, [K, M]: those of the last are `scores`.

        It is for reports; what is saved and loaded has the last epoch alone.
        """
        assert self._trained is not None, "fit comes first"
        inputs, found = self.preparation(asked), []
        for parameters in self._last:
            self._trained.load(parameters)
            found.append(scores(self._trained, inputs)[:, -1].double().mean(dim=0))
        return torch.stack(found)

    def state(self) -> State:
        assert self._trained is not None, "fit comes first"
        own = {f"{_MEMBERS}{name}": tensor.detach() for name, tensor in self._trained.parameters.items()}
        document = {"model": self.model, "options": self.options.to_dict()}
        return {**own, **self.preparation.tensors()}, document

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """As of `Predictor`; the options are those of the document, but for where saliencies are kept.

        Raises:
            UserError: another model's state, or tensors that do not fit it.
        """
        if document.get("model") != self.model:
            raise UserError(f"a predictor of the model {shorten(document.get('model'))}, not {self.model}")
        self._configure(NetworkOptions.of_dict(document.get("options"), self.options.cache))
        members, rest = self._untrained(0), dict(tensors)
        members.load({name.removeprefix(_MEMBERS): rest.pop(name) for name in tensors if name.startswith(_MEMBERS)})
        self.preparation.load(rest)
        self._trained = members


def ta_gates(space: Space, options: NetworkOptions | None = None) -> NetworkPredictor:
    """TA-GATES; its symmetries are unbroken unless options say otherwise."""
    return NetworkPredictor(space, "ta_gates", options)


def gates(space: Space, options: NetworkOptions | None = None) -> NetworkPredictor:
    """GATES."""
    return NetworkPredictor(space, "gates", options)


def gcn(space: Space, options: NetworkOptions | None = None) -> NetworkPredictor:
    """Graph convolutions, with a global node where operations are on nodes."""
    return NetworkPredictor(space, "gcn", options)


def lstm(space: Space, options: NetworkOptions | None = None) -> NetworkPredictor:
    """An LSTM over decisions."""
    return NetworkPredictor(space, "lstm", options)


def mlp(space: Space, options: NetworkOptions | None = None) -> NetworkPredictor:
    """An MLP on the integers of decisions."""
    return NetworkPredictor(space, "mlp", options)
