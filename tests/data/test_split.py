"""Division of a training set by class, by file order, and by limit."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nge_search.data import split_train_valid
from nge_search.data.split import (
    class_sizes,
    equal_per_class,
    few_per_class,
    hold_out,
    limited,
    share_per_class,
)
from nge_search.errors import UserError
from nge_search.settings.data import DataSection


def labels_of(sizes: list[int], order_seed: int = 0) -> torch.Tensor:
    labels = torch.repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(order_seed))]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class{number}" for number in range(count))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=2, max_size=12),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_stratified_split_keeps_every_share(sizes: list[int], fraction: float, seed: int) -> None:
    labels = labels_of(sizes)
    train, valid = split_train_valid(labels, names(len(sizes)), DataSection(valid_fraction=fraction), seed)
    assert train.tolist() == sorted(train.tolist())
    assert valid.tolist() == sorted(valid.tolist())
    assert sorted(train.tolist() + valid.tolist()) == list(range(len(labels)))
    train_sizes, valid_sizes = Counter(labels[train].tolist()), Counter(labels[valid].tolist())
    for label, size in enumerate(sizes):
        assert train_sizes[label] >= 1
        assert valid_sizes[label] >= 1
        assert abs(valid_sizes[label] - fraction * size) < 1 + 1e-9


def test_stratified_split_is_seeded() -> None:
    labels = labels_of([30, 30, 30])
    config = DataSection()
    first = split_train_valid(labels, names(3), config, 7)
    again = split_train_valid(labels, names(3), config, 7)
    other = split_train_valid(labels, names(3), config, 8)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_total_share_is_rounded_once_not_per_class() -> None:
    labels = labels_of([5] * 10)
    train, valid = split_train_valid(labels, names(10), DataSection(valid_fraction=0.5), 0)
    assert (len(train), len(valid)) == (25, 25)


def test_every_image_is_equally_likely_to_be_chosen() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    counts = torch.zeros(8)
    for seed in range(2000):
        counts[split_train_valid(labels, names(2), DataSection(), seed)[1]] += 1
    assert float((counts / 2000 - 0.5).abs().max()) < 0.06  # five standard deviations


def test_stratified_split_refuses_a_class_of_one() -> None:
    with pytest.raises(UserError, match=r"data\.split=stratified: class 'class1' has 1 training images"):
        split_train_valid(torch.tensor([0, 0, 1]), names(2), DataSection(), 0)


@pytest.mark.parametrize(
    ("count", "fraction", "first_valid"), [(10, 0.5, 5), (11, 0.5, 5), (50, 0.9, 5), (20, 0.1, 18)]
)
def test_file_order_split_is_darts(count: int, fraction: float, first_valid: int) -> None:
    """DARTS: the first floor((1 - fraction) N) files train the weights."""
    labels = torch.arange(count) % 2
    config = DataSection(split="file_order", valid_fraction=fraction)
    for seed in (0, 1):
        train, valid = split_train_valid(labels, names(2), config, seed)
        assert train.tolist() == list(range(first_valid))
        assert valid.tolist() == list(range(first_valid, count))


def test_file_order_split_refuses_sorted_files() -> None:
    labels = torch.repeat_interleave(torch.tensor([10, 10, 10]))
    config = DataSection(split="file_order")
    with pytest.raises(
        UserError, match=r"first part of the files lacks class 'class2'.*set data\.split=stratified"
    ):
        split_train_valid(labels, names(3), config, 0)
    with pytest.raises(UserError, match=r"last part of the files lacks class 'class0' and 1 more"):
        split_train_valid(labels, names(3), DataSection(split="file_order", valid_fraction=0.1), 0)


def test_hold_out_is_fixed_and_leaves_two() -> None:
    labels = labels_of([3, 4, 50])
    kept, held_out = hold_out(labels, 3, 0.9)
    assert class_sizes(labels[kept], 3).tolist() == [2, 2, 5]
    assert class_sizes(labels[held_out], 3).tolist() == [1, 2, 45]
    assert torch.equal(hold_out(labels, 3, 0.9)[1], held_out)


def test_share_per_class_by_hand() -> None:
    assert share_per_class(torch.tensor([7, 7, 7, 7]), 0.25).tolist() == [2, 2, 2, 1]
    assert share_per_class(torch.tensor([10, 20, 30]), 0.5).tolist() == [5, 10, 15]
    assert share_per_class(torch.tensor([2, 100]), 0.01).tolist() == [1, 1]


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(2, 60), min_size=1, max_size=15), data=st.data())
def test_limit_is_shared_as_equally_as_possible(sizes: list[int], data: st.DataObject) -> None:
    limit = data.draw(st.integers(2 * len(sizes), sum(sizes)))
    counts = equal_per_class(torch.tensor(sizes), limit).tolist()
    assert sum(counts) == limit
    most = max(counts)
    for count, size in zip(counts, sizes):
        assert count <= size
        assert count >= most - 1 or count == size


def test_limit_takes_fixed_images() -> None:
    labels = labels_of([20, 20, 3])
    index = limited(labels, 3, DataSection(limit=12))
    assert index.tolist() == sorted(set(index.tolist()))
    assert class_sizes(labels[index], 3).tolist() == [5, 4, 3]
    assert torch.equal(limited(labels, 3, DataSection(limit=12, workers=7)), index)
    for all_of_them in (0, 43, 1000):
        assert limited(labels, 3, DataSection(limit=all_of_them)).tolist() == list(range(43))


def test_limit_below_two_per_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.limit=5: too few for 3 classes; at least 6"):
        limited(labels_of([20, 20, 3]), 3, DataSection(limit=5))


def test_few_of_some_positions() -> None:
    """Out of the positions given alone, as many of each class as there are or as the others have."""
    labels, index = labels_of([30, 30, 30]), torch.arange(0, 90, 2)
    found = few_per_class(labels, index, 3, 12)
    assert Counter(labels[found].tolist()) == {0: 4, 1: 4, 2: 4}
    assert set(found.tolist()) <= set(index.tolist())
    assert found.tolist() == sorted(found.tolist())
    for limit in (0, 45, 100):
        assert few_per_class(labels, index, 3, limit) is index
