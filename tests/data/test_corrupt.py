"""Images that cannot be read: stopping, or skipping them by name, from both stores, in training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nge_search.data import Augmentation, Batch, Loader, ResidentImages, StreamedImages, load_dataset, store
from nge_search.data.sources import FileImages
from nge_search.errors import UserError
from nge_search.settings.data import DataSection

CPU = torch.device("cpu")
#: How images are stored: all on the device, or read by no or two workers, one by one augmented or not.
STORES = {
    "resident": {"resident": "always"},
    "streamed": {"resident": "never", "workers": 0},
    "by workers": {"resident": "never", "workers": 2},
    "augmented": {"jitter": 0.1, "workers": 0},
}


def damage(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:150])


@pytest.fixture
def load_damaged(write_tree: Callable[..., Path]) -> Callable[..., tuple[DataSection, FileImages, Loader, Loader]]:
    """Load 20 training images and damage some; returns them with loaders for training and evaluation."""

    def make(*damaged: int, index: range = range(20), **settings: object) -> tuple:
        root = write_tree("train/a", "train/b", "test/a", "test/b", count=10)
        config = DataSection(name="folder", root=str(root), **settings)
        dataset = load_dataset(config)
        for position in damaged:
            damage(dataset.train.paths[position])
        images = store(dataset.train, config, CPU)
        assert isinstance(images, ResidentImages if settings.get("resident") == "always" else StreamedImages)
        augmentation = Augmentation(config, dataset)
        loaders = [
            Loader(images, torch.tensor(index), augmentation, batch_size=4, train=train) for train in (True, False)
        ]
        return config, dataset.train, *loaders

    return make


def positions(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.index_B for batch in batches]).tolist()


@pytest.mark.parametrize("how", STORES)
def test_training_takes_the_next_readable_image(how: str, load_damaged: Callable) -> None:
    _, _, whole, _ = load_damaged(corrupt="skip", **STORES[how])
    planned = positions(list(whole.iterate(0)))
    _, source, train, _ = load_damaged(3, 4, 19, corrupt="skip", **STORES[how])
    batches = list(train.iterate(0))
    stand_in = {3: 5, 4: 5, 19: 0}
    assert positions(batches) == [stand_in.get(position, position) for position in planned]
    assert [len(batch.index_B) for batch in batches] == [4] * 5
    assert torch.equal(torch.cat([batch.labels_B for batch in batches]), source.labels_N[positions(batches)])
    originals = torch.cat([batch.images_BCHW for batch in whole.iterate(0)])
    at = {position: number for number, position in enumerate(planned)}
    for image, position in zip(torch.cat([batch.images_BCHW for batch in batches]), positions(batches)):
        assert torch.equal(image, originals[at[position]])
    assert train.images.unreadable.keys() == {source.paths[position] for position in (3, 4, 19)}
    for path, reason in train.images.unreadable.items():
        assert path in reason
        assert "\n" not in reason


@pytest.mark.parametrize("how", STORES)
def test_stand_ins_come_from_the_images_of_the_feed(how: str, load_damaged: Callable) -> None:
    """So that in a search no half of the images trains on the other's."""
    _, _, train, _ = load_damaged(6, 18, index=range(0, 20, 2), corrupt="skip", **STORES[how])
    found = positions(list(train.iterate(0)))
    assert sorted(found) == sorted([0, 2, 4, 8, 8, 10, 12, 14, 16, 0])


@pytest.mark.parametrize("how", STORES)
def test_evaluation_leaves_them_out(how: str, load_damaged: Callable) -> None:
    _, source, _, evaluation = load_damaged(0, 8, 9, 10, 11, corrupt="skip", **STORES[how])
    batches = list(evaluation.iterate(0))
    assert [len(batch.index_B) for batch in batches] == [3, 4, 0, 4, 4]
    assert [len(batch.images_BCHW) for batch in batches] == [3, 4, 0, 4, 4]
    assert positions(batches) == [1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19]
    for batch in batches:
        expected = evaluation.augmentation.evaluate(source.read(batch.index_B))
        assert torch.equal(batch.images_BCHW, expected)
        assert torch.equal(batch.labels_B, source.labels_N[batch.index_B])
    assert len(evaluation.images.unreadable) == 5


