"""Optimisers and schedules that searches and trainings share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.settings import names


def build_sgd(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], rate: float, momentum: float, decay: float
) -> torch.optim.SGD:
    """SGD of parameters, or of groups of them, with L2 penalty, all tensors in one fused kernel."""
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay, fused=True)


def step_capturable(optimiser: torch.optim.Optimizer) -> None:
    """A step of an optimiser that may be recorded, without PyTorch's advice to record it: first ones are not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        optimiser.step()


def cosine(epoch: float, epochs: float, first: float, last: float) -> float:
    """The learning rate of `epoch` (from 0) on a half cosine from `first`, towards `last` after `epochs`."""
    return last + (first - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def linear(epoch: int, epochs: int, first: float, last: float) -> float:
    """The learning rate of `epoch` (from 0) on a straight line from `first`, towards `last` after `epochs`."""
    return last + (first - last) * (1 - epoch / epochs)


def constant(epoch: int, epochs: int, first: float, last: float) -> float:
    """The learning rate of every epoch."""
    return first


def poly(done: float, first: float, last: float, power: float) -> float:
    """The learning rate after a share `done` of all steps, from `first` to `last` (DeepLab's "poly")."""
    return last + (first - last) * (1 - done) ** power


SCHEDULES: dict[str, Callable[[int, int, float, float], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}
names.require_names(SCHEDULES, names.SCHEDULES)


def warm_up(epoch: int, epochs: int) -> float:
    """The factor of the learning rate of `epoch` (from 0), which rises to 1 in the first `epochs` (PC-DARTS)."""
    return min(1.0, (epoch + 1) / epochs) if epochs else 1.0


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def set_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """Set `.grad` of each parameter, in the parameter's memory layout.

    Fused optimisers walk memory, whatever the strides: a gradient laid out otherwise would reach other weights.
    """
    for parameter, gradient in zip(parameters, gradients):
        fits = gradient.stride() == parameter.stride()
        parameter.grad = gradient if fits else torch.empty_like(parameter).copy_(gradient)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients to a total norm of at most `largest` (0: leave them); the norm before, not read back."""
    return nn.utils.clip_grad_norm_(parameters, largest if largest > 0 else math.inf, foreach=True)
