"""DeepLabv3 (Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017) on derived cells.

Legend: B images, K classes, F channels of the pyramid, h and w the sides of its maps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.models.segmentation.fcn import FCNHead

from nge_search.architecture.genotype import Cells
from nge_search.networks.imagenet import ImageNetNetwork

#: Of the pyramid's 3x3 convolutions, at output stride 16.
_ATROUS_RATES = (6, 12, 18)


class DeepLabV3(nn.Module):
    """An ImageNet network without its classifier, torchvision's atrous spatial pyramid, and a 1x1 convolution.

    torchvision puts another 3x3 convolution before the last. As in the paper, there is none here: DARTS_V2 has
    9.99M parameters, with it 10.58M. The 10.31M of NGE's Table 3 fit a backbone of 4.2M, as its ImageNet network
    has, only without it.

    Args:
        genotype: the cells, or their graphs.
        channels: C of the first cell.
        cells: how many cells.
        classes: K.
        output_stride: how many times smaller than the image the features are: 8, 16 or 32.
        head_channels: F.
        auxiliary: add torchvision's convolutional head behind cell 2 * cells // 3, used in training only.

    Attributes:
        backbone: its tensors have the names of the ImageNet network's.
        output_stride, head_channels: as given.
    """

    def __init__(
        self,
        genotype: Cells,
        channels: int,
        cells: int,
        classes: int,
        output_stride: int = 16,
        head_channels: int = 256,
        auxiliary: bool = False,
    ):
        super().__init__()
        self.output_stride, self.head_channels = output_stride, head_channels

        def auxiliary_head(channels: int, _: int) -> nn.Module:
            head = FCNHead(channels, classes)
            head[3] = nn.Identity()  # its dropout would draw other numbers for other batches
            return head

        head = auxiliary_head if auxiliary else False
        self.backbone = ImageNetNetwork(genotype, channels, cells, 0, auxiliary=head, output_stride=output_stride)
        rates = [rate * 16 // output_stride for rate in _ATROUS_RATES]
        self.pyramid = ASPP(self.backbone.cells[-1].c_out, rates, head_channels)
        self.pyramid.project[-1] = nn.Identity()  # dropout is `forward`'s
        self.classifier = nn.Conv2d(head_channels, classes, 1)

    def extra_repr(self) -> str:
        return f"output_stride={self.output_stride}, head_channels={self.head_channels}"

    def forward(self, x_BCHW: Tensor, keep_BFhw: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits of every pixel [B, K, H, W], and the auxiliary head's in training (else None).

        `keep_BFhw` are dropout's factors behind the pyramid, 0 or 1 / (1 - rate); None drops nothing.
        """
        features, auxiliary = self.backbone.forward_features(x_BCHW)
        y_BFhw = self.pyramid(features)
        if keep_BFhw is not None:
            y_BFhw = y_BFhw * keep_BFhw.to(y_BFhw.dtype)
        size = x_BCHW.shape[2:]
        logits = _resized(self.classifier(y_BFhw), size)
        return logits, None if auxiliary is None else _resized(auxiliary, size)


def _resized(logits_BKhw: Tensor, size: tuple[int, ...]) -> Tensor:
    return functional.interpolate(logits_BKhw, size, mode="bilinear", align_corners=False)
