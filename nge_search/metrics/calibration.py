"""How far probabilities can be trusted: running sums over images, or pixels; on the device until somebody asks.

Legend: B images, K classes, J intervals of confidence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nge_search.metrics.ranks import Ranks

#: J, as in Guo et al., "On Calibration of Modern Neural Networks", 2017.
INTERVALS = 15


class Calibration:
    """Confidence (the probability of the class that was taken) against how often that class is right.

    Attributes:
        sums: [3 J + 1]: count, sum of confidences and hits of each interval of confidence, and then the sum of
            Brier scores; they add up over ranks.
    """

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(3 * INTERVALS + 1, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, logits_BK: Tensor, labels_B: Tensor, ignored: int | None = None) -> None:
        """Add a batch of [B, K] or, of pixels, [B, K, H, W], but those of class `ignored`."""
        probabilities_BK = logits_BK.double().softmax(dim=1)
        counted_B = torch.ones_like(labels_B, dtype=torch.bool) if ignored is None else labels_B != ignored
        truth_B = torch.where(counted_B, labels_B, 0)
        # The first of several largest logits, as everywhere else: rounded probabilities may have other ties.
        predicted_B = logits_BK.argmax(dim=1)
        confidence_B = probabilities_BK.gather(1, predicted_B[:, None])[:, 0]
        of_truth_B = probabilities_BK.gather(1, truth_B[:, None])[:, 0]
        brier_B = probabilities_BK.square().sum(dim=1) - 2 * of_truth_B + 1
        place_B = (confidence_B * INTERVALS).ceil().long().clamp(1, INTERVALS) - 1
        weight_B = counted_B.double()
        rows_3J = self.sums[:-1].view(3, INTERVALS)
        for row_J, values_B in zip(
            rows_3J, (weight_B, weight_B * confidence_B, weight_B * (predicted_B == truth_B))
        ):
            row_J.index_add_(0, place_B.flatten(), values_B.flatten())
        self.sums[-1] += (weight_B * brier_B).sum()

    def reset(self) -> None:
        self.sums.zero_()

    def result(self, ranks: Ranks) -> dict[str, Any]:
        """Of all ranks; empty if nothing was added.

        `ece` is the expected calibration error in percent: the mean distance of confidence and accuracy within an
        interval, weighted by count (Guo et al., equation 3). `brier` is the mean over images of the squared
        distance of probabilities and truth, from 0 to 2; `confidence` the mean one, in percent. `intervals` are J
        lists: count, mean confidence and accuracy in percent; None where the count is 0.
        """
        sums = ranks.gather_rows(self.sums).sum(dim=0)
        count_J, confidence_J, hits_J = sums[:-1].view(3, INTERVALS).tolist()
        count = sum(count_J)
        if not count:
            return {}
        return {
            "ece": 100 * sum(abs(hits - sure) for hits, sure in zip(hits_J, confidence_J)) / count,
            "brier": float(sums[-1]) / count,
            "confidence": 100 * sum(confidence_J) / count,
            "intervals": [
                [int(n), 100 * sure / n if n else None, 100 * hits / n if n else None]
                for n, sure, hits in zip(count_J, confidence_J, hits_J)
            ],
        }
