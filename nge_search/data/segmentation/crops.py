"""What training does to one image with its mask on the CPU: a random scale, and a crop of it.

Legend: H and W sides of an image in pixels, S = `data.crop`; channels are R, G, B and the class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from nge_search.data.decoding import to_image, to_tensor
from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.dataset import IGNORED
from nge_search.keyed_random import Stream, uniform
from nge_search.settings.segmentation import MaskedDataSection

#: Numbers that an image takes: its scale, and where its crop begins from above and from the left.
_PER_IMAGE = 3


class MaskedCrops:
    """Resizes by a factor uniform in [`data.scale_min`, `data.scale_max`], and crops S x S pixels.

    Colours are resized bilinearly with antialiasing, classes take the nearest pixel. Where the image is smaller
    than the crop, colours are padded at the right and bottom with `mean` (of pixels in [0, 1]), classes with
    IGNORED.
    """

    def __init__(self, config: MaskedDataSection, mean: Sequence[float]):
        self._config = config
        self._fill = torch.tensor([*(round(255 * value) for value in mean), IGNORED], dtype=torch.uint8)

    def changes(self, sizes_N2: Tensor) -> bool:
        """Whether training changes images of these sizes at all."""
        config = self._config
        return config.scale_min != 1 or config.scale_max != 1 or bool((sizes_N2 != config.crop).any())

    def __call__(self, pixels_4HW: Tensor, position: int, draw: Draw) -> Tensor:
        """A crop, uint8 [4, S, S], that depends on the pass's key and the image's position in its source alone."""
        config, side = self._config, self._config.crop
        keys = torch.arange(position * _PER_IMAGE, (position + 1) * _PER_IMAGE)
        known = {"seed": draw.seed, "epoch": draw.epoch, "stream": Stream.RESIZED_CROP}
        scale, top, left = uniform(keys, **known, dtype=torch.float64).tolist()
        scaled = resized(pixels_4HW, config.scale_min + (config.scale_max - config.scale_min) * scale)
        height, width = scaled.shape[1:]
        top, left = (int(number * (max(0, own - side) + 1)) for number, own in ((top, height), (left, width)))
        part = scaled[:, top : top + side, left : left + side]
        crop_4SS = self._fill[:, None, None].repeat(1, side, side)
        crop_4SS[:, : part.shape[1], : part.shape[2]] = part
        return crop_4SS


def resized(pixels_4HW: Tensor, scale: float) -> Tensor:
    """Colours and classes of an image whose sides are `scale` times as long, rounded."""
    height, width = pixels_4HW.shape[1:]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return pixels_4HW
    colours = to_image(pixels_4HW[:3]).resize(size, Image.Resampling.BILINEAR)
    classes = to_image(pixels_4HW[3:]).resize(size, Image.Resampling.NEAREST)
    return torch.cat([to_tensor(colours), to_tensor(classes)])
