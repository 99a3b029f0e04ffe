"""The supernet in its textbook form: every operation of every edge, one by one (DARTS, Eq. 2; NGE, Eq. 11).

Slow and plain on purpose: it is the oracle against which faster forms are tested.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import CellSpace, reduction_positions
from nge_search.operations import ModuleList, build_operation, build_preprocess, is_pool
from nge_search.settings.names import INPUT_NODES
from nge_search.supernet import sampled


class MixedOperation(nn.ModuleList):
    """All candidate operations of one edge, weighted by that edge's probabilities p_O."""

    def forward(self, x_BCHW: Tensor, p_O: Tensor) -> Tensor:
        only = sampled.sampled_operation(p_O)
        if only is not None:
            return self[only](x_BCHW).to(p_O.dtype)
        # Without the conversion, bf16 outputs would round P, and its gradient, to bf16.
        return sum(p * operation(x_BCHW).to(p.dtype) for p, operation in zip(p_O, self))


def _candidate(name: str, channels: int, stride: int) -> nn.Module:
    operation = build_operation(name, channels, stride, affine=False)
    return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False)) if is_pool(name) else operation


class MixedCell(nn.Module):
    """A cell in which every edge carries every operation; its output concatenates all inner nodes.

    Args:
        c_before, c_last: channels of the two inputs (the outputs of the cells before).
        channels: channels of each inner node.
        reduction: edges from the inputs have stride 2.
        reduction_before: the cell before was a reduction, so the older input has twice the resolution.
    """

    def __init__(
        self,
        space: CellSpace,
        c_before: int,
        c_last: int,
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ):
        super().__init__()
        self.space = space
        self.channels = channels
        self.reduction = reduction
        self.preprocess0 = build_preprocess(c_before, channels, halve=reduction_before, affine=False)
        self.preprocess1 = build_preprocess(c_last, channels, halve=False, affine=False)
        self.edges = ModuleList(
            MixedOperation(_candidate(name, channels, self._stride(source)) for name in space.operations)
            for source, _ in space.edges
        )

    def extra_repr(self) -> str:
        return f"nodes={self.space.nodes}, channels={self.channels}, reduction={self.reduction}"

    def _stride(self, source: int) -> int:
        return 2 if self.reduction and source < INPUT_NODES else 1

    def forward(self, before_BCHW: Tensor, last_BCHW: Tensor, p_EO: Tensor) -> Tensor:
        states = [self.preprocess0(before_BCHW), self.preprocess1(last_BCHW)]
        for node in self.space.inner:
            states.append(
                sum(
                    self.edges[edge](states[source], p_EO[edge])
                    for source, edge in enumerate(self.space.incoming(node))
                )
            )
        return torch.cat(states[INPUT_NODES:], dim=1)


class Supernet(nn.Module):
    """The proxy network: stem, mixed cells, global pooling, classifier (NGE, Fig. 2 b-c; DARTS' search network).

    Args:
        space: the cell's graph and operations.
        channels: C, doubled at each reduction.
        cells: number of cells.
        classes: number of classes.
        image_channels: channels of the images.
        stem_multiplier: channels of the stem, in units of C.
    """

    def __init__(
        self,
        space: CellSpace,
        channels: int,
        cells: int,
        classes: int,
        image_channels: int = 3,
        stem_multiplier: int = 3,
    ):
        super().__init__()
        self.space = space
        c_stem = stem_multiplier * channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, c_stem, 3, padding=1, bias=False), nn.BatchNorm2d(c_stem)
        )
        self.cells: ModuleList[MixedCell] = ModuleList()
        c_before = c_last = c_stem
        reduction_before = False
        for position in range(cells):
            reduction = position in reduction_positions(cells)
            channels *= 2 if reduction else 1
            self.cells.append(MixedCell(space, c_before, c_last, channels, reduction, reduction_before))
            c_before, c_last = c_last, space.nodes * channels
            reduction_before = reduction
        self.classifier = nn.Linear(c_last, classes)

    def extra_repr(self) -> str:
        return str(self.space)

    def forward(self, x_BCHW: Tensor, p_normal_EO: Tensor, p_reduce_EO: Tensor) -> Tensor:
        """Logits [B, classes] of images under the operation probabilities of the two kinds of cell."""
        before = last = self.stem(x_BCHW)
        for cell in self.cells:
            before, last = last, cell(before, last, p_reduce_EO if cell.reduction else p_normal_EO)
        return self.classifier(last.mean(dim=(2, 3)))

    def mixed_operations(self, size: int) -> Iterator[tuple[int, int, MixedOperation, tuple[int, int, int]]]:
        """For images of `size` pixels: which P, which row of it, whose operations, and the (C, H, W) they read."""
        for cell in self.cells:
            halved = -(-size // 2) if cell.reduction else size
            for edge, (source, _) in enumerate(self.space.edges):
                side = size if source < INPUT_NODES else halved
                yield int(cell.reduction), edge, cell.edges[edge], (cell.channels, side, side)
            size = halved
