"""Where images are while a run reads them: all on the device, or streamed by worker processes.

Both stores hand out the same raw pixels in the same order, so what trains does not depend on the choice. One store
serves any number of loaders. Images that a training pass augments one by one are always streamed.

With `data.corrupt=skip`, an image that cannot be read is left out of evaluation; in training the next readable
one, by position in the source, of the images that the pass is over takes its place.

Legend: N images of a source, M of an order, b of a batch, C channels, S = H = W side in pixels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import chain, islice
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from nge_search.data.image_transforms import Draw
from nge_search.data.sources import ImageSource, MemoryImages
from nge_search.data.workers import from_workers, glance, own_session, share
from nge_search.errors import UserError
from nge_search.settings.data import DataSection
from nge_search.settings.segmentation import MaskedDataSection

_MEGABYTE = 10**6
_READ_AT_ONCE = 256
#: Batches that each worker reads ahead.
_AHEAD = 4

Read = TypeVar("Read")

#: Start and end of a batch in an order.
Span = tuple[int, int]


class Raw(NamedTuple):
    """A batch before `Augmentation`: images_bCHW uint8 and their positions in the source, int64.

    `index_b` is on the device and `host_index_b` on the CPU, so that neither side ever waits for the other.
    """

    images_bCHW: Tensor
    index_b: Tensor
    host_index_b: Tensor


class Store(Protocol):
    """Images that can be handed out in any order on one device."""

    device: torch.device
    #: int64 [N] on the device.
    labels_N: Tensor
    #: What was skipped so far on this rank: which image, and why.
    unreadable: dict[str, str]

    def batches(self, order_M: Tensor, spans: Sequence[Span], draw: Draw | None = None) -> Iterator[Raw]:
        """The images of each span of `order_M` (int64 on the CPU), on the device; `draw` is given in training.

        Raises UserError where a file cannot be read, or with `data.corrupt=skip` if none can.
        """
        ...


class ResidentImages:
    """All images of a source on the device as uint8: one copy, made here, and no host sync per batch."""

    def __init__(self, source: ImageSource, device: torch.device, skip: bool = False):
        if source.augments:
            raise ValueError("images that are augmented one by one cannot be resident")
        self.device = device
        self.labels_N = source.labels_N.to(device)
        self.unreadable: dict[str, str] = {}
        self._readable_N: Tensor | None = None
        if isinstance(source, MemoryImages):
            images_NCHW = source.images_NCHW
        elif skip:
            images_NCHW = self._read_readable(source)
        else:
            images_NCHW = source.read(range(len(source)))
        self.images_NCHW = images_NCHW.to(device)

    def batches(self, order_M: Tensor, spans: Sequence[Span], draw: Draw | None = None) -> Iterator[Raw]:
        readable_N = self._readable_N
        if readable_N is not None and draw is not None:
            order_M, readable_N = _with_stand_ins(order_M, readable_N), None
        device_order_M = order_M.to(self.device)
        for start, end in spans:
            host_index_b, index_b = order_M[start:end], device_order_M[start:end]
            if readable_N is not None:
                host_index_b = host_index_b[readable_N[host_index_b]]
                index_b = host_index_b.to(self.device)
            yield Raw(self.images_NCHW[index_b], index_b, host_index_b)

    def _read_readable(self, source: ImageSource) -> Tensor:
        """All images [N, C, S, S], zero where they cannot be read; notes which ones can."""
        images_NCHW = source.read([]).new_zeros(0)
        readable_N = torch.ones(len(source), dtype=torch.bool)
        for positions in torch.arange(len(source)).split(_READ_AT_ONCE):
            reading = _read(source, positions.tolist(), None, None)
            if not len(images_NCHW):
                images_NCHW = torch.zeros((len(source), *reading.images_bCHW.shape[1:]), dtype=torch.uint8)
            if reading.unreadable:
                self.unreadable.update(reading.unreadable)
                readable_N[positions] = False
                positions = torch.tensor(reading.positions, dtype=torch.int64)
                readable_N[positions] = True
            images_NCHW[positions] = reading.images_bCHW
        if self.unreadable:
            self._readable_N = readable_N
            if not readable_N.any():
                raise _nothing_readable(self.unreadable)
        return images_NCHW


class StreamedImages:
    """Images that `workers` processes (0: this one) read ahead of their use, batch by batch.

    They are waited for `patience` seconds; `from_workers` says what is raised then.
    """

    def __init__(
        self, source: ImageSource, device: torch.device, workers: int, skip: bool = False, patience: float = 1800.0
    ):
        self.device = device
        self.labels_N = source.labels_N.to(device)
        self.unreadable: dict[str, str] = {}
        self._source = source
        self._workers = workers
        self._skip = skip
        self._patience = patience

    def batches(self, order_M: Tensor, spans: Sequence[Span], draw: Draw | None = None) -> Iterator[Raw]:
        reader = _Reader(self._source, order_M, draw, self._skip)
        loader = DataLoader(
            reader,
            batch_size=None,
            sampler=spans,
            num_workers=self._workers,
            prefetch_factor=_AHEAD if self._workers else None,
            pin_memory=self.device.type == "cuda",
            collate_fn=_as_it_is,
            timeout=glance(self._workers),
            worker_init_fn=own_session,
            generator=torch.Generator(),  # otherwise it draws from the global one and changes what follows
        )
        device_order_M = order_M.to(self.device)
        asked_for = read = 0
        with closing(from_workers(loader, self._patience)) as readings:
            for reading, (start, end) in zip(readings, spans):  # readings first, so that they end their workers
                if isinstance(reading, str):
                    raise UserError(reading)
                host_index_b, index_b = order_M[start:end], device_order_M[start:end]
                if reading.unreadable:
                    self.unreadable.update(reading.unreadable)
                    host_index_b = torch.tensor(reading.positions, dtype=torch.int64)
                    index_b = host_index_b.to(self.device)
                asked_for, read = asked_for + end - start, read + len(host_index_b)
                yield Raw(reading.images_bCHW.to(self.device, non_blocking=True), index_b, host_index_b)
        if asked_for and not read:
            reader.require_one()


def _as_it_is(reading: Read) -> Read:
    return reading


class _Reading(NamedTuple):
    """What was read; `positions` and `unreadable`, (image, reason) each, only where something could not be read."""

    images_bCHW: Tensor
    positions: tuple[int, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


class _Reader(TorchDataset):
    """Reads a batch in a worker. An error comes back as its text: raised there, it would arrive as a traceback."""

    def __init__(self, source: ImageSource, order_M: Tensor, draw: Draw | None, skip: bool):
        self._source = source
        self._order_M = order_M
        self._draw = draw
        self._skip = skip

    def __getitem__(self, span: Span) -> _Reading | str:
        positions = self._order_M[slice(*span)].tolist()
        try:
            if self._skip:
                reading = _read(self._source, positions, self._draw, self if self._draw else None)
            else:
                reading = _Reading(self._source.read(positions, self._draw))
            if get_worker_info():
                share(reading.images_bCHW)
        except UserError as error:
            return str(error)
        return reading

    def after(self, position: int) -> Iterator[int]:
        """The order's images that follow a position in the source, and then, from the first, those before it."""
        at = bisect_right(self._sorted_M, position)
        return chain(islice(self._sorted_M, at, None), islice(self._sorted_M, at))

    @cached_property
    def _sorted_M(self) -> list[int]:
        return self._order_M.sort().values.tolist()

    def require_one(self) -> None:
        """Raise UserError unless some image of the order can be read."""
        _read(self._source, self._order_M[:1].tolist(), None, self)


