"""The folder dataset on real CIFAR-10 and Tiny-ImageNet JPEGs, where they are at hand."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.data import load_dataset
from nge_search.settings.data import DataSection

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def extract(archive: Path, target: Path, wanted: Callable[[str], bool], enough: int | None = None) -> None:
    """Unpack the wanted members, up to `enough` of them."""
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    count = 0
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            if member.isfile() and wanted(member.name):
                tar.extract(member, target, filter="data")
                count += 1
            if count == enough:
                return


def test_cifar_jpegs(tmp_path: Path) -> None:
    names = {f"train/{kind}/{number:04}.jpg" for kind in ("airplane", "automobile") for number in range(50)}
    extract(SHARED / "cifar10" / "cifar10_jpeg.tar.xz", tmp_path, names.__contains__, enough=100)
    dataset = load_dataset(DataSection(name="folder", root=str(tmp_path)))
    assert (dataset.classes, dataset.image_size) == (("airplane", "automobile"), 32)
    assert (len(dataset.train), len(dataset.test)) == (80, 20)
    for source in (dataset.train, dataset.test):
        for path, label, image in zip(source.paths, source.labels_N.tolist(), source.read(range(len(source)))):
            assert Path(path).parent.name == dataset.classes[label]
            np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(Image.open(path)))


def test_tiny_imagenet_with_grey_images(tmp_path: Path) -> None:
    extract(SHARED / "tiny_imagenet" / "tiny_imagenet_subset.tar.xz", tmp_path, lambda name: True)
    root = tmp_path / "subset"
    dataset = load_dataset(DataSection(name="folder", root=str(root)))
    assert (len(dataset.classes), dataset.image_size) == (200, 64)
    assert (len(dataset.train), len(dataset.test)) == (5000, 1000)
    modes = []
    for path in root.glob("*/*/*"):
        with Image.open(path) as image:
            modes.append(image.mode)
    assert dataset.notices == (f"{modes.count('L')} grey images were converted to RGB",)
    assert modes.count("L") > 50
    small = load_dataset(DataSection(name="folder", root=str(root), image_size=32, limit=400))
    images = small.train.read(range(400))
    assert images.shape == (400, 3, 32, 32)
    assert np.allclose(images.double().mean((0, 2, 3)) / 255, dataset.mean, atol=0.05)
    assert np.bincount(small.train.labels_N).tolist() == [2] * 200
