"""The classifier for CIFAR-sized images that a genotype is stacked into (DARTS' evaluation network)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from nge_search.errors import UserError
from nge_search.genotype import Genotype
from nge_search.graph import reduction_positions
from nge_search.networks.cells import DerivedCell

#: Side of the feature map on which the auxiliary head's 5x5 pooling of stride 3 leaves exactly 2x2.
_AUXILIARY_SIDES = range(8, 11)


class AuxiliaryHead(nn.Sequential):
    """A second classifier at 2/3 of the depth, used in training only; for feature maps of about 8x8."""

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class CifarNetwork(nn.Module):
    """Stem, derived cells with reductions at 1/3 and 2/3 of the depth, global pooling, classifier.

    Args:
        genotype: the cells.
        channels: C of the first cell, doubled at each reduction.
        cells: how many cells.
        classes: number of classes.
        image_channels: channels of the images.
        stem_multiplier: channels of the stem, in units of C.
        auxiliary: add the auxiliary head after cell 2 * cells // 3.

    Attributes:
        drop_slots: operations that drop-path may drop; the width of `forward`'s `keep_BD`.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        cells: int = 20,
        classes: int = 10,
        image_channels: int = 3,
        stem_multiplier: int = 3,
        auxiliary: bool = False,
    ):
        super().__init__()
        c_stem = stem_multiplier * channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, c_stem, 3, padding=1, bias=False), nn.BatchNorm2d(c_stem)
        )
        self.cells = nn.ModuleList()
        self.auxiliary_after = 2 * cells // 3
        c_auxiliary = 0
        c_before = c_last = c_stem
        reduction_before = False
        for position in range(cells):
            reduction = position in reduction_positions(cells)
            channels *= 2 if reduction else 1
            graph = genotype.reduce if reduction else genotype.normal
            cell = DerivedCell(graph, c_before, c_last, channels, reduction, reduction_before)
            self.cells.append(cell)
            c_before, c_last = c_last, cell.c_out
            reduction_before = reduction
            if position == self.auxiliary_after:
                c_auxiliary = c_last
        self.auxiliary = AuxiliaryHead(c_auxiliary, classes) if auxiliary else None
        self.classifier = nn.Linear(c_last, classes)
        ends = [0]
        for cell in self.cells:
            ends.append(ends[-1] + cell.drop_slots)
        self.drop_slots = ends[-1]
        self._slots = list(pairwise(ends))

    def forward(self, x_BCHW: Tensor, keep_BD: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits [B, classes], and the auxiliary head's in training (else None).

        `keep_BD` is what `drop_path_factors` gives, [B, drop_slots]; None drops nothing.
        """
        before = last = self.stem(x_BCHW)
        auxiliary = None
        for position, (cell, (start, end)) in enumerate(zip(self.cells, self._slots)):
            keep = None if keep_BD is None else keep_BD[:, start:end]
            before, last = last, cell(before, last, keep)
            if self.training and self.auxiliary is not None and position == self.auxiliary_after:
                auxiliary = self.auxiliary(last)
        return self.classifier(last.mean(dim=(2, 3))), auxiliary


def drop_path_factors(uniform_BD: Tensor, rate: float) -> Tensor:
    """Drop-path (Larsson et al., 2017) per image and operation: 0 with probability `rate`, else 1 / (1 - rate)."""
    return (uniform_BD >= rate).to(uniform_BD.dtype) / (1 - rate)


def require_auxiliary_fits(image_size: int, cells: int = 20) -> None:
    """Raise UserError unless the auxiliary head's pooling fits images of this side after the reductions."""
    side = image_size
    for _ in reduction_positions(cells):
        side = (side + 1) // 2
    if side not in _AUXILIARY_SIDES:
        raise UserError(
            f"network.auxiliary=True: the auxiliary head needs feature maps of 8 to 10 pixels (images of 29 to 40 "
            f"with two reductions), not {side}x{side}; set network.auxiliary=false"
        )
