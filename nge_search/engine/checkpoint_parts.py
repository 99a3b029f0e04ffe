"""The parts of a checkpoint, checked before any of them is used: one that is missing or mistyped is named.

Legend: R ranks that saved, N counts of all meters, M numbers in buffers that may differ between ranks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nge_search.errors import UserError, shorten
from nge_search.json_reader import Reader

_LARGEST = 1 << 53
_MOST_RANKS = 1 << 16

#: What an optimiser keeps of each parameter; all but the number of steps are of the parameter's shape.
_SLOTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
}


@dataclass(frozen=True)
class Parts:
    """What the loop itself keeps in a checkpoint; the task's part and the random generators' are theirs to check.

    `position` holds epoch, phase, step and total, `train` what was trained on, counted, and seconds of that: of
    all epochs, of this.
    """

    position: dict[str, int]
    rows: int
    last_row: dict[str, Any]
    seconds: float
    train: tuple[int, float, int, float]
    task: dict[str, Any]
    meters_RN: Tensor
    buffers_RM: Tensor | None
    random: dict[str, Any]
    exactness: dict[str, Any]


def read_parts(state: dict[str, Any], source: str, epochs: int, phases: int, counts: int, numbers: int) -> Parts:
    """The parts of a checkpoint of a run of so many epochs, phases, counts and numbers in local buffers.

    Raises:
        UserError: a part is missing, or not of the form that this version writes; names it and `source`.
    """
    reader = Reader(source, state)
    place = reader.section("position")
    limits = {"epoch": epochs, "phase": phases, "step": _LARGEST, "total": _LARGEST}
    position = {name: place.integer(name, 0, limit) for name, limit in limits.items()}
    meters_RN = _matrix(reader, "meters", counts)
    buffers_RM = None if reader.any("buffers") is None else _matrix(reader, "buffers", numbers)
    if buffers_RM is not None and len(buffers_RM) != len(meters_RN):
        raise UserError(
            f"{source} is damaged: 'meters' and 'buffers' are of {len(meters_RN)} and {len(buffers_RM)}"
        )
    trained, seconds, epoch_trained, epoch_seconds = reader.numbers("train", 4)
    return Parts(
        position,
        reader.integer("rows", position["epoch"], position["epoch"]),
        json_section(reader, "last_row"),
        reader.number("seconds", -1, _LARGEST),
        (int(trained), seconds, int(epoch_trained), epoch_seconds),
        reader.section("task").document,
        meters_RN,
        buffers_RM,
        reader.section("random").document,
        json_section(reader, "exactness"),
    )


def read_stopped(state: dict[str, Any], source: str, epoch: int) -> tuple[int, str] | None:
    """After how many epochs a run that has come to `epoch` was asked to end, and the line that says so.

    None where nobody asked. Raises UserError for anything else.
    """
    given = state.get("stopped")
    if given is None:
        return None
    fits = isinstance(given, list) and len(given) == 2 and type(given[0]) is int and isinstance(given[1], str)
    if not fits or not epoch <= given[0] <= epoch + 1 or not given[1]:
        raise UserError(f"{source} is damaged: 'stopped' must be a number of epochs and a line")
    return given[0], given[1]


def json_section(reader: Reader, name: str) -> dict[str, Any]:
    """A part of JSON's values alone: tensors, for one, cannot be compared with them."""
    document = reader.section(name).document
    try:
        json.dumps(document)
    except (TypeError, ValueError):
        raise UserError(f"{reader.source} is damaged: '{name}' is not of JSON's values") from None
    return document


def _matrix(reader: Reader, name: str, columns: int) -> Tensor:
    """A part that has a row of float64 from each rank."""
    value = reader.any(name)
    fits = isinstance(value, Tensor) and value.dtype == torch.float64 and value.ndim == 2
    if not fits or not 1 <= len(value) <= _MOST_RANKS or value.shape[1] != columns:
        raise UserError(f"{reader.source} is damaged: '{name}' must be a row of {columns} numbers of each rank")
    return value


def load_optimiser(optimiser: torch.optim.Optimizer, state: Any, source: str) -> None:
    """Take over what `optimiser.state_dict()` gave: each parameter's state, and the learning rates.

    All other settings of the groups are the configuration's, and stay.

    Raises:
        UserError: a state of another form, or tensors of another shape or type than the parameters'.
    """
    slots = next(slots for kind, slots in _SLOTS.items() if isinstance(optimiser, kind))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    rates, entries = optimiser_parts(state, source, len(optimiser.param_groups))
    for number, entry in entries.items():
        if not number < len(parameters) or set(slots) - entry.keys():
            raise UserError(f"{source} is damaged: an optimiser's state does not fit its parameters")
        like = parameters[number]
        for slot in slots:
            shape = torch.Size() if slot == "step" else like.shape
            require_tensor(entry[slot], shape, torch.float32 if slot == "step" else like.dtype, source)
    groups = [{**own, "lr": rate} for own, rate in zip(optimiser.state_dict()["param_groups"], rates)]
    own_state = {number: {slot: entry[slot] for slot in slots} for number, entry in entries.items()}
    optimiser.load_state_dict({"state": own_state, "param_groups": groups})


def optimiser_parts(state: Any, source: str, groups: int) -> tuple[list[float], dict[int, dict[str, Any]]]:
    """The learning rate of each of `groups` groups, and what is kept of each parameter, by its number."""
    reader = Reader(source, state if isinstance(state, dict) else {})
    given = reader.any("param_groups")
    if not isinstance(given, list) or len(given) != groups or not all(isinstance(group, dict) for group in given):
        raise UserError(f"{source} is damaged: an optimiser's 'param_groups' must be a list of {groups} groups")
    rates = [Reader(source, group).number("lr", -1, _LARGEST) for group in given]
    entries: dict[Any, Any] = reader.section("state").document
    for number, entry in entries.items():
        if type(number) is not int or number < 0 or not isinstance(entry, dict):
            raise UserError(f"{source} is damaged: an optimiser's state has {shorten(number)}: {shorten(entry)}")
    return rates, entries


def require_tensor(given: Any, shape: torch.Size, dtype: torch.dtype, source: str) -> None:
    """Raise UserError unless `given` is a tensor of that shape and type."""
    if not isinstance(given, Tensor) or given.shape != shape or given.dtype != dtype:
        found = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else shorten(given)
        raise UserError(f"{source} is damaged: an optimiser's state is {found}, not {dtype} {tuple(shape)}")


def read_best(state: Mapping[str, Any], figure: str, epochs: int, source: str) -> dict[str, Any]:
    """The best epoch so far and its figure; empty before the first evaluation."""
    reader = Reader(source, dict(state)).section("best")
    if not reader.document:
        return {}
    value = reader.document.get(figure)
    if type(value) is not float or math.isinf(value):  # with nothing to judge by it is NaN
        raise UserError(f"{source} is damaged: the best '{figure}' must be a number, not {shorten(value)}")
    return {"epoch": reader.integer("epoch", 0, epochs - 1), figure: value}
