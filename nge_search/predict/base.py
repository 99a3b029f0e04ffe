"""What every predictor does: learn from architectures with labels, and score others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from nge_search.predict.encoding import Cells


class Predictor(ABC):
    """Scores architectures of one space."""

    @abstractmethod
    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        """Learn from architectures and labels, float64 and the higher the better; `seed` decides all chance."""

    @abstractmethod
    def scores(self, asked: Sequence[Cells]) -> Tensor:
        """The higher, the better: float64 [M]. Only their order means something."""


def standardised(label_N: Tensor) -> Tensor:
    """Labels with mean 0 and deviation 1; all 0 where they are equal."""
    centred_N = label_N - label_N.mean()
    return centred_N / centred_N.square().mean().sqrt().clamp(min=1e-12)
