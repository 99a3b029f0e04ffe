"""What every predictor does: learn from architectures with labels, and score others.

Legend: N architectures with labels, M asked for, L levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from nge_search.predict.encoding import Cells

#: What a trained predictor is, to be written down: tensors by name, and a document of JSON.
State = tuple[dict[str, Tensor], dict[str, Any]]


class Predictor(ABC):
    """Scores architectures of one space."""

    def require_installed(self) -> None:  # noqa: B027
        """Raise UserError where what `fit` needs besides is not installed: before a run begins."""

    @abstractmethod
    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        """Learn from architectures and labels, float64 and the higher the better; `seed` decides all chance."""

    @abstractmethod
    def scores(self, asked: Sequence[Cells]) -> Tensor:
        """The higher, the better: float64 [M]. Only their order means something."""

    def forecast(self, asked: Sequence[Cells], levels: Sequence[float]) -> tuple[Tensor, Tensor | None]:
        """`scores`, and quantiles at these levels, [M, L] in percent; None of those that do not say how sure."""
        return self.scores(asked), None

    @abstractmethod
    def state(self) -> State:
        """What `fit` has learnt."""

    @abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Take over what `state` gave: scores are the same again, bit for bit."""


class ProbabilisticPredictor(Predictor):
    """One that says how sure it is, too: of a target, which rises with the label, it gives a normal density."""

    @abstractmethod
    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the targets, the noise of a training included: float64 [M] each."""

    @abstractmethod
    def target(self, label: Tensor) -> Tensor:
        """The target of labels in percent."""

    @abstractmethod
    def label(self, target: Tensor) -> Tensor:
        """The label in percent of targets: the inverse of `target`."""

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        return self.posterior(asked)[0]

    def quantiles(self, asked: Sequence[Cells], levels: Sequence[float]) -> Tensor:
        """The label in percent that an architecture stays below with each probability: [M, L]."""
        return self.forecast(asked, levels)[1]

    def forecast(self, asked: Sequence[Cells], levels: Sequence[float]) -> tuple[Tensor, Tensor]:
        mean_M, deviation_M = self.posterior(asked)
        away_L = self.deviations(torch.tensor(levels, dtype=mean_M.dtype))
        return mean_M, self.label(mean_M[:, None] + deviation_M[:, None] * away_L)

    def deviations(self, level_L: Tensor) -> Tensor:
        """How many deviations from the mean the quantiles at these levels are: those of a normal density."""
        return torch.special.ndtri(level_L)


def standardised(label_N: Tensor) -> Tensor:
    """Labels with mean 0 and deviation 1; all 0 where they are equal."""
    centred_N = label_N - label_N.mean()
    return centred_N / centred_N.square().mean().sqrt().clamp(min=1e-12)


@runtime_checkable
class SeesFeatures(Protocol):
    """A predictor that sees named groups of features, of which one may be taken from other architectures."""

    def feature_groups(self) -> Sequence[str]:
        """Their names, after `fit`."""
        ...

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As `scores`, where each architecture has the group's features of the one at `order_M`: float64 [M]."""
        ...
