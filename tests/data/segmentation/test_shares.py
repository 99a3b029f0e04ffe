"""Shares of classes in masks: counted right, on a sample of a large set, told in one line, or refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nge_search.data.segmentation.scenes import load_scenes
from nge_search.data.segmentation.shares import MOST_MASKS, Shares, count_shares, notice, to_document
from nge_search.errors import UserError
from nge_search.settings.segmentation import MaskedDataSection

CLASSES = ("background", "boat", "chair")


class Source:
    """Masks in memory; remembers which were read."""

    def __init__(self, masks: list[list[list[int]]]):
        self.masks = [torch.tensor(mask, dtype=torch.uint8) for mask in masks]
        self.sizes_N2 = torch.tensor([tuple(mask.shape) for mask in self.masks])
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.masks)

    def read_mask(self, index: int) -> torch.Tensor:
        self.seen.append(index)
        return self.masks[index]


SOUND = [[[0, 0, 1], [0, 255, 1]], [[2], [0]]]


def shares(train: list, test: list, **settings: bool) -> dict[str, Shares]:
    dataset = SimpleNamespace(train=Source(train), test=Source(test), classes=CLASSES)
    return count_shares(dataset, MaskedDataSection(name="voc", **settings))


def test_every_pixel_is_counted_once() -> None:
    found = shares(SOUND, [[[0, 1]]])
    assert found == {"train": Shares(2, 2, (4, 2, 1), 1), "test": Shares(1, 1, (1, 1, 0), 0)}
    assert notice(found, CLASSES) == (
        "2 training masks: background 50.0 %, boat 25.0 %, chair 12.5 %, 12.5 % ignored; "
        "1 validation mask: background 50.0 %, boat 50.0 %, chair never, 0.0 % ignored"
    )
    assert to_document(found)["train"] == {"images": 2, "counted": 2, "pixels": [4, 2, 1], "ignored": 1}


def test_many_classes_and_small_shares_in_one_line() -> None:
    names = tuple("abcdefgh")
    found = Shares(3, 3, (40_000, 30_000, 20_000, 5_000, 4_000, 990, 0, 9), 1)
    assert found.describe("test", names) == (
        "3 test masks: a 40.0 %, b 30.0 %, c 20.0 %, d 5.0 %, 3 classes more 5.0 %, g never, under 0.1 % ignored"
    )


def test_a_large_set_is_sampled_the_same_way_each_time() -> None:
    source = Source([[[i % 2]] for i in range(3 * MOST_MASKS + 1)])
    dataset = SimpleNamespace(train=source, test=Source(SOUND), classes=CLASSES)
    config = MaskedDataSection(name="voc")
    found = count_shares(dataset, config)["train"]
    first, source.seen = sorted(source.seen), []
    assert count_shares(dataset, config)["train"] == found
    assert sorted(source.seen) == first
    assert (found.images, found.counted, found.total) == (3 * MOST_MASKS + 1, MOST_MASKS, MOST_MASKS)
    assert np.diff(first).max() <= 4
    assert found.describe("training", CLASSES).startswith(f"{MOST_MASKS} of {3 * MOST_MASKS + 1} training masks: ")


def test_large_masks_are_sampled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nge_search.data.segmentation.shares._MOST_PIXELS", 20)
    assert shares(SOUND * 5, SOUND)["train"].counted == 5  # of 4 pixels on average
    monkeypatch.setattr("nge_search.data.segmentation.shares._MOST_PIXELS", 1)
    assert shares([[[0, 1]]] * 5, SOUND)["train"].counted == 1


ONE_CLASS = [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]
BINARY_255 = [[[0, 255], [0, 0]]]
VOID = [[[255, 255]]]
NEARLY_VOID = [[[255] * 96 + [0, 0, 1, 1]]]


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (ONE_CLASS, "no class but 'background' occurs; masks must hold the numbers of classes, as 0 and 1"),
        ([[[2, 2]]], "no class but 'chair' occurs;"),
        (BINARY_255, "no class but 'background' occurs, and 25.0 % of the pixels are 255, which does not count;"),
        (VOID, "100.0 % of the pixels are 255, which does not count;"),
        (NEARLY_VOID, "96.0 % of the pixels are 255, which does not count;"),
    ],
    ids=["one class", "another class alone", "0 and 255", "void", "nearly void"],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_sets_that_say_nothing_are_refused(part: str, masks: list, says: str) -> None:
    sets = {"train": SOUND, "test": SOUND} | {part: masks}
    with pytest.raises(UserError) as caught:
        shares(**sets)
    words = {"train": "training", "test": "validation"}[part]
    assert f"in the {words} masks, {says}" in str(caught.value)
    assert str(caught.value).endswith("if this is meant, set data.allow_sparse_masks=true")
    assert shares(**sets, allow_sparse_masks=True)[part].images == len(masks)


def test_what_is_at_the_limit_is_taken() -> None:
    found = shares([[[255] * 95 + [0, 0, 0, 0, 1]]], SOUND)
    assert found["train"].ignored == 95


def test_scenes_are_counted_without_drawing_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nge_search.data.segmentation.scenes.TEST", 20)
    config = MaskedDataSection(limit=30)
    dataset = load_scenes(config)
    monkeypatch.setattr("nge_search.data.segmentation.scenes.draw_scene", None)
    found = count_shares(dataset, config)
    truth = dataset.train.read(range(30))[:, 3]
    assert found["train"].pixels_K == tuple(truth.flatten().bincount(minlength=9).tolist())
    assert (found["test"].counted, found["test"].ignored) == (20, 0)
