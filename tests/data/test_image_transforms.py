"""Augmentation of single images against torchvision and timm, its distributions, and what it depends on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import CenterCrop, ColorJitter, RandomResizedCrop, Resize, functional

from nge_search.data import (
    Augmentation,
    Batch,
    Draw,
    FileImages,
    ImageTransforms,
    Loader,
    ResidentImages,
    load_dataset,
    store,
)
from nge_search.data.decoding import load, to_image, to_tensor
from nge_search.data.image_transforms import Box, centre, crop_box, jitter, resized_crop
from nge_search.errors import UserError
from nge_search.native import hue
from nge_search.settings.data import DataSection

CPU = torch.device("cpu")
DRAW = Draw(3, 1)
ALL = {"crop": "resized", "jitter": 0.4, "hue": 0.2, "rand_augment": "rand-m9-n2-mstd0.5-inc1", "image_size": 10}

WriteTree = Callable[..., Path]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def boxes(width: int, height: int, count: int, min_area: float = 0.08) -> list[Box]:
    transforms = ImageTransforms(DataSection(name="folder", crop="resized"), 8, True)
    return [crop_box(width, height, min_area, choice.crop) for choice in transforms.choices(range(count), DRAW)]


@pytest.mark.parametrize("side", [7, 16, 40])
@pytest.mark.parametrize("size", [(40, 30), (30, 40), (16, 16), (9, 60)])
def test_resized_crop_is_torchvisions(size: tuple[int, int], side: int) -> None:
    image = noise(*size)
    for box in boxes(*size, 40):
        expected = functional.resized_crop(image, *box, [side, side])
        np.testing.assert_array_equal(resized_crop(image, box, side), expected)


@pytest.mark.parametrize("size", [(500, 375), (120, 200), (64, 64)])
def test_rectangles_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    count = 3000
    own = torch.tensor(boxes(*size, count))
    torch.manual_seed(0)
    image = Image.new("RGB", size)
    other = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(count)])
    for name, of in {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
    }.items():
        assert stats.ks_2samp(of(own).numpy(), of(other).numpy()).pvalue > 1e-3, name
    assert (own[:, 0] + own[:, 2] <= size[1]).all()
    assert (own[:, 1] + own[:, 3] <= size[0]).all()


@pytest.mark.parametrize("size", [(400, 20), (20, 400), (40, 30), (41, 30), (30, 41), (33, 33)])
def test_after_ten_tries_the_centre_is_taken(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision finds no rectangle either where every area that it draws is too large."""
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.fill_(high * 3))
    expected = RandomResizedCrop.get_params(Image.new("RGB", size), [1.0, 1.0], [3 / 4, 4 / 3])
    assert crop_box(*size, 3.0, [0.999, 0.5, 0.1, 0.1] * 10) == expected


def test_numbers_at_their_ends_stay_inside() -> None:
    for number in (0.0, 1 - 2**-53):
        top, left, height, width = crop_box(37, 53, 0.01, [0.3, 0.5, number, number])
        assert (top, left) == ((0, 0) if number == 0 else (53 - height, 37 - width))


def recorded(name: str, applied: list[str]) -> Callable[..., Image.Image]:
    """The adjustment of this name, which notes that it was applied."""
    adjust = hue.shift_hue if name == "hue" else getattr(functional, f"adjust_{name}")

    def record(image: Image.Image, factor: float) -> Image.Image:
        applied.append(name)
        return adjust(image, factor)

    return record


def test_jitter_applies_torchvisions_steps_in_every_order() -> None:
    image = noise(20, 15)
    names = ("brightness", "contrast", "saturation", "hue")
    results, orders = set(), set()
    for number in range(24):
        numbers = [(number + 0.5) / 24, 0.1, 0.9, 0.3, 0.8]
        factors = [0.6 + 0.8 * 0.1, 0.6 + 0.8 * 0.9, 0.6 + 0.8 * 0.3, 0.2 * 0.6]
        applied: list[str] = []
        expected = image
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                owner = (hue, "shift_hue") if name == "hue" else (functional, f"adjust_{name}")
                patch.setattr(*owner, recorded(name, applied))
            result = jitter(image, 0.4, 0.2, numbers)
        for name in applied:
            expected = getattr(functional, f"adjust_{name}")(expected, factors[names.index(name)])
        np.testing.assert_array_equal(result, expected)
        orders.add(tuple(applied))
        results.add(result.tobytes())
    assert len(orders) == 24
    assert len(results) > 12


