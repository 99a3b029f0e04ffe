"""A derived cell: the graph of a genotype with real operations on its edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.architecture import genotype as description
from nge_search.networks.fast_forms import Shared, plainly
from nge_search.operations import build_operation, build_preprocess
from nge_search.settings.names import INPUT_NODES


class DerivedCell(nn.Module):
    """One cell of a derived network.

    Args:
        cell: its graph.
        c_before, c_last: channels of the two inputs.
        channels: channels of each inner node.
        reduction: operations on the inputs have stride 2.
        reduction_before: the cell before was a reduction, so the older input has twice the resolution.
        rates: of the two inputs; larger than 1 behind strides that were removed (see `operations`).
        keep_resolution: a reduction's operations have stride 1, and what follows a larger rate.

    Attributes:
        c_out: channels of the output.
        rate: of the output.
        drop_slots: how many of its operations drop-path may drop: all but the identities.
    """

    def __init__(
        self,
        cell: description.Cell,
        c_before: int,
        c_last: int,
        channels: int,
        reduction: bool,
        reduction_before: bool,
        rates: tuple[int, int] = (1, 1),
        keep_resolution: bool = False,
    ):
        super().__init__()
        self.cell, self.reduction = cell, reduction
        stride = 2 if rates[0] == rates[1] else 1
        self.preprocess0 = build_preprocess(c_before, channels, reduction_before, stride=stride, rate=rates[0])
        self.preprocess1 = build_preprocess(c_last, channels, halve=False)
        self.rate = rates[1] * 2 if reduction and keep_resolution else rates[1]
        from_inputs = {"stride": 2 if reduction and not keep_resolution else 1, "rates": (rates[1], self.rate)}
        inside = {"stride": 1, "rates": (self.rate, self.rate)}
        self.operations = nn.ModuleList(
            build_operation(name, channels, **(from_inputs if source < INPUT_NODES else inside))
            for name, source in cell.genes
        )
        self.c_out = channels * len(cell.concat)
        self.drop_slots = sum(not isinstance(operation, nn.Identity) for operation in self.operations)

    def extra_repr(self) -> str:
        sources = tuple(source for _, source in self.cell.genes)
        return f"sources={sources}, concat={self.cell.concat}, reduction={self.reduction}, rate={self.rate}"

    def forward(
        self, before_BCHW: Tensor, last_BCHW: Tensor, keep_BD: Tensor | None = None, shared: Shared | None = None
    ) -> Tensor:
        """The output, [B, c_out, H, W].

        Args:
            keep_BD: a factor per image and droppable operation, 0 or 1 / (1 - rate); None keeps everything.
            shared: what all cells run their operations with; None runs them as they are.
        """
        run = plainly if shared is None else shared
        states = [run(self.preprocess0, before_BCHW), run(self.preprocess1, last_BCHW)]
        slot = 0
        total = None
        for i, (operation, (_, source)) in enumerate(zip(self.operations, self.cell.genes)):
            factor = None
            if not isinstance(operation, nn.Identity):
                if keep_BD is not None:
                    factor = keep_BD[:, slot, None, None, None].to(last_BCHW.dtype)
                slot += 1
            total = run(operation, states[source], factor, total)
            if (i + 1) % description.EDGES_PER_NODE == 0:
                states.append(total)
                total = None
        return torch.cat([states[node] for node in self.cell.concat], dim=1)
