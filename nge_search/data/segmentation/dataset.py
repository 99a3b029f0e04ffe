"""Images with a class for every pixel: what a source of them gives, and the record that joins two of them.

Image and mask travel as one uint8 tensor of four channels, R, G, B and class, so that stores and loaders treat them
as they treat any image. Legend: N images of a source, n images read at once, H and W sides in pixels, K classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from nge_search.data.sources import ImageSource

#: The class of pixels that count neither in training nor in evaluation (PASCAL VOC's "void").
IGNORED = 255


class MaskedSource(ImageSource, Protocol):
    """Images with masks that can be read by position: uint8 [n, 4, H, W].

    `labels_N` are zeros: such an image has no class of its own. With a draw all images are read in one size; those
    read together without, as they are, must be of one size. A mask that does not fit its image, or has values that
    are no classes, is a UserError.
    """

    #: Height and width in pixels, int64 [N, 2] on the CPU.
    sizes_N2: Tensor

    def read_mask(self, index: int) -> Tensor:
        """The classes of an image, without its colours: uint8 [H, W] on the CPU."""
        ...


@dataclass(frozen=True)
class MaskedDataset:
    """A training set and a validation set of images with masks.

    `classes` names the K values of a mask, the background first; `mean` and `std` are per colour, of pixels in
    [0, 1]; `notices` are one-line remarks for the user.
    """

    name: str
    train: MaskedSource
    test: MaskedSource
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notices: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes with the classes, and with the number, names and sizes of the images."""
        digest = hashlib.sha256(repr((self.name, self.classes)).encode())
        for source in (self.train, self.test):
            names = "\n".join(source.describe(i).rpartition("/")[2] for i in range(len(source)))
            digest.update(
                names.encode("utf-8", "surrogateescape") + b"|" + source.sizes_N2.numpy().tobytes() + b"|"
            )
        return digest.hexdigest()[:16]
