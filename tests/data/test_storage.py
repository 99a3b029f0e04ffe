"""Resident and streamed images: equal pixels, one copy, and the decision between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nge_search.data import Draw, MemoryImages, ResidentImages, StreamedImages, fits, store
from nge_search.errors import UserError
from nge_search.settings.data import DataSection

CPU = torch.device("cpu")


def test_resident_images_share_one_copy(random_images: Callable) -> None:
    source = random_images(20)
    resident = ResidentImages(source, CPU)
    assert resident.images_NCHW.data_ptr() == source.images_NCHW.data_ptr()
    images, index, _ = next(resident.batches(torch.tensor([3, 3, 19]), [(1, 3)]))
    assert index.tolist() == [3, 19]
    assert torch.equal(images, source.images_NCHW[[3, 19]])
    images.zero_()
    assert int(source.images_NCHW[3].max()) > 0


def test_resident_batches_read_nothing_back(random_images: Callable) -> None:
    """On the meta device there are no values, so any read of one to the host raises."""
    resident = ResidentImages(random_images(20), torch.device("meta"))
    shapes = [images.shape for images, *_ in resident.batches(torch.arange(7), [(0, 5), (5, 7)])]
    assert shapes == [(5, 3, 8, 8), (2, 3, 8, 8)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_images_equal_resident_ones(workers: int, random_images: Callable) -> None:
    source = random_images(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    spans = [(0, 7), (7, 7), (7, 20), (20, 50)]
    streamed = list(StreamedImages(source, CPU, workers).batches(order, spans))
    resident = list(ResidentImages(source, CPU).batches(order, spans))
    assert len(streamed) == len(resident) == 4
    for fields, expected in zip(streamed, resident):
        assert all(torch.equal(*pair) for pair in zip(fields, expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_leaves_the_global_generator_alone(workers: int, random_images: Callable) -> None:
    before = torch.get_rng_state()
    assert len(list(StreamedImages(random_images(8), CPU, workers).batches(torch.arange(8), [(0, 4), (4, 8)]))) == 2
    assert torch.equal(torch.get_rng_state(), before)


class Failing(MemoryImages):
    """A source whose image 5 cannot be read."""

    def read(self, indices: list[int], draw: Draw | None = None) -> torch.Tensor:
        if 5 in indices:
            raise UserError("cannot read image 'five.png'; replace it")
        return super().read(indices)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_one_line_in_the_main_process(workers: int, random_images: Callable) -> None:
    source = random_images(12)
    batches = StreamedImages(Failing(source.images_NCHW, source.labels_N), CPU, workers).batches(
        torch.arange(12), [(0, 4), (4, 8), (8, 12)]
    )
    assert next(batches)[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value) == "cannot read image 'five.png'; replace it"


def test_fits_follows_the_setting_and_the_memory(random_images: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_images(6000)  # 1,152,000 bytes
    small, large = DataSection(resident_megabytes=1), DataSection(resident_megabytes=2)
    assert not fits(source, small, CPU)
    assert fits(source, large, CPU)
    assert fits(source, DataSection(resident="always", resident_megabytes=1), CPU)
    assert not fits(source, DataSection(resident="never"), CPU)
    free = {"bytes": 2 * source.nbytes}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["bytes"], 10**12))
    assert fits(source, large, torch.device("cuda"))
    assert not fits(source, small, torch.device("cuda"))
    free["bytes"] -= 1
    assert not fits(source, large, torch.device("cuda"))


def test_store_makes_what_fits(random_images: Callable) -> None:
    source = random_images(4)
    assert isinstance(store(source, DataSection(resident="always"), CPU), ResidentImages)
    assert isinstance(store(source, DataSection(resident="never"), CPU), StreamedImages)
