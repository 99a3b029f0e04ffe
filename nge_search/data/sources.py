"""What a dataset is made of: sources of images, in memory or in files, and the record that joins them.

Legend: N images of a source, n images read at once, C channels, S = H = W side in pixels, H0, W0 an original's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from nge_search.data.decoding import for_each, load, to_image, to_tensor
from nge_search.data.image_transforms import Draw, ImageTransforms

_CHANNELS = 3


class ImageSource(Protocol):
    """Labelled images of one size that can be read by position."""

    #: int64 [N] on the CPU.
    labels_N: Tensor

    def __len__(self) -> int:
        """N."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that all images take as uint8."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """The paths of all files that are read; empty where images are held in memory."""
        ...

    @property
    def augments(self) -> bool:
        """Whether `read` changes images by the choices of a `draw`; otherwise that makes no difference."""
        ...

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        """The images at these positions: uint8 [n, C, S, S] on the CPU; UserError where a file cannot be read.

        With a `draw` as training sees them, up to what is left to `Augmentation`; without as evaluation does.
        """
        ...

    def describe(self, index: int) -> str:
        """The file of an image, or what else tells the user which one it is."""
        ...


class MemoryImages:
    """Images that are already decoded: images_NCHW uint8 and labels_N int64, both on the CPU.

    `originals` [N, C, H0, W0] are what `transforms` augment in training; by default the images themselves.
    """

    def __init__(
        self,
        images_NCHW: Tensor,
        labels_N: Tensor,
        transforms: ImageTransforms | None = None,
        originals: Tensor | None = None,
    ):
        if len(images_NCHW) != len(labels_N):
            raise ValueError(f"{len(images_NCHW)} images but {len(labels_N)} labels")
        self.images_NCHW = images_NCHW
        self.labels_N = labels_N
        self.transforms = transforms
        self.originals = images_NCHW if originals is None else originals

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def nbytes(self) -> int:
        return self.images_NCHW.nbytes

    @property
    def files(self) -> Sequence[str]:
        return ()

    @property
    def augments(self) -> bool:
        return self.transforms is not None and self.transforms.augments

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        index_n = torch.as_tensor(indices, dtype=torch.int64)
        images_nCHW = self.images_NCHW[index_n]
        transforms = self.transforms
        if draw is not None and transforms is not None and transforms.augments:
            positions = index_n.tolist()
            choices = transforms.choices(positions, draw)
            for image_CHW, position, choice in zip(images_nCHW, positions, choices):
                image_CHW.copy_(to_tensor(transforms(to_image(self.originals[position]), choice)))
        return images_nCHW

    def describe(self, index: int) -> str:
        return f"image {index}"


class FileImages:
    """Images in files, decoded on every read: `paths` and labels_N are parallel."""

    def __init__(self, paths: Sequence[str], labels_N: Tensor, transforms: ImageTransforms, threads: int):
        if len(paths) != len(labels_N):
            raise ValueError(f"{len(paths)} files but {len(labels_N)} labels")
        self.paths = tuple(paths)
        self.labels_N = labels_N
        self.transforms = transforms
        self.threads = threads

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        return len(self) * _CHANNELS * self.transforms.side**2

    @property
    def files(self) -> Sequence[str]:
        return self.paths

    @property
    def augments(self) -> bool:
        return self.transforms.augments

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        positions = torch.as_tensor(indices, dtype=torch.int64).tolist()
        choices = self.transforms.choices(positions, draw)
        images_nCHW = torch.empty((len(positions), _CHANNELS, *(self.transforms.side,) * 2), dtype=torch.uint8)
        most = self.transforms.config.max_pixels

        def fill(at: int) -> None:
            images_nCHW[at] = to_tensor(self.transforms(load(self.paths[positions[at]], most), choices[at]))

        # The workers are the parallelism already; and RandAugment's generators belong to the whole process.
        threads = 1 if draw or get_worker_info() else self.threads
        for_each(fill, range(len(positions)), threads)
        return images_nCHW

    def describe(self, index: int) -> str:
        return self.paths[index]


class SelectedImages:
    """Images of a source with other labels, labels_N int64 on the CPU; `grey`: as one channel in place of three."""

    def __init__(self, source: ImageSource, labels_N: Tensor, grey: bool = False):
        self.source = source
        self.labels_N = labels_N
        self.grey = grey

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // (_CHANNELS if self.grey else 1)

    @property
    def files(self) -> Sequence[str]:
        return self.source.files

    @property
    def augments(self) -> bool:
        return self.source.augments

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        images_nCHW = self.source.read(indices, draw)
        return to_grey(images_nCHW) if self.grey else images_nCHW

    def describe(self, index: int) -> str:
        return self.source.describe(index)


def to_grey(images_n3HW: Tensor) -> Tensor:
    """The luma of colour images (ITU-R 601), to the bit as Pillow's mode L has it: uint8 [n, 1, H, W]."""
    weights_311 = torch.tensor([19595, 38470, 7471])[:, None, None]
    return ((images_n3HW.long() * weights_311).sum(dim=1, keepdim=True) + (1 << 15) >> 16).to(torch.uint8)


@dataclass(frozen=True)
class Dataset:
    """A training set, a test set that neither search nor training sees, and what both have in common.

    `image_size` is the side in pixels; `mean` and `std` are per channel, of pixels in [0, 1]; `notices` are
    one-line remarks for the user, such as "12 grey images were converted to RGB".
    """

    name: str
    train: ImageSource
    test: ImageSource
    classes: tuple[str, ...]
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notices: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes with the classes, the image size, and the number and labels of the images."""
        digest = hashlib.sha256(repr((self.name, self.classes, self.image_size)).encode())
        for source in (self.train, self.test):
            digest.update(source.labels_N.numpy().tobytes() + b"|")
        return digest.hexdigest()[:16]