def test_jitter_is_distributed_as_torchvisions() -> None:
    """Mean colours of a flat image after many jitters; the factors of 1.5 reach below 0, where they stop."""
    image = Image.new("RGB", (2, 2), (160, 90, 60))
    transforms = ImageTransforms(DataSection(name="folder", jitter=1.5, hue=0.1), 2, True)
    own = np.array([np.asarray(transforms(image, c))[0, 0] for c in transforms.choices(range(2000), DRAW)])
    torch.manual_seed(0)
    other = ColorJitter(1.5, 1.5, 1.5, 0.1)
    expected = np.array([np.asarray(other(image))[0, 0] for _ in range(2000)])
    for channel in range(3):
        assert stats.ks_2samp(own[:, channel], expected[:, channel]).pvalue > 1e-3


@pytest.mark.parametrize("turns", [0.0, 0.2, -0.2, 0.5, -0.5, 0.0041, 0.317])
def test_shifted_hues_are_torchvisions(turns: float) -> None:
    """Of every third value of each channel with all others, greys and the ends of the scale included."""
    values = np.arange(0, 256, 3, dtype=np.uint8)
    pixels = np.stack(np.meshgrid(values, values, values), axis=-1).reshape(len(values), -1, 3)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(hue.shift_hue(image, turns), functional.adjust_hue(image, turns))


def test_jitter_without_hue_leaves_hue_alone_and_the_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(8, 8)
    numbers = [0.3, 0.1, 0.9, 0.3, 0.8]
    monkeypatch.setattr(hue, "shift_hue", None)
    jitter(image, 0.4, 0.0, numbers)
    monkeypatch.undo()
    np.testing.assert_array_equal(jitter(image, 0.0, 0.5, numbers), functional.adjust_hue(image, 0.5 * 0.6))


@pytest.mark.parametrize("size", [(40, 30), (24, 31), (12, 12)])
def test_evaluation_with_resize_is_torchvisions(size: tuple[int, int], tmp_path: Path) -> None:
    image = noise(*size)
    image.save(tmp_path / "image.png")
    config = DataSection(name="folder", resize=16, image_size=12)
    images = FileImages([str(tmp_path / "image.png")], torch.zeros(1).long(), ImageTransforms(config, 12, False), 0)
    expected = to_tensor(CenterCrop(12)(Resize(16)(image)))
    assert torch.equal(images.read([0])[0], expected)
    assert torch.equal(images.read([0], DRAW)[0], expected)


def test_resized_crop_takes_the_files_own_pixels(write_tree: WriteTree) -> None:
    root = write_tree("train/a", "train/b", "test/a", "test/b", size=(30, 20))
    config = DataSection(name="folder", root=str(root), crop="resized", image_size=8)
    source = load_dataset(config).train
    choices = source.transforms.choices(range(8), DRAW)
    for image, path, choice in zip(source.read(range(8), DRAW), source.paths, choices):
        box = crop_box(30, 20, 0.08, choice.crop)
        expected = functional.resized_crop(Image.open(path), *box, [8, 8])
        assert torch.equal(image, to_tensor(expected))
    assert torch.equal(source.read([2])[0], to_tensor(centre(load(source.paths[2]), 8)))


def batches(config: DataSection, start: int = 0, **settings: object) -> list[Batch]:
    dataset = load_dataset(config)
    chosen = {"batch_size": 6, "train": True, "seed": 5, "stream": "train", **settings}
    images = store(dataset.train, config, CPU)
    loader = Loader(images, torch.arange(len(dataset.train)), Augmentation(config, dataset), **chosen)
    return list(loader.iterate(2, start))


def by_position(found: list[Batch]) -> torch.Tensor:
    index = torch.cat([batch.index_B for batch in found])
    assert len(set(index.tolist())) == len(index)
    return torch.cat([batch.images_BCHW for batch in found])[index.argsort()]


