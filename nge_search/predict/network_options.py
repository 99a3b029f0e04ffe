"""What can be asked of predictors that are networks, in place of what is published for a space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from nge_search.errors import UserError, nearest, shorten
from nge_search.predict.encoders import FlowSettings
from nge_search.predict.training import TrainingSettings
from nge_search.predict.zero_cost import ZeroCostSettings
from nge_search.settings.predict import OptionsSection

_WORDS: dict[type, str] = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
#: The type of each option that settings have, too: of `int | None`, int.
_TYPES: dict[str, type] = {
    name: get_args(hint)[0] for name, hint in get_type_hints(OptionsSection).items() if type(None) in get_args(hint)
}
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
        UserError: a value of another type, or outside the limits that `OptionsSection` gives.
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
        for own in fields(self):
            value, expected = getattr(self, own.name), _TYPES.get(own.name)
            if expected is None or (value is None and own.default is None):
                continue
            if type(value) is not expected and (expected, type(value)) != (float, int):
                raise UserError(f"{own.name} must be {_WORDS[expected]}, not {shorten(value)}")
        OptionsSection(**{name: getattr(self, name) for name in _TYPES})  # which has their limits
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


def _require_known(given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"no option {shorten(name)} of networks{nearest(str(name), known)}")
