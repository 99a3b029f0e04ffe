"""Splits: disjoint, the same for a seed, in their proportions; lists of hashes; classes of one architecture."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nge_search.errors import UserError
from nge_search.predict.splits import by_names, folds, halves, isomorphism_class, order, read_hashes
from nge_search.spaces import DartsSpace, NasBench101Space, NasBench201Space

DATA = Path(__file__).parents[3] / "shared" / "data"


@given(st.integers(2, 300), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_halves_are_disjoint_and_whole(count: int, seed: int) -> None:
    split = halves(count, seed)
    assert sorted([*split.pool, *split.test]) == list(range(count))
    assert len(split.pool) - len(split.test) == count % 2


def test_a_seed_gives_one_split_and_others_others() -> None:
    first, again, other = halves(15_625, 3), halves(15_625, 3), halves(15_625, 4)
    assert (len(first.pool), len(first.test)) == (7813, 7812)
    assert np.array_equal(first.pool, again.pool)
    assert np.array_equal(first.test, again.test)
    common = len(np.intersect1d(first.pool, other.pool))
    assert abs(common - 7813 / 2) < 5 * np.sqrt(15_625 / 16)  # hypergeometric, five standard deviations
    assert order(8, 0).tolist() == [2, 4, 1, 5, 0, 3, 6, 7]  # on every machine


def test_a_position_is_as_often_on_one_side_as_on_the_other() -> None:
    counts_N = np.zeros(10)
    for seed in range(400):
        counts_N[halves(10, seed).pool] += 1
    assert (abs(counts_N - 200) < 5 * 10).all()


def test_smaller_budgets_are_the_beginning_of_larger_ones() -> None:
    split = halves(100, 0)
    assert split.train(40)[:10].tolist() == split.train(10).tolist() == split.pool[:10].tolist()
    assert split.train(50).tolist() == split.pool.tolist()
    for labels in (-1, 0, 1, 51):
        with pytest.raises(UserError, match=f"{labels} labels: this split has 2 to 50"):
            split.train(labels)


@given(st.integers(2, 120), st.integers(2, 12), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_folds_test_each_architecture_once(count: int, parts: int, seed: int) -> None:
    if parts > count:
        with pytest.raises(UserError, match=f"{count} architectures cannot be divided into {parts} parts"):
            folds(count, parts, seed)
        return
    found = folds(count, parts, seed)
    assert sorted(position for split in found for position in split.test.tolist()) == list(range(count))
    for split in found:
        assert sorted([*split.pool, *split.test]) == list(range(count))
        assert count // parts <= len(split.test) <= -(-count // parts)


@given(st.lists(st.integers(0, 25), min_size=8, max_size=120), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_no_class_stands_on_both_sides(classes: list[int], parts: int, seed: int) -> None:
    if len(set(classes)) < parts:
        with pytest.raises(UserError, match=r"classes of architectures cannot be divided"):
            folds(len(classes), parts, seed, classes)
        return
    largest = max(map(classes.count, classes))
    found = [*folds(len(classes), parts, seed, classes), halves(len(classes), seed, classes)]
    for split in found:
        sides = [{classes[position] for position in side} for side in (split.pool, split.test)]
        assert not sides[0] & sides[1]
        assert sorted([*split.pool, *split.test]) == list(range(len(classes)))
    sizes = [len(split.test) for split in found[:-1]]
    assert max(sizes) - min(sizes) <= largest
    assert abs(len(found[-1].pool) - len(found[-1].test)) <= largest


def test_members_of_a_class_do_not_stand_together_in_the_pool() -> None:
    """A budget of a few labels is not spent on one class."""
    classes = [position // 50 for position in range(400)]
    split = halves(400, 1, classes)
    assert len({classes[position] for position in split.train(20)}) == 4
    changes = sum(classes[a] != classes[b] for a, b in zip(split.pool, split.pool[1:]))
    assert changes > 100


def test_what_cannot_be_split() -> None:
    with pytest.raises(UserError, match="1 architectures cannot be divided into 2 parts"):
        halves(1, 0)
    with pytest.raises(UserError, match="3 classes for 4 architectures"):
        halves(4, 0, [1, 2, 3])
    with pytest.raises(UserError, match="1 folds: give at least 2"):
        folds(10, 1, 0)


def test_lists_of_names_keep_their_order_and_pass_over_what_is_not_at_hand() -> None:
    split = by_names(["a", "b", "c", "d"], ["d", "x", "a"], ["y", "c"])
    assert (split.pool.tolist(), split.test.tolist()) == ([3, 0], [2])
    for pool, test, says in (
        (["a"], ["a"], "'a' is listed twice"),
        (["a", "a"], ["b"], "'a' is listed twice"),
        (["x"], ["b"], "none of the architectures to train on is among the 4 at hand"),
        (["a"], [], "none of the architectures to test"),
    ):
        with pytest.raises(UserError, match=says):
            by_names(["a", "b", "c", "d"], pool, test)


def test_hashes_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    hashes = [f"{number:032x}" for number in (5, 3, 9)]
    path.write_text("hash,index\n" + "".join(f"{name},1\n" for name in hashes))
    assert read_hashes(path) == hashes
    path.write_text(f"hash\n{hashes[0]}\nABC\n")
    with pytest.raises(UserError, match="line 3: 'ABC' is no hash of 32"):
        read_hashes(path)
    path.write_text("name\nx\n")
    with pytest.raises(UserError, match="line 2: no column 'hash'"):
        read_hashes(path)


def test_the_published_split_of_nasbench101() -> None:
    if not (DATA / "nasbench101").is_dir():
        pytest.skip("TA-GATES' split of NAS-Bench-101 is not at hand")
    pool, test = (read_hashes(DATA / "nasbench101" / f"tagates_split_{side}.csv") for side in ("train", "test"))
    split = by_names([*test, *pool], pool, test)
    assert split.train(72).tolist() == list(range(7290, 7362))
    assert len(split.test) == 7290


CLASSES = {
    "a convolution": [
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
        "|avg_pool_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|",  # 1 leads nowhere, 2 is empty
    ],
    "another": ["|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"],
    "the same twice, with weights of their own": [
        "|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|skip_connect~1|none~2|",
    ],
    "one, added to itself": ["|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|"],
    "the input": ["|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"],
    "nothing": [
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|none~2|",
    ],
}


def test_architectures_that_compute_the_same_are_of_one_class() -> None:
    space = NasBench201Space()
    found = {
        name: {isomorphism_class(space.graphs(space.parse(text))) for text in texts}
        for name, texts in CLASSES.items()
    }
    assert [len(classes) for classes in found.values()] == [1] * len(found)
    for (name, one), (other, two) in combinations(found.items(), 2):
        assert not one & two, (name, other)


def test_classes_of_nasbench101_are_those_of_its_hash() -> None:
    space, random = NasBench101Space(5), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(150)]
    pairs = {(space.key(code), isomorphism_class(space.graphs(code))) for code in codes}
    assert len(pairs) == len({key for key, _ in pairs}) == len({name for _, name in pairs}) < 150


def test_both_cells_of_a_genotype_count() -> None:
    space, random = DartsSpace(), np.random.default_rng(0)
    code, other = space.random(random), space.random(random)
    graphs, others = space.graphs(code), space.graphs(other)
    mixed = {"normal": graphs["normal"], "reduce": others["reduce"]}
    assert len({isomorphism_class(cells) for cells in (graphs, others, mixed)}) == 3
    swapped = {"reduce": graphs["reduce"], "normal": graphs["normal"]}
    assert isomorphism_class(swapped) == isomorphism_class(graphs)
