"""Running sums of loss and accuracy over images, and what became of each; on the device until somebody asks."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from nge_search.metrics.ranks import Ranks

#: Top-5 is counted among more classes than this.
TOP = 5


class Meter:
    """Sums over images: loss, top-1 hits, top-5 hits, count.

    Args:
        classes: how many there are, if that is known; `result` leaves top-5 out where it is sure to be 100 %.

    Attributes:
        sums_4: these, which add up over ranks.
    """

    shown: ClassVar[tuple[str, ...]] = ("loss", "top1")

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

    def result(self, ranks: Ranks) -> dict[str, float]:
        """Mean loss, top-1 and, of more than five classes, top-5 accuracy in percent, over all ranks.

        Empty if nothing was added.
        """
        loss, hits, hits5, count = ranks.gather_rows(self.sums_4).sum(dim=0).tolist()
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

    def result(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Of all ranks, on the CPU: predicted classes int64 [N], -1 for images that nobody saw, and losses [N]."""
        rows_2N = ranks.gather_rows(self.sums).sum(dim=0).view(2, -1)
        return rows_2N[0].long() - 1, rows_2N[1]
