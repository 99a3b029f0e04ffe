"""The classifier for CIFAR-sized images that a genotype is stacked into (DARTS' evaluation network)."""

from __future__ import annotations

from torch import Tensor, nn

from nge_search.architecture.genotype import Cells
from nge_search.networks.classifier import Classifier
from nge_search.networks.fast_forms import Stem


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


class CifarNetwork(Classifier):
    """A 3x3 stem at full resolution, then derived cells.

    Args:
        genotype: the cells, or their graphs.
        channels: C of the first cell, doubled at each reduction.
        cells: how many cells.
        classes: number of classes.
        image_channels: channels of the images.
        auxiliary: add the auxiliary head after cell 2 * cells // 3.
        stem_multiplier: channels of the stem, in units of C.
    """

    stem_reduction = 1
    auxiliary_sides = range(8, 11)  # on which 5x5 pooling of stride 3 leaves exactly 2x2

    def __init__(
        self,
        genotype: Cells,
        channels: int = 36,
        cells: int = 20,
        classes: int = 10,
        image_channels: int = 3,
        auxiliary: bool = False,
        stem_multiplier: int = 3,
    ):
        super().__init__()
        c_stem = stem_multiplier * channels
        self.stem = Stem(nn.Conv2d(image_channels, c_stem, 3, padding=1, bias=False), nn.BatchNorm2d(c_stem))
        head = AuxiliaryHead if auxiliary else None
        self.stack(genotype, channels, cells, classes, (c_stem, c_stem, False), head)

    def stems(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(x_BCHW)
        return stem, stem