def _read(source: ImageSource, positions: list[int], draw: Draw | None, stand_ins: _Reader | None) -> _Reading:
    """Read what can be read of `positions`, or in place of each the first one that can be `after` it, if given.

    Raises:
        UserError: no stand-in can be read either.
    """
    try:
        return _Reading(source.read(positions, draw))
    except UserError:
        return _read_each(source, positions, draw, stand_ins)


def _read_each(source: ImageSource, positions: list[int], draw: Draw | None, stand_ins: _Reader | None) -> _Reading:
    """`_read` image by image, to learn which ones cannot be read."""
    images, taken, unreadable = [source.read([])], [], {}
    for position in positions:
        for candidate in chain([position], stand_ins.after(position) if stand_ins else []):
            name = source.describe(candidate)
            if name in unreadable:
                continue
            try:
                images.append(source.read([candidate], draw))
            except UserError as error:
                unreadable[name] = str(error)
            else:
                taken.append(candidate)
                break
        else:
            if stand_ins:
                raise _nothing_readable(unreadable)
    return _Reading(torch.cat(images), tuple(taken), tuple(unreadable.items()))


def _with_stand_ins(order_M: Tensor, readable_N: Tensor) -> Tensor:
    """`order_M` with the next readable image of it, by position, in place of each that is not readable."""
    choices = order_M[readable_N[order_M]].sort().values
    if not len(choices):
        raise UserError("none of the images that this pass is over can be read; check data.root")
    at_M = torch.searchsorted(choices, order_M) % len(choices)
    return choices[at_M]


def _nothing_readable(unreadable: dict[str, str]) -> UserError:
    reason = next(iter(unreadable.values()))
    return UserError(f"none of {len(unreadable)} images can be read; the first: {reason}")


def fits(source: ImageSource, config: DataSection | MaskedDataSection, device: torch.device) -> bool:
    """Whether `data.resident` wants `source` on the device; never if training augments its images one by one.

    auto: at most `data.resident_megabytes` (10^6 bytes each), and on a GPU at most half of its free memory.
    """
    if source.augments:
        return False
    if config.resident != "auto":
        return config.resident == "always"
    if source.nbytes > config.resident_megabytes * _MEGABYTE:
        return False
    return device.type != "cuda" or source.nbytes <= torch.cuda.mem_get_info(device)[0] // 2


def store(
    source: ImageSource, config: DataSection, device: torch.device, patience: float = 1800.0
) -> ResidentImages | StreamedImages:
    """The store that `data.resident` asks for, whose workers are waited for `patience` seconds.

    Make one per source and give it to all its loaders.
    """
    skip = config.corrupt == "skip"
    if fits(source, config, device):
        return ResidentImages(source, device, skip)
    return StreamedImages(source, device, config.workers, skip, patience)
