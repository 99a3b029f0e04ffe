"""What processes predict in place of accuracies: numbers of a like spread that rise with the label.

The best accuracies of a space lie close together and the worst far apart. The logarithm of the distance to what is
just out of reach makes the steps even: t = -ln(max(y) + d - y), over the labels y to learn from, standardised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

TARGETS = ("log_error", "rank", "label")


@dataclass(frozen=True)
class Target:
    """A monotone map from labels in percent to targets, and back.

    Attributes:
        kind: "log_error": as above; "label": the label itself; "rank": the label's place among those that are
            known, linear between them, and from 0 to 100 percent around them.
        best: max(y) + d.
        knots: the distinct labels between which ranks are linear, and their ranks.
        mean, deviation: of the known labels' targets before they are standardised.
    """

    kind: str
    best: float
    knots: tuple[tuple[float, float], ...]
    mean: float = 0.0
    deviation: float = 1.0

    @staticmethod
    def of(label_N: Tensor, kind: str = "log_error", offset: float = 2.0) -> Target:
        """That of labels to learn from; `offset` is d, in percent."""
        knots: tuple[tuple[float, float], ...] = ()
        if kind == "rank":
            known_N, count_N = torch.unique(label_N, return_counts=True)
            middle_N = count_N.cumsum(0) - (count_N + 1) / 2
            knots = tuple(zip(known_N.tolist(), middle_N.tolist()))
            below = [(0.0, -1.0)] if knots[0][0] > 0 else []
            above = [(100.0, float(len(label_N)))] if knots[-1][0] < 100 else []
            knots = (*below, *knots, *above)
        raw = Target(kind, float(label_N.max()) + offset, knots)
        target_N = raw(label_N)
        deviation = float((target_N - target_N.mean()).square().mean().sqrt())
        return Target(kind, raw.best, knots, float(target_N.mean()), deviation if deviation > 1e-9 else 1.0)

    def __call__(self, label: Tensor) -> Tensor:
        """The target of labels; infinite for those that are out of reach of a log-error target."""
        if self.kind == "log_error":
            raw = -torch.log((self.best - label).clamp(min=0))
        elif self.kind == "rank":
            raw = _interpolated(label, self.knots)
        else:
            raw = label
        return (raw - self.mean) / self.deviation

    def label(self, target: Tensor) -> Tensor:
        """The label of targets: the inverse."""
        raw = target * self.deviation + self.mean
        if self.kind == "log_error":
            return self.best - torch.exp(-raw)
        if self.kind == "rank":
            return _interpolated(raw, [(rank, label) for label, rank in self.knots])
        return raw

    def document(self) -> dict[str, Any]:
        """What `read` takes."""
        return asdict(self)

    @staticmethod
    def read(document: Mapping[str, Any]) -> Target:
        """The target of a `document`."""
        knots = tuple((float(label), float(rank)) for label, rank in document["knots"])
        numbers = (float(document[name]) for name in ("mean", "deviation"))
        return Target(str(document["kind"]), float(document["best"]), knots, *numbers)


def _interpolated(value: Tensor, knots: tuple[tuple[float, float], ...] | list[tuple[float, float]]) -> Tensor:
    """Linear between knots, and beyond the outermost as between the last two."""
    at_K, to_K = (torch.tensor(column, dtype=value.dtype) for column in zip(*knots))
    left = (torch.searchsorted(at_K, value.contiguous()) - 1).clamp(0, len(at_K) - 2)
    slope = (to_K[left + 1] - to_K[left]) / (at_K[left + 1] - at_K[left])
    return to_K[left] + (value - at_K[left]) * slope
