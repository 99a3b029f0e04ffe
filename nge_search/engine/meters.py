"""Running sums of loss and accuracy, and what became of images and pixels; on the device until somebody asks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nge_search.engine.distributed import World

#: Top-5 is counted among more classes than this.
TOP = 5


class Meter:
    """Sums over images: loss, top-1 hits, top-5 hits, count.

    Args:
        classes: how many there are, if that is known; `result` leaves top-5 out where it is sure to be 100 %.

    Attributes:
        sums_4: these, which add up over ranks.
    """

    def __init__(self, device: torch.device, classes: int | None = None):
        self.has_top5 = classes is None or classes > TOP
        self.sums_4 = torch.zeros(4, dtype=torch.float64, device=device)

    @property
    def sums(self) -> Tensor:
        """All that is counted, as one vector."""
        return self.sums_4

    @torch.no_grad()
    def update(self, logits_BK: Tensor, labels_B: Tensor, loss_sum: Tensor) -> None:
        """Add a batch; `loss_sum` is summed over its images. Nothing is read back to the host."""
        five = min(TOP, logits_BK.shape[1])
        hits_B5 = logits_BK.topk(five, dim=1).indices == labels_B[:, None]
        self.sums_4 += torch.stack(
            [
                loss_sum.double(),
                hits_B5[:, :1].sum().double(),
                hits_B5.sum().double(),
                torch.full((), len(labels_B), dtype=torch.float64, device=labels_B.device),
            ]
        )

    def reset(self) -> None:
        self.sums_4.zero_()

    def result(self, world: World) -> dict[str, float]:
        """Mean loss, top-1 and, of more than five classes, top-5 accuracy in percent, over all ranks.

        Empty if nothing was added.
        """
        loss, hits, hits5, count = world.gather_rows(self.sums_4).sum(dim=0).tolist()
        if count == 0:
            return {}
        top5 = {"top5": 100 * hits5 / count} if self.has_top5 else {}
        return {"loss": loss / count, "top1": 100 * hits / count, **top5}


class Outcomes:
    """The class that each image of a set was taken for, and its loss.

    Attributes:
        sums: [2 N], a row of predicted classes from 1 on (0: not seen), then one of losses; an image is seen by one
            rank, so they add up over ranks.
    """

    def __init__(self, count: int, device: torch.device):
        self.sums = torch.zeros(2 * count, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, logits_BK: Tensor, losses_B: Tensor, index_B: Tensor) -> None:
        """Set the outcomes of the images at positions `index_B`. Nothing is read back to the host."""
        rows_2N = self.sums.view(2, -1)
        rows_2N[0, index_B] = (logits_BK.argmax(dim=1) + 1).double()
        rows_2N[1, index_B] = losses_B.double()

    def reset(self) -> None:
        self.sums.zero_()

    def gather(self, world: World) -> tuple[Tensor, Tensor]:
        """Of all ranks, on the CPU: predicted classes int64 [N], -1 for images that nobody saw, and losses [N]."""
        rows_2N = world.gather_rows(self.sums).sum(dim=0).view(2, -1)
        return rows_2N[0].long() - 1, rows_2N[1]


class PixelMeter:
    """Sums over pixels that count: loss, hits, count.

    Attributes:
        sums: these, which add up over ranks.
    """

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, predicted_BHW: Tensor, truth_BHW: Tensor, ignored: int, loss_sum: Tensor) -> None:
        """Add a batch; `loss_sum` is summed over its pixels but those of class `ignored`."""
        hits, count = (predicted_BHW == truth_BHW).sum(), (truth_BHW != ignored).sum()
        self.sums += torch.stack([loss_sum.double(), hits.double(), count.double()])

    def reset(self) -> None:
        self.sums.zero_()

    def result(self, world: World) -> dict[str, float]:
        """Mean loss, and accuracy in percent, over all ranks; empty if nothing was added."""
        loss, hits, count = world.gather_rows(self.sums).sum(dim=0).tolist()
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

    def gather(self, world: World) -> Tensor:
        """The counts of all ranks, on the CPU: int64 [K, K], true classes in rows."""
        counts = world.gather_rows(self.sums).sum(dim=0)[:-1].long()
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