def test_batches_depend_on_no_worker_batch_size_rank_or_resume(write_tree: WriteTree) -> None:
    root = write_tree("train/a", "train/b", "test/a", "test/b", count=12, size=(16, 14))
    config = DataSection(name="folder", root=str(root), workers=0, random_erasing=0.5, **ALL)
    whole = batches(config)
    expected = by_position(whole)
    assert len(expected) == 24
    with_workers = batches(DataSection(name="folder", root=str(root), workers=2, random_erasing=0.5, **ALL))
    for batch, other in zip(whole, with_workers, strict=True):
        assert all(torch.equal(*pair) for pair in zip(batch[:3], other[:3]))
    for start in (1, 3):
        for batch, other in zip(whole[start:], batches(config, start), strict=True):
            assert all(torch.equal(*pair) for pair in zip(batch[:3], other[:3]))
    assert torch.equal(by_position(batches(config, batch_size=8)), expected)
    ranks = [batches(config, batch_size=12, world_size=2, rank=rank) for rank in range(2)]
    assert [len(batch.index_B) for batch in ranks[0]] == [6, 6]
    assert torch.equal(by_position(ranks[0] + ranks[1]), expected)


@pytest.mark.parametrize("settings", [{"crop": "resized"}, {"jitter": 0.4}, {"rand_augment": ALL["rand_augment"]}])
def test_choices_change_with_seed_epoch_and_image(settings: dict[str, object]) -> None:
    transforms = ImageTransforms(DataSection(name="cifar10", **settings), 32, True)
    image = noise(32, 32)

    def result(position: int, draw: Draw) -> bytes:
        return transforms(image, transforms.choices([position], draw)[0]).tobytes()

    positions = range(20)
    base = [result(position, DRAW) for position in positions]
    assert base == [result(position, DRAW) for position in positions]
    assert len(set(base)) > 10
    for other in (Draw(4, 1), Draw(3, 2)):
        assert [result(position, other) for position in positions] != base


def test_images_in_memory_are_augmented_as_files_are(random_images: Callable, as_dataset: Callable) -> None:
    config = DataSection(name="cifar10", **{**ALL, "image_size": 0}, workers=0)
    plain = random_images(20, side=32)
    transforms = ImageTransforms(config, 32, True)
    source = type(plain)(plain.images_NCHW, plain.labels_N, transforms)
    before = plain.images_NCHW.clone()
    images = source.read([7, 3], DRAW)
    for image, position in zip(images, (7, 3)):
        choice = transforms.choices([position], DRAW)[0]
        assert torch.equal(image, to_tensor(transforms(to_image(plain.images_NCHW[position]), choice)))
    assert torch.equal(source.read([7, 3]), before[[7, 3]])
    assert torch.equal(plain.images_NCHW, before)


def test_padded_training_stays_as_it_was(random_images: Callable, as_dataset: Callable) -> None:
    config = DataSection(name="cifar10")
    plain = random_images(20)
    source = type(plain)(plain.images_NCHW, plain.labels_N, ImageTransforms(config, 8, config.works_per_image))
    assert not source.augments
    assert torch.equal(source.read(range(20), DRAW), plain.images_NCHW)
    assert isinstance(store(source, config, CPU), ResidentImages)


@pytest.mark.parametrize(
    "settings", ["rand", "rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd101-p0.7-t3a", "rand-tweights"]
)
def test_rand_augment_is_timms(settings: str) -> None:
    """The same as timm's own transform after seeding, with the fill and translation of timm's training script."""
    from timm.data.auto_augment import rand_augment_transform

    config = DataSection(name="cifar10", rand_augment=settings)
    transforms = ImageTransforms(config, 32, True)
    expected = rand_augment_transform(settings, {"translate_const": 14, "img_mean": (125, 123, 114)})
    image = noise(32, 32)
    for choice in transforms.choices(range(8), DRAW):
        random.seed(choice.key)
        np.random.seed(choice.key & 0xFFFFFFFF)  # noqa: NPY002
        np.testing.assert_array_equal(transforms(image, choice), expected(image))


