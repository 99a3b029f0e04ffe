"""What happens to a batch between its raw pixels and the network: DARTS' transforms, for all images at once.

Random crop with zero padding, horizontal flip, scaling to [0, 1], normalisation, cutout: order and distributions
are those of DARTS' cnn/utils.py (`_data_transforms_cifar10`, `Cutout`; cutout is due to DeVries and Taylor, 2017).
timm's random erasing comes last; what needs the original image came before, in `image_transforms`.
Every random choice is keyed by (seed, epoch, position of the image), so it does not depend on the batch.

Legend: B images, C channels, S = H = W side in pixels, P = 2 x padding + 1 crop offsets per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from nge_search.data.sources import Dataset
from nge_search.keyed_random import Stream, fold, global_generators_kept, integers, seed_global_generators
from nge_search.settings.data import DataSection


@dataclass(frozen=True)
class Augmentation:
    """The transforms that `config` asks for, on images of `dataset`. Works on any device, without host sync."""

    config: DataSection
    dataset: Dataset

    def train(
        self,
        images_BCHW: Tensor,
        index_B: Tensor,
        *,
        seed: int,
        epoch: int,
        dtype: torch.dtype = torch.float32,
        host_index_B: Tensor | None = None,
    ) -> Tensor:
        """Augmented and normalised images: [B, C, S, S] of `dtype`.

        Args:
            images_BCHW: raw pixels, uint8.
            index_B: position of each image in its source, int64, on the same device.
            seed, epoch: the key of the random choices.
            dtype: a floating-point type; float64 gives the transforms to within the last bit.
            host_index_B: `index_B` on the CPU; without it, random erasing waits for the device.
        """
        side = images_BCHW.shape[-1]
        padding = self.config.crop_for(side)
        if padding:
            offset_B = integers(index_B, (2 * padding + 1) ** 2, seed=seed, epoch=epoch, stream=Stream.CROP)
            images_BCHW = crop(images_BCHW, offset_B, padding)
        if self.config.use_flip:
            flip_B = integers(index_B, 2, seed=seed, epoch=epoch, stream=Stream.FLIP)
            images_BCHW = flip(images_BCHW, flip_B)
        images_BCHW = self.evaluate(images_BCHW, dtype=dtype)
        if self.config.cutout:
            centre_B = integers(index_B, side**2, seed=seed, epoch=epoch, stream=Stream.CUTOUT)
            images_BCHW = cut_out(images_BCHW, centre_B, self.config.cutout)
        if self.config.random_erasing:
            positions = (index_B if host_index_B is None else host_index_B).tolist()
            erase(images_BCHW, positions, self.config.random_erasing, seed=seed, epoch=epoch)
        return images_BCHW

    def evaluate(self, images_BCHW: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normalised images, (x / 255 - mean) / std: uint8 to [B, C, S, S] of `dtype`."""
        mean_C11 = per_channel(self.dataset.mean, images_BCHW.device, dtype)
        std_C11 = per_channel(self.dataset.std, images_BCHW.device, dtype)
        return images_BCHW.to(dtype).div_(255).sub_(mean_C11).div_(std_C11)


def crop(images_BCHW: Tensor, offset_B: Tensor, padding: int) -> Tensor:
    """Windows of the original size out of zero-padded images: [B, C, S, S].

    `offset_B`, int64 in [0, P^2), is the window's corner in the padded image: row offset // P, column offset % P.
    """
    side, offsets = images_BCHW.shape[-1], 2 * padding + 1
    windows_BCPPHW = pad(images_BCHW, (padding,) * 4).unfold(2, side, 1).unfold(3, side, 1)
    image_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    return windows_BCPPHW[image_B, :, offset_B // offsets, offset_B % offsets]


def flip(images_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Mirror the uint8 images whose `flip_B` is 1, and not those where it is 0."""
    mask_B = -flip_B.to(torch.uint8)
    # On a CPU this takes a quarter of the time of torch.where.
    changes_BCHW = images_BCHW.flip(3).bitwise_xor_(images_BCHW).bitwise_and_(mask_B[:, None, None, None])
    return changes_BCHW.bitwise_xor_(images_BCHW)


def cut_out(images_BCHW: Tensor, centre_B: Tensor, length: int) -> Tensor:
    """Set a square to zero in each image, in place: rows [y - length // 2, y + length // 2), columns likewise.

    `centre_B`, int64 in [0, S^2), is pixel (y, x) = (centre // S, centre % S); the square is clipped at the border.
    As in DARTS, an odd `length` gives a square of length - 1.
    """
    side = images_BCHW.shape[-1]
    pixel_S = torch.arange(side, device=images_BCHW.device)

    def covered(centre_B: Tensor) -> Tensor:
        distance_BS = pixel_S - centre_B[:, None]
        return (distance_BS >= -(length // 2)) & (distance_BS < length // 2)

    rows_BS, columns_BS = covered(centre_B // side), covered(centre_B % side)
    return images_BCHW.masked_fill_(rows_BS[:, None, :, None] & columns_BS[:, None, None, :], 0)


def erase(images_BCHW: Tensor, positions: Sequence[int], probability: float, *, seed: int, epoch: int) -> None:
    """timm's RandomErasing of normalised images, in place: noise in a rectangle, keyed by the image's position."""
    from timm.data.random_erasing import RandomErasing  # takes seconds to import

    device = images_BCHW.device
    erasing = RandomErasing(probability, mode="pixel", device=str(device))
    with global_generators_kept(device):
        for image_CHW, position in zip(images_BCHW, positions):
            seed_global_generators(fold(seed, epoch, Stream.ERASE, position), device)
            erasing(image_CHW)


@lru_cache(maxsize=32)
def per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """[C, 1, 1]; kept, because copying it to a GPU at each step would wait for the GPU."""
    return torch.tensor(values, device=device, dtype=dtype)[:, None, None]
