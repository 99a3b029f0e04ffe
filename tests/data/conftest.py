"""Generated images and datasets that the data tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.data import Dataset, MemoryImages
from nge_search.settings.data import DataSection

WriteTree = Callable[..., Path]


@pytest.fixture
def write_tree(tmp_path: Path) -> WriteTree:
    """Write `count` random images for each class folder given, as PNG, below tmp_path; returns tmp_path."""

    def write(*folders: str, count: int = 4, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Path:
        for number, folder in enumerate(folders):
            random = np.random.default_rng([number, *folder.encode()])
            target = tmp_path / folder
            target.mkdir(parents=True, exist_ok=True)
            for position in range(count):
                pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(target / f"{position:03}.png")
        return tmp_path

    return write


@pytest.fixture
def random_images() -> Callable[..., MemoryImages]:
    """Images of random bytes, labels going round the classes."""

    def make(count: int, channels: int = 3, side: int = 8, classes: int = 5) -> MemoryImages:
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)
        return MemoryImages(images, torch.arange(count) % classes)

    return make


@pytest.fixture
def as_dataset() -> Callable[[MemoryImages, DataSection], Dataset]:
    """A dataset record around a source, with the statistics of the configured dataset."""

    def make(source: MemoryImages, config: DataSection) -> Dataset:
        channels, side = source.images_NCHW.shape[1:3]
        return Dataset(config.name, source, source, ("a", "b"), side, channels, config.facts.mean, config.facts.std)

    return make
