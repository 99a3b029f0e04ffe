"""Where images are while a run reads them: all on the device, or streamed by worker processes.

Both stores hand out the same raw pixels in the same order, so what trains does not depend on the choice. One store
serves any number of feeds.

Legend: N images of a source, M of an order, b of a batch, C channels, S = H = W side in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nge_search.data.sources import ImageSource, MemoryImages
from nge_search.errors import UserError
from nge_search.schema import DataConfig

_MEGABYTE = 10**6

#: Start and end of a batch in an order.
Span = tuple[int, int]


class Store(Protocol):
    """Images that can be handed out in any order on one device."""

    device: torch.device
    #: int64 [N] on the device.
    labels_N: Tensor

    def batches(self, order_M: Tensor, spans: Sequence[Span]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each span, (images uint8 [b, C, S, S], their positions in the source int64 [b]), on the device.

        `order_M` is int64 on the CPU. Raises UserError where a file cannot be read.
        """
        ...


class ResidentImages:
    """All images of a source on the device as uint8: one copy, made here, and no host sync per batch."""

    def __init__(self, source: ImageSource, device: torch.device):
        whole = isinstance(source, MemoryImages)
        images_NCHW = source.images_NCHW if whole else source.read(range(len(source)))
        self.device = device
        self.images_NCHW = images_NCHW.to(device)
        self.labels_N = source.labels_N.to(device)

    def batches(self, order_M: Tensor, spans: Sequence[Span]) -> Iterator[tuple[Tensor, Tensor]]:
        order_M = order_M.to(self.device)
        for start, end in spans:
            index_b = order_M[start:end]
            yield self.images_NCHW[index_b], index_b


class StreamedImages:
    """Images that `workers` processes (0: this one) read ahead of their use, batch by batch."""

    def __init__(self, source: ImageSource, device: torch.device, workers: int):
        self.device = device
        self.labels_N = source.labels_N.to(device)
        self._reader = _Reader(source)
        self._workers = workers

    def batches(self, order_M: Tensor, spans: Sequence[Span]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            self._reader,
            batch_size=None,
            sampler=[order_M[start:end].tolist() for start, end in spans],
            num_workers=self._workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_own_session,
            generator=torch.Generator(),  # otherwise it draws from the global one and changes what follows
        )
        order_M = order_M.to(self.device)
        for images, (start, end) in zip(loader, spans):  # loader first, so that it ends its workers
            if isinstance(images, str):
                raise UserError(images)
            yield images.to(self.device, non_blocking=True), order_M[start:end]


def _own_session(_: int) -> None:
    """A signal to the run's process group must not end the workers before the run has saved its state."""
    os.setsid()


class _Reader(TorchDataset):
    """Reads a batch in a worker. An error comes back as its text: raised there, it would arrive as a traceback."""

    def __init__(self, source: ImageSource):
        self._source = source

    def __getitem__(self, indices: list[int]) -> Tensor | str:
        try:
            return self._source.read(indices)
        except UserError as error:
            return str(error)


def fits(source: ImageSource, config: DataConfig, device: torch.device) -> bool:
    """Whether `data.resident` wants `source` on the device.

    auto: at most `data.resident_megabytes` (10^6 bytes each), and on a GPU at most half of its free memory.
    """
    if config.resident != "auto":
        return config.resident == "always"
    if source.nbytes > config.resident_megabytes * _MEGABYTE:
        return False
    return device.type != "cuda" or source.nbytes <= torch.cuda.mem_get_info(device)[0] // 2


def store(source: ImageSource, config: DataConfig, device: torch.device) -> ResidentImages | StreamedImages:
    """The store that `data.resident` asks for. Make one per source and give it to all its feeds."""
    if fits(source, config, device):
        return ResidentImages(source, device)
    return StreamedImages(source, device, config.workers)
