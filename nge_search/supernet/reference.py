"""The supernet in its textbook form: every operation of every edge, one by one (DARTS, Eq. 2; NGE, Eq. 11).

Slow and plain on purpose: it is the oracle against which faster forms are tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class PartialOperation(MixedOperation):
    """One of `parts` parts of the channels passes the mixed operation, the others go by it (PC-DARTS, Section 3.1).

    All are then shuffled, so that the next operation sees some of each part. Where the operations halve the image,
    a 2x2 maximum halves what goes by. That weighs as much as all operations together: 1, or the edge's weight.

    Args:
        operations: on a part of the channels.
        parts: K.
        halving: the operations have stride 2.
    """

    def __init__(self, operations: Iterable[nn.Module], parts: int, halving: bool):
        super().__init__(operations)
        self.parts, self.halving = parts, halving

    def extra_repr(self) -> str:
        return f"parts={self.parts}, halving={self.halving}"

    def forward(self, x_BCHW: Tensor, p_O: Tensor) -> Tensor:
        width = x_BCHW.shape[1] // self.parts
        mixed_BCHW, past_BCHW = super().forward(x_BCHW[:, :width], p_O), x_BCHW[:, width:]
        if self.halving:
            past_BCHW = functional.max_pool2d(past_BCHW, 2, ceil_mode=True)
        return shuffle(torch.cat([mixed_BCHW, p_O.sum() * past_BCHW.to(p_O.dtype)], dim=1), self.parts)


def shuffle(x_BCHW: Tensor, parts: int) -> Tensor:
    """Channels of the parts in turn: the first of each, the second of each, ... (ShuffleNet, 2018)."""
    return x_BCHW.unflatten(1, (parts, -1)).transpose(1, 2).flatten(1, 2)


def mixed_operation(operations: Iterable[nn.Module], parts: int, halving: bool = False) -> MixedOperation:
    """All candidates of an edge, on all channels or on one of `parts` parts of them."""
    return MixedOperation(operations) if parts == 1 else PartialOperation(operations, parts, halving)


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
        partial: into so many parts are channels divided, of which one passes the operations.
    """

    def __init__(
        self,
        space: CellSpace,
        c_before: int,
        c_last: int,
        channels: int,
        reduction: bool,
        reduction_before: bool,
        partial: int = 1,
    ):
        super().__init__()
        self.space = space
        self.channels, self.partial = channels, partial
        self.reduction = reduction
        self.preprocess0 = build_preprocess(c_before, channels, halve=reduction_before, affine=False)
        self.preprocess1 = build_preprocess(c_last, channels, halve=False, affine=False)
        self.edges = ModuleList(
            mixed_operation(self._candidates(self._stride(source)), partial, self._stride(source) == 2)
            for source, _ in space.edges
        )

    def extra_repr(self) -> str:
        return f"nodes={self.space.nodes}, channels={self.channels}, reduction={self.reduction}"

    def _candidates(self, stride: int) -> Iterator[nn.Module]:
        return (_candidate(name, self.channels // self.partial, stride) for name in self.space.operations)

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
        partial: as of `MixedCell`.
    """

    def __init__(
        self,
        space: CellSpace,
        channels: int,
        cells: int,
        classes: int,
        image_channels: int = 3,
        stem_multiplier: int = 3,
        partial: int = 1,
    ):
        super().__init__()
        self.space, self.partial = space, partial
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
            self.cells.append(MixedCell(space, c_before, c_last, channels, reduction, reduction_before, partial))
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
                yield int(cell.reduction), edge, cell.edges[edge], (cell.channels // self.partial, side, side)
            size = halved
