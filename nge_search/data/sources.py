"""What a dataset is made of: sources of images, in memory or in files, and the record that joins them.

Legend: N images of a source, n images read at once, C channels, S = H = W side in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from nge_search.data.decoding import decode_all


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

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images at these positions: uint8 [n, C, S, S] on the CPU; UserError where a file cannot be read."""
        ...


class MemoryImages:
    """Images that are already decoded: images_NCHW uint8 and labels_N int64, both on the CPU."""

    def __init__(self, images_NCHW: Tensor, labels_N: Tensor):
        if len(images_NCHW) != len(labels_N):
            raise ValueError(f"{len(images_NCHW)} images but {len(labels_N)} labels")
        self.images_NCHW = images_NCHW
        self.labels_N = labels_N

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def nbytes(self) -> int:
        return self.images_NCHW.nbytes

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.images_NCHW[torch.as_tensor(indices, dtype=torch.int64)]


class FileImages:
    """Images in files, decoded on every read: `paths` and labels_N are parallel, `side` is that of the result."""

    def __init__(self, paths: Sequence[str], labels_N: Tensor, side: int, threads: int):
        if len(paths) != len(labels_N):
            raise ValueError(f"{len(paths)} files but {len(labels_N)} labels")
        self.paths = tuple(paths)
        self.labels_N = labels_N
        self.side = side
        self.threads = threads

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        return len(self) * 3 * self.side**2

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        threads = 1 if get_worker_info() else self.threads  # the workers are the parallelism already
        return decode_all([self.paths[index] for index in torch.as_tensor(indices).tolist()], self.side, threads)


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
