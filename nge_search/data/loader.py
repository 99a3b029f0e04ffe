"""Batches of images: which images make up step s of epoch e, and nothing that depends on how the run got there.

Legend: M images of a loader, B images of this rank's batch, C channels, S = H = W side in pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from nge_search.data.augmentation import Augmentation
from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.augmentation import MaskedAugmentation
from nge_search.data.storage import Span, Store
from nge_search.errors import UserError
from nge_search.keyed_random import Stream, fold, permutation

#: Batch normalisation cannot train on a single value per channel.
_FEWEST_AT_ONCE = 2


class Batch(NamedTuple):
    """This rank's part of a global batch, on the device; B may be 0 in evaluation.

    `index_B` are positions in the source; `total` counts the images of the global batch, over all ranks (in
    evaluation with those that `data.corrupt=skip` leaves out).
    """

    images_BCHW: Tensor
    labels_B: Tensor
    index_B: Tensor
    total: int

    def cut(self, pieces: int, rank: int = 0, world_size: int = 1) -> list[Batch]:
        """The parts that `pieces` times as many ranks would have got, in order."""
        first = self.total * rank // world_size
        ends = [self.total * (rank * pieces + i) // (world_size * pieces) - first for i in range(pieces + 1)]
        return [
            Batch(self.images_BCHW[a:b], self.labels_B[a:b], self.index_B[a:b], self.total)
            for a, b in pairwise(ends)
        ]


class Loader:
    """Passes over some images of a store, cut into global batches, and those into contiguous slices, one per rank.

    Training: every pass is shuffled and augmented anew by (seed, stream, epoch, round); a last, smaller batch is
    used if it holds two images for every rank, and for every part that it is cut into. Evaluation: every image
    that can be read once, in the order of `index_M`, unchanged.
    The batch of a step depends on these keys alone, so a resumed run sees what it would have seen.
    """

    def __init__(
        self,
        images: Store,
        index_M: Tensor,
        augmentation: Augmentation | MaskedAugmentation,
        *,
        batch_size: int,
        train: bool,
        seed: int = 0,
        stream: str = "",
        rank: int = 0,
        world_size: int = 1,
        pieces: int = 1,
        dtype: torch.dtype = torch.float32,
        ends: Sequence[int] = (),
    ):
        """
        Args:
            images: where the pixels are; loaders over one source share it.
            index_M: positions in the source, int64 on the CPU.
            augmentation: transforms of the dataset; its `train` part only if `train`.
            batch_size: images per step over all ranks together.
            seed, stream: keys of shuffling and augmentation; loaders with other streams draw other numbers.
            pieces: into how many parts every rank cuts its batch, to add up their gradients.
            dtype: type of the images handed out.
            ends: for evaluation, where each global batch ends in `index_M`, in place of `batch_size`.

        Raises:
            UserError: no images, or a training batch with fewer than two images per rank.
        """
        self.images = images
        self.index_M = index_M
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.stream = stream
        self.rank = rank
        self.world_size = world_size
        self.pieces = pieces
        self.dtype = dtype
        #: Steps of a pass, the same on every rank.
        self.steps = len(ends) or self._count_steps()
        count = len(index_M)
        self.ends = tuple(ends) or tuple(min((step + 1) * batch_size, count) for step in range(self.steps))

    def iterate(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of steps start .. steps - 1 of an epoch."""
        yield from self._pass(epoch, 0, start)

    def endless(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Like `iterate`, but going on with further passes, each with its own shuffle and augmentation.

        Step s is step s % steps of round s // steps; `start` may lie in a later round.
        """
        round_, step = divmod(start, self.steps)
        while True:
            yield from self._pass(epoch, round_, step)
            round_, step = round_ + 1, 0

    def _pass(self, epoch: int, round_: int, start: int) -> Iterator[Batch]:
        seed = fold(self.seed, *self.stream.encode(), round_)
        order_M = self.index_M
        if self.train:
            order_M = order_M[permutation(len(order_M), seed=seed, epoch=epoch, stream=Stream.SHUFFLE)]
        slices = [self._slice(step) for step in range(start, self.steps)]
        draw = Draw(seed, epoch) if self.train else None
        batches = self.images.batches(order_M, [span for span, _ in slices], draw)
        for (raw_BCHW, index_B, host_index_B), (_, total) in zip(batches, slices):
            with _one_thread(raw_BCHW.device):
                if self.train:
                    images_BCHW = self.augmentation.train(
                        raw_BCHW, index_B, seed=seed, epoch=epoch, dtype=self.dtype, host_index_B=host_index_B
                    )
                else:
                    images_BCHW = self.augmentation.evaluate(raw_BCHW, dtype=self.dtype)
            yield Batch(images_BCHW, self.images.labels_N[index_B], index_B, total)

    def _slice(self, step: int) -> tuple[Span, int]:
        """This rank's (start, end) in the order at a step, and the size of the global batch."""
        first = self.ends[step - 1] if step else 0
        total = self.ends[step] - first
        start = first + total * self.rank // self.world_size
        end = first + total * (self.rank + 1) // self.world_size
        return (start, end), total

    def _count_steps(self) -> int:
        count = len(self.index_M)
        if count == 0:
            raise UserError("there are no images to read; check data.limit and data.valid_fraction")
        whole, rest = divmod(count, self.batch_size)
        if not self.train:
            return whole + (rest > 0)
        fewest = _FEWEST_AT_ONCE * self.world_size * self.pieces
        if min(self.batch_size, count) < fewest:
            parts = f" and {self.pieces} parts each (train.accumulate)" if self.pieces > 1 else ""
            raise UserError(
                f"batches of {self.batch_size} out of {count} training images are too small for {self.world_size} "
                f"processes{parts}, which need {fewest} per step; set a larger batch_size or start fewer processes"
            )
        return whole + (rest >= fewest)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU the workers have the other cores: threads that wait for each other would wait for them, too."""
    if device.type != "cpu":
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in less than a microsecond
    try:
        yield
    finally:
        torch.set_num_threads(threads)
