"""What can be asked of predictors that are networks, in place of what is published for a space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nge_search.errors import UserError, nearest, shorten
from nge_search.predict.encoders import FlowSettings
from nge_search.predict.training import TrainingSettings
from nge_search.predict.zero_cost import ZeroCostSettings
from nge_search.settings.names import BREAKINGS, READOUTS, UPDATES_FROM

#: What the update of an embedding may be told, a letter each: the embedding, and what it saw forward and backward.
_SEEN = "ofb"
_NUMBERS: dict[str, tuple[float, float]] = {
    "members": (1, 64),
    "steps": (1, 32),
    "step_size": (0, 10),
    "breaking_scale": (0, 1000),
    "epochs": (1, 100_000),
    "batch_size": (2, 1 << 20),
    "learning_rate": (0, 10),
}
_WHOLE = ("members", "steps", "epochs", "batch_size")
_CHOICES = {"breaking": BREAKINGS, "update_from": UPDATES_FROM, "readout": READOUTS}
_OF_FLOW = (
    *("steps", "step_size", "breaking", "breaking_scale", "update_from", "update_inputs", "update_parameter_free"),
    *("stop_gradients", "readout"),
)
_OF_TRAINING = ("epochs", "batch_size", "learning_rate")
_MEASURED = tuple(own.name for own in fields(ZeroCostSettings) if own.name != "examples")


@dataclass(frozen=True)
class NetworkOptions:
    """Of a predictor that is a network; None: as published. From `steps` on they are GATES' and TA-GATES' alone.

    Attributes:
        members: networks, of which the scores' mean counts.
        analytic: whether analytic features join the encoding before the head.
        epochs, batch_size, learning_rate: of training.
        steps: T, forward passes; 1 makes of TA-GATES its control, which is the same but for the updates.
        step_size: s, by which updates of embeddings are scaled.
        breaking: how operations of one type are told apart at the start: none, random, add, concat. The last two
            measure zero-cost saliencies of every architecture that is learnt from or scored.
        breaking_scale: beta, of "add".
        update_inputs: what the update is told: o, the embedding, f and b, what was seen forward and backward.
        stop_gradients: which of these no gradients pass.
        update_from: where f and b are seen: "nodes", or "messages" on edges.
        update_parameter_free: whether embeddings of operations without weights are updated, too.
        readout: the encoding: "output", or "mean" over nodes.
        zero_cost: how saliencies are measured: on noise.
        cache: a folder that keeps them; None: measured anew. It is not part of a saved predictor.

    Raises:
        UserError: a value outside its limits.
    """

    members: int = 1
    analytic: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    steps: int | None = None
    step_size: float | None = None
    breaking: str = "none"
    breaking_scale: float | None = None
    update_inputs: str | None = None
    stop_gradients: str | None = None
    update_from: str | None = None
    update_parameter_free: bool | None = None
    readout: str | None = None
    zero_cost: ZeroCostSettings = field(default_factory=ZeroCostSettings)
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _NUMBERS.items():
            kinds, number = ((int,), "an integer") if name in _WHOLE else ((int, float), "a number")
            value = getattr(self, name)
            if value is None and name != "members":
                continue
            if type(value) not in kinds or not low <= value <= high:
                raise UserError(f"{name} must be {number} from {low} to {high}, not {shorten(value)}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}, not {shorten(value)}")
        for name in ("analytic", "update_parameter_free"):
            value = getattr(self, name)
            if value is not None and type(value) is not bool:
                raise UserError(f"{name} must be true or false, not {shorten(value)}")
        for name in ("update_inputs", "stop_gradients"):
            value = getattr(self, name)
            if value is not None and not _are_letters(value):
                raise UserError(f"{name} must be some of the letters {_SEEN}, in this order, not {shorten(value)}")
        if self.update_inputs == "":
            raise UserError("update_inputs must name at least one of o, f and b")
        if self.zero_cost.examples is not None:
            raise UserError("a predictor's saliencies are measured on noise; give no images")

    def flow(self, published: FlowSettings) -> FlowSettings:
        """The settings of an encoder with what is asked for."""
        return dataclasses.replace(published, **self._given(_OF_FLOW))

    def training(self, published: TrainingSettings) -> TrainingSettings:
        """How it is trained, with what is asked for."""
        return dataclasses.replace(published, **self._given(_OF_TRAINING))

    @property
    def needs_saliencies(self) -> bool:
        """Whether operations' zero-cost saliencies are measured."""
        return self.breaking in ("add", "concat")

    @property
    def of_flow(self) -> list[str]:
        """The names of what is asked for that only GATES and TA-GATES have."""
        return [own.name for own in fields(self) if own.name in _OF_FLOW and getattr(self, own.name) != own.default]

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what differs from the defaults, without the cache."""
        written: dict[str, Any] = {
            own.name: getattr(self, own.name)
            for own in fields(self)
            if own.name not in ("zero_cost", "cache") and getattr(self, own.name) != own.default
        }
        if self.needs_saliencies:
            written["zero_cost"] = {name: getattr(self.zero_cost, name) for name in _MEASURED}
        return written

    @staticmethod
    def of_dict(document: Any, cache: Path | None = None) -> NetworkOptions:
        """What `to_dict` gave.

        Raises:
            UserError: something else.
        """
        if not isinstance(document, Mapping):
            raise UserError(f"options of a network are an object, not {shorten(document)}")
        given = dict(document)
        measured = given.pop("zero_cost", {})
        known = [own.name for own in fields(NetworkOptions) if own.name not in ("zero_cost", "cache")]
        _require_known(given, known)
        if not isinstance(measured, Mapping):
            raise UserError(f"zero_cost is an object, not {shorten(measured)}")
        _require_known(measured, _MEASURED)
        return NetworkOptions(**given, zero_cost=ZeroCostSettings(**measured), cache=cache)


def _are_letters(value: Any) -> bool:
    """Whether these are some of `_SEEN`, each once and in order."""
    return type(value) is str and "".join(letter for letter in _SEEN if letter in value) == value


def _require_known(given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"no option {shorten(name)} of networks{nearest(str(name), known)}")
