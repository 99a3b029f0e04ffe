"""Loaders: what a step holds, on any rank, after any resume, from any store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pytest
import torch

from nge_search.data import (
    Augmentation,
    Batch,
    Dataset,
    Loader,
    MemoryImages,
    ResidentImages,
    StreamedImages,
    load_dataset,
    split_train_valid,
)
from nge_search.errors import UserError
from nge_search.settings.data import DataSection

CPU = torch.device("cpu")
CONFIG = DataSection(name="cifar10", cutout=4)
PLAIN = DataSection(name="cifar10", crop_padding=0, flip=False)

MakeLoader = Callable[..., Loader]


@pytest.fixture
def make_loader(random_images: Callable[..., MemoryImages], as_dataset: Callable[..., Dataset]) -> MakeLoader:
    """A training loader over images 3 .. count + 2 of count + 5, resident on the CPU; keywords replace settings."""

    def make(count: int = 50, config: DataSection = CONFIG, **settings: object) -> Loader:
        source = random_images(count + 5)
        chosen = {"batch_size": 8, "train": True, "seed": 1, "stream": "weights", **settings}
        augmentation = Augmentation(config, as_dataset(source, config))
        return Loader(ResidentImages(source, CPU), torch.arange(3, count + 3), augmentation, **chosen)

    return make


def assert_equal(batches: Iterable[Batch], expected: Iterable[Batch]) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert batch.total == other.total
        for field in ("images_BCHW", "labels_B", "index_B"):
            assert torch.equal(getattr(batch, field), getattr(other, field)), field


@pytest.mark.parametrize(
    ("count", "batch_size", "world_size", "training_steps", "evaluation_steps"),
    [
        (48, 8, 1, 6, 6),
        (49, 8, 1, 6, 7),
        (50, 8, 1, 7, 7),
        (50, 8, 2, 6, 7),
        (52, 8, 2, 7, 7),
        (5, 8, 1, 1, 1),
        (5, 8, 2, 1, 1),
        (25_000, 64, 1, 391, 391),
    ],
)
def test_steps(
    count: int,
    batch_size: int,
    world_size: int,
    training_steps: int,
    evaluation_steps: int,
    make_loader: MakeLoader,
) -> None:
    for train, steps in ((True, training_steps), (False, evaluation_steps)):
        for rank in range(world_size):
            loader = make_loader(count, batch_size=batch_size, world_size=world_size, rank=rank, train=train)
            assert loader.steps == steps


@pytest.mark.parametrize(("count", "batch_size", "world_size"), [(50, 3, 2), (3, 8, 2), (1, 8, 1), (50, 1, 1)])
def test_ranks_with_a_single_training_image_are_refused(
    count: int, batch_size: int, world_size: int, make_loader: MakeLoader
) -> None:
    with pytest.raises(UserError, match=f"too small for {world_size} processes, which need {2 * world_size}"):
        make_loader(count, batch_size=batch_size, world_size=world_size)
    assert make_loader(count, batch_size=batch_size, world_size=world_size, train=False).steps >= 1


def test_no_images_are_refused(make_loader: MakeLoader) -> None:
    with pytest.raises(UserError, match="no images"):
        make_loader(0, train=False)


def test_a_training_pass_holds_every_image_once(make_loader: MakeLoader) -> None:
    loader = make_loader(52, config=PLAIN)
    batches = list(loader.iterate(0))
    assert [len(batch.index_B) for batch in batches] == [8] * 6 + [4]
    assert [batch.total for batch in batches] == [8] * 6 + [4]
    index = torch.cat([batch.index_B for batch in batches])
    assert sorted(index.tolist()) == list(range(3, 55))
    assert index.tolist() != list(range(3, 55))


def test_batches_hold_the_images_and_labels_of_their_index(make_loader: MakeLoader) -> None:
    loader = make_loader(config=PLAIN)
    for batch in loader.iterate(2):
        raw = loader.images.images_NCHW[batch.index_B]
        assert torch.equal(batch.images_BCHW, loader.augmentation.evaluate(raw))
        assert torch.equal(batch.labels_B, loader.images.labels_N[batch.index_B])
        assert batch.labels_B.dtype == batch.index_B.dtype == torch.int64


def test_order_and_augmentation_depend_on_every_key(make_loader: MakeLoader) -> None:
    base = next(make_loader().iterate(0))
    others = [
        next(make_loader().iterate(1)),
        next(make_loader(seed=2).iterate(0)),
        next(make_loader(stream="architecture").iterate(0)),
        next(islice(make_loader().endless(0, start=7), 1)),
    ]
    for other in others:
        assert not torch.equal(other.index_B, base.index_B)
    assert_equal([next(make_loader().iterate(0))], [base])


def test_augmentation_of_an_image_changes_with_the_epoch(make_loader: MakeLoader) -> None:
    loader = make_loader(count=8)
    first, second = (next(loader.iterate(epoch)) for epoch in (0, 1))
    assert not torch.equal(first.images_BCHW[first.index_B.argsort()], second.images_BCHW[second.index_B.argsort()])


def test_dtype_is_handed_on(make_loader: MakeLoader) -> None:
    for train in (True, False):
        assert next(make_loader(dtype=torch.float64, train=train).iterate(0)).images_BCHW.dtype == torch.float64


@pytest.mark.parametrize("train", [True, False])
def test_resuming_at_any_step_gives_the_same_batches(train: bool, make_loader: MakeLoader) -> None:
    whole = list(make_loader(train=train).iterate(3))
    for start in range(len(whole) + 1):
        assert_equal(make_loader(train=train).iterate(3, start), whole[start:])


def test_endless_goes_on_with_new_rounds(make_loader: MakeLoader) -> None:
    loader = make_loader()
    batches = list(islice(loader.endless(4), 3 * loader.steps))
    assert_equal(batches[: loader.steps], loader.iterate(4))
    rounds = [batches[at : at + loader.steps] for at in range(0, len(batches), loader.steps)]
    orders = [torch.cat([batch.index_B for batch in round_]).tolist() for round_ in rounds]
    assert all(sorted(order) == list(range(3, 53)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    for start in (0, 3, loader.steps, loader.steps + 2, 2 * loader.steps + 6):
        assert_equal(islice(make_loader().endless(4, start), len(batches) - start), batches[start:])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_together_hold_the_global_batch(world_size: int, train: bool, make_loader: MakeLoader) -> None:
    single = list(make_loader(54, train=train, batch_size=11).iterate(1))
    ranks = [
        list(make_loader(54, train=train, batch_size=11, world_size=world_size, rank=rank).iterate(1))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(single)}
    for parts, expected in zip(zip(*ranks), single):
        sizes = [len(part.labels_B) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        joined = [torch.cat([part[field] for part in parts]) for field in range(3)]
        assert {part.total for part in parts} == {expected.total}
        assert_equal([Batch(*joined, expected.total)], [expected])


@pytest.mark.parametrize("world_size", [1, 4])
def test_evaluation_holds_every_image_once_in_order(world_size: int, make_loader: MakeLoader) -> None:
    """With 41 images in batches of 8 the last batch is one image, so three of four ranks get none."""
    loaders = [make_loader(41, train=False, world_size=world_size, rank=rank) for rank in range(world_size)]
    steps = list(zip(*(loader.iterate(0) for loader in loaders)))
    index = torch.cat([batch.index_B for step in steps for batch in step])
    assert index.tolist() == list(range(3, 44))
    assert sorted(len(batch.index_B) for batch in steps[-1]) == [0] * (world_size - 1) + [1]
    for step in steps:
        for batch in step:
            raw = loaders[0].images.images_NCHW[batch.index_B]
            assert torch.equal(batch.images_BCHW, loaders[0].augmentation.evaluate(raw))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_files_give_the_resident_batches(workers: int, write_tree: Callable) -> None:
    root: Path = write_tree("a", "b", "c", count=12)
    config = DataSection(name="folder", root=str(root), cutout=4, resident="never", workers=workers)
    dataset = load_dataset(config)
    augmentation = Augmentation(config, dataset)
    index, _ = split_train_valid(dataset.train.labels_N, dataset.classes, config, seed=0)
    resident, streamed = ResidentImages(dataset.train, CPU), StreamedImages(dataset.train, CPU, workers)
    for settings in ({"train": True}, {"train": False, "world_size": 3, "rank": 0}):
        first, second = (
            Loader(images, index, augmentation, batch_size=6, **settings) for images in (resident, streamed)
        )
        assert_equal(first.iterate(1), second.iterate(1))
        assert_equal(first.iterate(1, 1), second.iterate(1, 1))
        assert_equal(islice(first.endless(0, 1), 4), islice(second.endless(0, 1), 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_image_damaged_after_loading_is_named(workers: int, write_tree: Callable) -> None:
    root: Path = write_tree("a", "b", count=8)
    config = DataSection(name="folder", root=str(root))
    dataset = load_dataset(config)
    bad = Path(dataset.train.paths[5])
    bad.write_bytes(bad.read_bytes()[:200])
    images = StreamedImages(dataset.train, CPU, workers)
    loader = Loader(images, torch.arange(8), Augmentation(config, dataset), batch_size=2, train=False)
    with pytest.raises(UserError) as caught:
        list(loader.iterate(0))
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_feeds_over_one_store_do_not_disturb_each_other(make_loader: MakeLoader) -> None:
    """Pairing two loaders step by step gives each what it gives alone."""
    weights = make_loader()
    architecture = Loader(
        weights.images, torch.arange(0, 30), weights.augmentation, batch_size=8, train=True, stream="architecture"
    )
    alone = list(weights.iterate(0)), list(islice(architecture.endless(0), weights.steps))
    pairs = list(zip(weights.iterate(0), architecture.endless(0)))
    assert_equal([pair[0] for pair in pairs], alone[0])
    assert_equal([pair[1] for pair in pairs], alone[1])


def test_a_pass_reads_nothing_back_from_the_device(
    random_images: Callable[..., MemoryImages], as_dataset: Callable[..., Dataset]
) -> None:
    """On the meta device there are no values, so any read of one to the host raises."""
    source = random_images(20)
    images = ResidentImages(source, torch.device("meta"))
    for train in (True, False):
        loader = Loader(
            images, torch.arange(20), Augmentation(CONFIG, as_dataset(source, CONFIG)), batch_size=8, train=train
        )
        assert [batch.images_BCHW.shape for batch in loader.iterate(0)] == [
            (8, 3, 8, 8),
            (8, 3, 8, 8),
            (4, 3, 8, 8),
        ]
