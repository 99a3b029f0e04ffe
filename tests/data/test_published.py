"""ImageNet and Tiny-ImageNet: their layout, number of classes and sizes, and that loading opens no files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.data import Augmentation, Loader, load_dataset, store
from nge_search.doctor import examine
from nge_search.errors import UserError
from nge_search.settings.data import DATASETS, DataSection

CPU = torch.device("cpu")


@pytest.fixture
def write_classes(tmp_path: Path) -> Callable[..., Path]:
    """Folders `n0000`, ... of so many classes in train/ and val/, with two links each to one image."""

    def write(train: int, val: int | None = None, size: tuple[int, int] = (20, 15)) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.jpg")
        for part, count in (("train", train), ("val", train if val is None else val)):
            for number in range(count):
                folder = tmp_path / "root" / part / f"n{number:04}"
                folder.mkdir(parents=True)
                for name in ("0.JPEG", "1.JPEG"):
                    (folder / name).symlink_to(tmp_path / "image.jpg")
        return tmp_path / "root"

    return write


def refusal(root: Path, name: str = "tiny_imagenet", **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(DataSection(name=name, root=str(root), **settings))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_imagenet_has_crops_of_224_and_opens_nothing(write_classes: Callable) -> None:
    root = write_classes(1000)
    (root / "test").mkdir()
    shutil.copy(root.parent / "image.jpg", root / "test/unlabelled.JPEG")
    (root.parent / "image.jpg").write_bytes(b"damaged")
    dataset = load_dataset(DataSection(name="imagenet", root=str(root)))
    assert (len(dataset.classes), dataset.classes[7], dataset.image_size) == (1000, "n0007", 224)
    assert (len(dataset.train), len(dataset.test), dataset.notices) == (2000, 2000, ())
    assert dataset.train.augments
    assert str(root / "val/n0000/0.JPEG") == dataset.test.paths[0]
    assert examine(root)["datasets"]["imagenet"]
    small = load_dataset(DataSection(name="imagenet", root=str(root), image_size=32, limit=2000))
    assert small.image_size == 32


def test_imagenet_trains_on_crops_and_evaluates_centres(write_classes: Callable) -> None:
    config = DataSection(
        name="imagenet", root=str(write_classes(1000)), image_size=12, resize=14, workers=0, resident_megabytes=1
    )
    dataset = load_dataset(config)
    augmentation = Augmentation(config, dataset)
    train, test = (
        Loader(store(source, config, CPU), torch.arange(8), augmentation, batch_size=8, train=augments)
        for source, augments in ((dataset.train, True), (dataset.test, False))
    )
    (batch,), (evaluated,) = train.iterate(0), test.iterate(0)
    assert batch.images_BCHW.shape == evaluated.images_BCHW.shape == (8, 3, 12, 12)
    assert len(batch.images_BCHW.unique(dim=0)) == 8
    assert len(evaluated.images_BCHW.unique(dim=0)) == 1


def test_tiny_imagenet_has_64_pixels(write_classes: Callable) -> None:
    dataset = load_dataset(DataSection(name="tiny_imagenet", root=str(write_classes(200)), limit=400))
    assert (len(dataset.classes), dataset.image_size, len(dataset.train)) == (200, 64, 400)
    assert dataset.mean == DATASETS["tiny_imagenet"].mean
    assert not dataset.train.augments
    assert dataset.train.read([5]).shape == (1, 3, 64, 64)
    assert examine(dataset_root := Path(dataset.train.paths[0]).parents[2])["datasets"]["tiny_imagenet"]
    assert "imagenet" not in examine(dataset_root)["datasets"]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (3, 3, "train/ has 3 classes and val/ 3; data.name=tiny_imagenet has 200"),
        (201, 201, "train/ has 201 classes and val/ 201; data.name=tiny_imagenet has 200"),
        (
            200,
            195,
            "train/ has 200 classes and val/ 195; data.name=tiny_imagenet has 200 "
            "(val/ lacks class 'n0195', 'n0196', 'n0197' and 2 more)",
        ),
        (
            199,
            200,
            "train/ has 199 classes and val/ 200; data.name=tiny_imagenet has 200 (train/ lacks class 'n0199')",
        ),
    ],
)
def test_other_numbers_of_classes_are_refused(train: int, val: int, message: str, write_classes: Callable) -> None:
    assert refusal(write_classes(train, val)) == f"data.root: {message}"


def test_missing_parts_are_refused(write_classes: Callable) -> None:
    root = write_classes(2)
    shutil.rmtree(root / "val")
    assert "holds no val/; data.name=tiny_imagenet needs train/ and val/" in refusal(root)
    (root / "train").rename(root / "images")
    assert "holds no train/; data.name=imagenet needs train/ and val/" in refusal(root, "imagenet")
    assert "limit=300: too few for 200 classes" in refusal(write_classes_again(root), limit=300)


def write_classes_again(root: Path) -> Path:
    """Tiny-ImageNet's number of classes, each with what the first had."""
    for part in ("train", "val"):
        for number in range(200):
            shutil.copytree(root / "images/n0000", root / part / f"n{number:04}", symlinks=True)
    return root
