"""The classifier for ImageNet-sized images that a genotype is stacked into (DARTS' ImageNet network)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from nge_search.architecture.genotype import Cells
from nge_search.networks.classifier import Classifier
from nge_search.networks.fast_forms import Stem


class AuxiliaryHead(nn.Sequential):
    """A second classifier at 2/3 of the depth, used in training only; for feature maps of about 7x7.

    As in DARTS, nothing is normalised behind the second convolution.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class ImageNetNetwork(Classifier):
    """Three 3x3 convolutions of stride 2, then derived cells at an eighth of the resolution.

    Args:
        genotype: the cells, or their graphs.
        channels: C of the stem and of the first cell, doubled at each reduction.
        cells: how many cells.
        classes: number of classes.
        image_channels: channels of the images.
        auxiliary: add the auxiliary head after cell 2 * cells // 3; or what makes another one, as `stack` takes it.
        output_stride: 8 or 16: keep a higher resolution by dilation, with the same weights; None: 32.
    """

    stem_reduction = 8
    auxiliary_sides = range(7, 9)  # on which 5x5 pooling of stride 2 leaves exactly 2x2

    def __init__(
        self,
        genotype: Cells,
        channels: int = 48,
        cells: int = 14,
        classes: int = 1000,
        image_channels: int = 3,
        auxiliary: bool | Callable[[int, int], nn.Module] = False,
        output_stride: int | None = None,
    ):
        super().__init__()
        self.output_stride = output_stride
        half = channels // 2
        self.stem0 = Stem(
            nn.Conv2d(image_channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.stem1 = Stem(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        head = AuxiliaryHead if auxiliary is True else auxiliary or None
        self.stack(genotype, channels, cells, classes, (channels, channels, True), head, output_stride)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, output_stride={self.output_stride or 32}"

    def stems(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        before = self.stem0(x_BCHW)
        return before, self.stem1(before)