@pytest.mark.parametrize(
    "settings", ["m9", "rand-x3", "rand-m", "rand-", "rand-p2", "augmix-m3", "rand-tother", "rand m9"]
)
def test_other_rand_augments_are_refused(settings: str) -> None:
    with pytest.raises(
        UserError, match=r"^data\.rand_augment=.*: expected rand and settings of timm's RandAugment"
    ):
        DataSection(name="cifar10", rand_augment=settings)


def test_global_generators_are_left_alone(random_images: Callable, as_dataset: Callable) -> None:
    config = DataSection(name="cifar10", rand_augment="rand-m9-mstd0.5", random_erasing=0.9)
    plain = random_images(6, side=32)
    source = type(plain)(plain.images_NCHW, plain.labels_N, ImageTransforms(config, 32, True))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    images = source.read(range(6), DRAW)
    Augmentation(config, as_dataset(source, config)).train(images, torch.arange(6), seed=0, epoch=0)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_random_erasing_puts_noise_into_rectangles(random_images: Callable, as_dataset: Callable) -> None:
    erased, plain = (DataSection(name="cifar10", random_erasing=rate) for rate in (0.5, 0.0))
    source = random_images(400, side=16)
    index = torch.arange(400)

    def train(config: DataSection, index: torch.Tensor, epoch: int = 0) -> torch.Tensor:
        return Augmentation(config, as_dataset(source, config)).train(
            source.read(index), index, seed=1, epoch=epoch
        )

    result, expected = train(erased, index), train(plain, index)
    changed_NHW = (result != expected).any(dim=1)
    hit_N = changed_NHW.any(dim=(1, 2))
    assert 160 < int(hit_N.sum()) < 240
    for changed_HW in changed_NHW[hit_N]:
        rows, columns = changed_HW.any(1).nonzero()[:, 0], changed_HW.any(0).nonzero()[:, 0]
        assert changed_HW[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    areas = changed_NHW[hit_N].float().mean(dim=(1, 2))
    assert float(areas.min()) > 0.01
    assert float(areas.max()) < 0.4
    noise_values = result[(result != expected)]
    assert abs(float(noise_values.mean())) < 0.05
    assert float(noise_values.std()) == pytest.approx(1, abs=0.05)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(train(erased, order), result[order])
    assert not torch.equal(train(erased, index, epoch=1), result)


def test_streams_where_images_are_augmented_one_by_one(write_tree: WriteTree) -> None:
    root = str(write_tree("train/a", "train/b", "test/a", "test/b"))
    config = DataSection(name="folder", root=root, jitter=0.1)
    dataset = load_dataset(config)
    assert dataset.train.augments
    assert not dataset.test.augments
    assert not isinstance(store(dataset.train, config, CPU), ResidentImages)
    assert isinstance(store(dataset.test, config, CPU), ResidentImages)
    with pytest.raises(ValueError, match="cannot be resident"):
        ResidentImages(dataset.train, CPU)
    for settings in ({"jitter": 0.1}, {"hue": 0.1}, {"crop": "resized"}, {"rand_augment": "rand-m9"}):
        with pytest.raises(UserError, match=r"^data\.resident=always: resized crops, jitter and RandAugment need"):
            DataSection(name="folder", resident="always", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "digits", "hue": 0.1}, "data.hue=0.1: needs colour images"),
        ({"name": "digits", "rand_augment": "rand"}, "data.rand_augment=rand: needs colour images"),
        ({"name": "imagenet", "crop_padding": 4}, "data.crop_padding=4: resized crops take no padding"),
        ({"name": "imagenet", "resize": 200}, "data.resize=200: smaller than the 224x224 pixels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        DataSection(**settings)
    assert str(caught.value).startswith(message)


def test_crops_are_resized_by_default_on_imagenet_only() -> None:
    assert DataSection(name="imagenet").resized_crop
    assert not DataSection(name="imagenet", crop="padded").resized_crop
    assert DataSection(name="cifar10", crop="resized").resized_crop
    assert not any(
        DataSection(name=name).works_per_image for name in ("digits", "cifar10", "tiny_imagenet", "folder")
    )
    assert DataSection(name="imagenet").crop_for(224) == 0
