"""Batched augmentation against a per-image NumPy transcription of DARTS' transforms, and its distributions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from nge_search.data import Augmentation
from nge_search.data.augmentation import crop, cut_out
from nge_search.keyed_random import Stream, integers
from nge_search.settings.data import DataSection

CASES = [
    DataSection(name="cifar10", cutout=4),
    DataSection(name="cifar10", cutout=5, crop_padding=2, flip=False),
    DataSection(name="cifar10", crop_padding=7, cutout=16),
    DataSection(name="cifar10", crop_padding=0, flip=True, cutout=1),
    DataSection(name="digits", cutout=2),
    DataSection(name="digits", crop_padding=0),
]


def slow_train(image: np.ndarray, config: DataSection, draws: dict[str, int]) -> np.ndarray:
    """One image, C x S x S uint8, through crop, flip, scaling, normalisation and cutout, as DARTS does it."""
    channels, side, _ = image.shape
    padding = config.crop_for(side)
    padded = np.zeros((channels, side + 2 * padding, side + 2 * padding), np.uint8)
    padded[:, padding : padding + side, padding : padding + side] = image
    top, left = divmod(draws["crop"], 2 * padding + 1)
    image = padded[:, top : top + side, left : left + side]
    if config.use_flip and draws["flip"]:
        image = image[:, :, ::-1]
    result = image.astype(np.float64) / 255
    for channel in range(channels):
        result[channel] = (result[channel] - config.facts.mean[channel]) / config.facts.std[channel]
    if config.cutout:
        y, x = divmod(draws["cutout"], side)
        y1, y2 = np.clip(y - config.cutout // 2, 0, side), np.clip(y + config.cutout // 2, 0, side)
        x1, x2 = np.clip(x - config.cutout // 2, 0, side), np.clip(x + config.cutout // 2, 0, side)
        result[:, y1:y2, x1:x2] = 0
    return result


@pytest.mark.parametrize("config", CASES)
@pytest.mark.parametrize("side", [8, 9])
def test_equals_slow_transcription(
    config: DataSection, side: int, random_images: Callable, as_dataset: Callable
) -> None:
    source = random_images(60, channels=config.facts.channels, side=side)
    augmentation = Augmentation(config, as_dataset(source, config))
    index = torch.arange(1000, 1060)
    seed, epoch = 11, 4
    padding = config.crop_for(side)
    draws = {
        "crop": integers(index, (2 * padding + 1) ** 2, seed=seed, epoch=epoch, stream=Stream.CROP),
        "flip": integers(index, 2, seed=seed, epoch=epoch, stream=Stream.FLIP),
        "cutout": integers(index, side**2, seed=seed, epoch=epoch, stream=Stream.CUTOUT),
    }
    result = augmentation.train(source.images_NCHW, index, seed=seed, epoch=epoch, dtype=torch.float64)
    for position, image in enumerate(source.images_NCHW.numpy()):
        expected = slow_train(image, config, {kind: int(values[position]) for kind, values in draws.items()})
        np.testing.assert_array_equal(result[position].numpy(), expected)
    narrow = augmentation.train(source.images_NCHW, index, seed=seed, epoch=epoch)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), result, rtol=0, atol=1e-6)


def test_evaluate_only_normalises(random_images: Callable, as_dataset: Callable) -> None:
    config = DataSection(name="cifar10", cutout=8)
    source = random_images(5, side=8)
    before = source.images_NCHW.clone()
    result = Augmentation(config, as_dataset(source, config)).evaluate(source.images_NCHW, dtype=torch.float64)
    mean, std = (np.array(values)[:, None, None] for values in (config.facts.mean, config.facts.std))
    np.testing.assert_array_equal(result.numpy(), (before.numpy() / 255 - mean) / std)
    assert torch.equal(source.images_NCHW, before)


def test_crop_and_cut_out_reach_every_place() -> None:
    """All 25 windows of a 3x3 image padded by 2, and all 16 squares of a 4x4 image, by hand."""
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    windows = crop(image.expand(25, 1, 3, 3), torch.arange(25), 2)
    assert windows[0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert windows[12, 0].tolist() == image[0, 0].tolist()
    assert windows[14, 0].tolist() == [[3, 0, 0], [6, 0, 0], [9, 0, 0]]
    assert windows[24, 0].tolist() == [[9, 0, 0], [0, 0, 0], [0, 0, 0]]
    left = cut_out(torch.ones(16, 1, 4, 4), torch.arange(16), 2)[:, 0]
    assert left[0].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert left[5].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert left[15].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_result_depends_on_key_and_position_not_on_the_batch(random_images: Callable, as_dataset: Callable) -> None:
    config = DataSection(name="cifar10", cutout=4)
    source = random_images(200)
    augmentation = Augmentation(config, as_dataset(source, config))

    def result(index: torch.Tensor, seed: int = 1, epoch: int = 2) -> torch.Tensor:
        return augmentation.train(source.read(index), index, seed=seed, epoch=epoch)

    whole = result(torch.arange(200))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(result(order), whole[order])
    assert torch.equal(torch.cat([result(part) for part in torch.arange(200).split(7)]), whole)
    assert result(torch.arange(0)).shape == (0, 3, 8, 8)
    for changed in (result(torch.arange(200), seed=2), result(torch.arange(200), epoch=3)):
        assert not torch.equal(changed, whole)


def test_crops_and_flips_are_uniform_and_independent(random_images: Callable, as_dataset: Callable) -> None:
    """Read row offset, column offset and flip back from the pixels of an image whose pixels are all different."""
    count, side, padding = 36_000, 8, 1
    config = DataSection(name="cifar10", crop_padding=padding)
    source = random_images(1, side=side)
    augmentation = Augmentation(config, as_dataset(source, config))
    pixels = torch.arange(side * side, dtype=torch.uint8).view(1, 1, side, side).expand(count, 3, side, side)
    result = augmentation.train(pixels, torch.arange(count), seed=0, epoch=0, dtype=torch.float64)[:, 0]
    raw = ((result * config.facts.std[0] + config.facts.mean[0]) * 255).round().long()
    flip = (raw[:, 4, 5] < raw[:, 4, 4]).long()
    rows = raw[:, 4, 4] // side - 4 + padding
    columns = torch.where(flip.bool(), raw[:, 4, 3], raw[:, 4, 4]) % side - 4 + padding
    counts = np.bincount(6 * rows + 2 * columns + flip, minlength=18)
    assert len(counts) == 18
    assert stats.chisquare(counts).pvalue > 1e-4


def test_cutout_centres_are_uniform(random_images: Callable, as_dataset: Callable) -> None:
    """Read the centre back from the rows and columns that are zero, which differ for every centre."""
    count, side = 32_000, 8
    config = DataSection(name="cifar10", crop_padding=0, flip=False, cutout=4)
    source = random_images(1, side=side)
    augmentation = Augmentation(config, as_dataset(source, config))
    white = torch.full((count, 3, side, side), 255, dtype=torch.uint8)
    zero = augmentation.train(white, torch.arange(count), seed=3, epoch=1)[:, 0] == 0
    rows, columns = zero.any(2), zero.any(1)
    centre_of = {tuple(max(0, y - 2) <= row < y + 2 for row in range(side)): y for y in range(side)}
    assert len(centre_of) == side
    centres = [
        side * centre_of[tuple(row)] + centre_of[tuple(column)]
        for row, column in zip(rows.tolist(), columns.tolist())
    ]
    assert stats.chisquare(np.bincount(centres, minlength=side * side)).pvalue > 1e-4


def test_reads_nothing_back_from_the_device(random_images: Callable, as_dataset: Callable) -> None:
    """On the meta device there are no values, so any read of one to the host raises."""
    config = DataSection(name="cifar10", cutout=4)
    source = random_images(1)
    augmentation = Augmentation(config, as_dataset(source, config))
    images = torch.empty((6, 3, 8, 8), dtype=torch.uint8, device="meta")
    index = torch.empty(6, dtype=torch.int64, device="meta")
    result = augmentation.train(images, index, seed=0, epoch=0)
    assert result.device.type == "meta"
    assert result.shape == (6, 3, 8, 8)
