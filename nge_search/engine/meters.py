"""Running sums of loss and accuracy that stay on the device until somebody asks."""

from __future__ import annotations

import torch
from torch import Tensor

from nge_search.engine.distributed import World


class Meter:
    """Sums over images: loss, top-1 hits, top-5 hits, count."""

    FIELDS = 4

    def __init__(self, device: torch.device):
        self.sums_4 = torch.zeros(self.FIELDS, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, logits_BK: Tensor, labels_B: Tensor, loss_sum: Tensor) -> None:
        """Add a batch; `loss_sum` is summed over its images. Nothing is read back to the host."""
        five = min(5, logits_BK.shape[1])
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
        """Mean loss, top-1 and top-5 accuracy in percent, over all ranks; empty if nothing was added."""
        loss, hits, hits5, count = world.gather_rows(self.sums_4).sum(dim=0).tolist()
        if count == 0:
            return {}
        return {"loss": loss / count, "top1": 100 * hits / count, "top5": 100 * hits5 / count}