@pytest.mark.parametrize("how", STORES)
def test_where_nothing_is_readable_the_run_ends(how: str, load_damaged: Callable) -> None:
    settings = STORES[how]
    for kind in (0, 1):
        with pytest.raises(UserError) as caught:
            list(load_damaged(*range(20), corrupt="skip", **settings)[2 + kind].iterate(0))
        assert str(caught.value).startswith("none of 20 images can be read; the first: cannot read image")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["streamed", "by workers"])
def test_a_rank_without_readable_images_goes_on_if_others_have_some(how: str, load_damaged: Callable) -> None:
    *_, whole = load_damaged(0, 1, corrupt="skip", **STORES[how])
    settings = {"batch_size": 20, "train": False, "world_size": 10, "rank": 0}
    (batch,) = Loader(whole.images, torch.arange(20), whole.augmentation, **settings).iterate(0)
    assert (len(batch.index_B), batch.total) == (0, 20)
    assert len(whole.images.unreadable) == 2


def test_resident_images_all_damaged_in_one_half(load_damaged: Callable) -> None:
    _, _, train, _ = load_damaged(0, 1, 2, 3, index=range(4), corrupt="skip", resident="always")
    with pytest.raises(UserError, match="none of the images that this pass is over can be read"):
        next(train.iterate(0))


@pytest.mark.parametrize("how", [name for name in STORES if name != "resident"])
def test_stopping_names_the_file(how: str, load_damaged: Callable) -> None:
    for kind in (0, 1):
        loaded = load_damaged(7, **STORES[how])
        with pytest.raises(UserError) as caught:
            list(loaded[2 + kind].iterate(0))
        assert loaded[1].paths[7] in str(caught.value)
        assert "\n" not in str(caught.value)


def test_stopping_names_the_file_before_a_resident_run(load_damaged: Callable) -> None:
    with pytest.raises(UserError, match=r"train/a/007\.png"):
        load_damaged(7, resident="always")


def test_files_without_a_header_are_left_out(write_tree: Callable[..., Path]) -> None:
    root = write_tree("train/a", "train/b", "test/a", "test/b", count=6)
    bad = ["train/a/001.png", "train/a/002.png", "train/b/readme.txt", "test/b/000.png"]
    for name in bad:
        (root / name).write_text("no image")
    with pytest.raises(UserError, match="is not an image"):
        load_dataset(DataSection(name="folder", root=str(root)))
    dataset = load_dataset(DataSection(name="folder", root=str(root), corrupt="skip", workers=0))
    names = ", ".join(f"'{root / name}'" for name in bad[:3])
    assert dataset.notices == (f"4 images that cannot be read are left out: {names} and 1 more",)
    assert torch.bincount(dataset.train.labels_N).tolist() == [4, 6]
    assert torch.bincount(dataset.test.labels_N).tolist() == [6, 5]
    assert not {str(root / name) for name in bad} & {*dataset.train.paths, *dataset.test.paths}
    assert dataset.train.read(range(10)).shape == (10, 3, 12, 12)


def test_too_few_files_with_a_header_are_refused(write_tree: Callable[..., Path]) -> None:
    root = write_tree("train/a", "train/b", "test/a", "test/b", count=3)
    config = DataSection(name="folder", root=str(root), corrupt="skip")
    for part, message in (("test", "none of the test images can be read"), ("train", "class 'a' has 0 images")):
        for path in root.glob(f"{part}/*/*"):
            path.write_bytes(b"")
        with pytest.raises(UserError, match=message):
            load_dataset(config)
