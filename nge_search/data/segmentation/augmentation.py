"""What happens to a batch of images with masks on the device: mirroring, scaling to [0, 1], normalisation.

Legend: B images, S = H = W side in pixels; channels are R, G, B and the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nge_search.data.augmentation import flip, per_channel
from nge_search.keyed_random import Stream, integers


@dataclass(frozen=True)
class MaskedAugmentation:
    """Mirrors images in training if `flip`, and normalises colours by `mean` and `std`, of pixels in [0, 1]."""

    flip: bool
    mean: Sequence[float]
    std: Sequence[float]

    def train(
        self,
        pixels_B4SS: Tensor,
        index_B: Tensor,
        *,
        seed: int,
        epoch: int,
        dtype: torch.dtype = torch.float32,
        host_index_B: Tensor | None = None,
    ) -> Tensor:
        """Normalised colours and classes as numbers: [B, 4, S, S] of `dtype`, from uint8.

        Which images are mirrored depends on (seed, epoch, position of the image) alone.
        """
        if self.flip:
            flipped_B = integers(index_B, 2, seed=seed, epoch=epoch, stream=Stream.FLIP)
            pixels_B4SS = flip(pixels_B4SS, flipped_B)
        return self.evaluate(pixels_B4SS, dtype=dtype)

    def evaluate(self, pixels_B4HW: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The same without mirroring, for images of any size."""
        mean_411, std_411 = (
            per_channel((*(255 * value for value in values), mask), pixels_B4HW.device, dtype)
            for values, mask in ((self.mean, 0.0), (self.std, 1.0))
        )
        return (pixels_B4HW.to(dtype, memory_format=torch.channels_last) - mean_411) / std_411
