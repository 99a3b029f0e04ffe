"""Checkpoints in the reference's names, whatever the kernel: what one kernel saved, the other loads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nge_search.engine import checkpoint_parts
from nge_search.engine.checkpoint import require_same_tensors
from nge_search.errors import UserError
from nge_search.supernet.stacking import StackedNetwork


def _to_textbook(supernet: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return supernet.to_textbook(tensors) if isinstance(supernet, StackedNetwork) else tensors


def _from_textbook(supernet: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return supernet.from_textbook(tensors) if isinstance(supernet, StackedNetwork) else tensors


def by_reference_names(supernet: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the reference's names, and in its order."""
    named = _to_textbook(supernet, tensors)
    order = supernet.textbook_names if isinstance(supernet, StackedNetwork) else named
    return {name: named[name] for name in order if name in named}


def supernet_state(supernet: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers."""
    return by_reference_names(supernet, supernet.state_dict())


def load_supernet(supernet: nn.Module, state: Any, source: str) -> None:
    """Take over what `supernet_state` gave.

    Raises:
        UserError: a tensor is missing, unknown or of another shape or type; names `source`.
    """
    require_same_tensors(supernet_state(supernet), state, source)
    supernet.load_state_dict(_from_textbook(supernet, state))


def running_statistics(supernet: nn.Module) -> list[Tensor]:
    """The floating-point buffers, as views, in the reference's order."""
    named = by_reference_names(supernet, dict(supernet.named_buffers()))
    return [buffer for buffer in named.values() if buffer.is_floating_point()]


def optimiser_state(supernet: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Any]:
    """The state dictionary that SGD would have over the reference's parameters."""
    names = [name for name, _ in supernet.named_parameters()]
    state = optimiser.state_dict()
    buffers = {names[index]: entry["momentum_buffer"] for index, entry in state["state"].items()}
    textbook = by_reference_names(supernet, buffers)
    order = list(by_reference_names(supernet, dict(supernet.named_parameters())))
    return {
        "state": {n: {"momentum_buffer": textbook[name]} for n, name in enumerate(order) if name in textbook},
        "param_groups": [{**group, "params": list(range(len(order)))} for group in state["param_groups"]],
    }


def load_optimiser(supernet: nn.Module, optimiser: torch.optim.SGD, state: Any, source: str) -> None:
    """Take over what `optimiser_state` gave.

    Raises:
        UserError: a state of another form, or momenta of another shape or type; names `source`.
    """
    reference = by_reference_names(supernet, dict(supernet.named_parameters()))
    order = list(reference)
    rates, entries = checkpoint_parts.optimiser_parts(state, source, len(optimiser.param_groups))
    if entries.keys() not in (set(), set(range(len(order)))):
        raise UserError(f"{source} is damaged: momenta of {len(entries)} of {len(order)} weights")
    momenta: dict[str, Any] = {order[number]: entry.get("momentum_buffer") for number, entry in entries.items()}
    for name, momentum in momenta.items():
        checkpoint_parts.require_tensor(momentum, reference[name].shape, reference[name].dtype, source)
    own = _from_textbook(supernet, momenta)
    names = [name for name, _ in supernet.named_parameters()]
    by_number = {n: {"momentum_buffer": own[name]} for n, name in enumerate(names) if name in own}
    groups = [{"lr": rate} for rate in rates]
    checkpoint_parts.load_optimiser(optimiser, {"state": by_number, "param_groups": groups}, source)
