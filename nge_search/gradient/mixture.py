"""What the supernet adds up: from the matrices that the embedding gives to the weights of operations in a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Mixture(ABC):
    """Weights of operations, made anew in every step.

    Noise is in tensors that are written to between steps, so that a recorded step sees new draws.

    Attributes:
        temperature: of a softmax, as far as there is one; it may change between phases.
        draws: K, how many a step can make.
    """

    temperature: float = 1.0
    draws: int = 1

    @abstractmethod
    def draw(self, *position: int) -> None:
        """New noise, given by the seed and the position of a step in the search: the same on all ranks."""

    @abstractmethod
    def settle(self) -> None:
        """No noise: the most probable, or the mean."""

    @abstractmethod
    def __call__(self, matrices: Sequence[Tensor], draw: int = 0) -> list[Tensor]:
        """Weights [E, O] whose rows sum to one, differentiable; `draw`: which of the step's."""


class Tempered(Mixture):
    """All operations, by P^(1 / temperature), normalised: sharper than P below 1 (as in ASAP, Noy et al., 2020).

    That is the softmax of the logits divided by the temperature.
    """

    def __init__(self, temperature: float):
        self.temperature = temperature

    def draw(self, *position: int) -> None:
        """There is no noise."""

    def settle(self) -> None:
        """There is no noise."""

    def __call__(self, matrices: Sequence[Tensor], draw: int = 0) -> list[Tensor]:
        return [torch.softmax(logarithm(p_EO) / self.temperature, dim=1) for p_EO in matrices]


def logarithm(p_EO: Tensor) -> Tensor:
    """log P, finite where P has vanished."""
    return (p_EO + torch.finfo(p_EO.dtype).tiny).log()
