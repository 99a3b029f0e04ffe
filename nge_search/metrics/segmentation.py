"""Running sums of loss and accuracy over pixels, and which class they were taken for; on the device until asked."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from nge_search.metrics.ranks import Ranks


class PixelMeter:
    """Sums over pixels that count: loss, hits, count.

    Attributes:
        sums: these, which add up over ranks.
    """

    shown: ClassVar[tuple[str, ...]] = ("loss", "pixel_accuracy")

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, predicted_BHW: Tensor, truth_BHW: Tensor, ignored: int, loss_sum: Tensor) -> None:
        """Add a batch; `loss_sum` is summed over its pixels but those of class `ignored`."""
        hits, count = (predicted_BHW == truth_BHW).sum(), (truth_BHW != ignored).sum()
        self.sums += torch.stack([loss_sum.double(), hits.double(), count.double()])

    def reset(self) -> None:
        self.sums.zero_()

    def result(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss, and accuracy in percent, over all ranks; empty if nothing was added."""
        loss, hits, count = ranks.gather_rows(self.sums).sum(dim=0).tolist()
        return {"loss": loss / count, "pixel_accuracy": 100 * hits / count} if count else {}


class Confusion:
    """How many pixels of each class were taken for each.

    Attributes:
        sums: [K K + 1] by true class and then by predicted class, and last the pixels that do not count.
    """

    def __init__(self, classes: int, device: torch.device):
        self.classes = classes
        self.sums = torch.zeros(classes**2 + 1, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, predicted_BHW: Tensor, truth_BHW: Tensor, ignored: int) -> None:
        """Add a batch of classes, int64. Nothing is read back to the host."""
        place = torch.where(
            truth_BHW == ignored, self.classes**2, truth_BHW * self.classes + predicted_BHW
        ).flatten()
        self.sums.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))

    def reset(self) -> None:
        self.sums.zero_()

    def result(self, ranks: Ranks) -> Tensor:
        """The counts of all ranks, on the CPU: int64 [K, K], true classes in rows."""
        counts = ranks.gather_rows(self.sums).sum(dim=0)[:-1].long()
        return counts.view(self.classes, self.classes)


def intersection_over_union(counts_KK: Tensor) -> Tensor:
    """Per class, pixels that are of it and were taken for it over those that are either: float64 [K].

    NaN for a class that neither occurs nor is predicted. mIoU is the mean of the others (PASCAL VOC).
    """
    counts_KK = counts_KK.double()
    both_K = counts_KK.diagonal()
    return both_K / (counts_KK.sum(dim=0) + counts_KK.sum(dim=1) - both_K)


def mean_over_union(counts_KK: Tensor) -> float | None:
    """mIoU from 0 to 1; None if no pixel counted."""
    mean = float(intersection_over_union(counts_KK).nanmean())
    return None if math.isnan(mean) else mean
