"""Counter-based numbers against a big-integer implementation, and their statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from nge_search.keyed_random import Stream, fold, integers, permutation, uniform, words

MODULUS = 2**64
KEYS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**31 - 1, 599, 3), (2**64 - 1, 2**63, 6)]
INDICES = [0, 1, 2, 49_999, 2**31, 2**40 + 7, 2**62]


def splitmix(word: int) -> int:
    word = word % MODULUS
    word = (word ^ (word // 2**30)) * 0xBF58476D1CE4E5B9 % MODULUS
    word = (word ^ (word // 2**27)) * 0x94D049BB133111EB % MODULUS
    return word ^ (word // 2**31)


def slow_fold(*parts: int) -> int:
    key = 0
    for part in parts:
        key = splitmix(key ^ splitmix(part + 0x9E3779B97F4A7C15))
    return key


def slow_word(index: int, seed: int, epoch: int, stream: int) -> int:
    return splitmix(slow_fold(seed, epoch, stream) + index * 0x9E3779B97F4A7C15)


def test_splitmix_reference_output() -> None:
    """The first outputs of splitmix64 seeded with 1234567, as published with the reference implementation."""
    state, outputs = 1234567, []
    for _ in range(3):
        state += 0x9E3779B97F4A7C15
        outputs.append(splitmix(state))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("key", KEYS)
def test_words_equal_big_integers(key: tuple[int, int, int]) -> None:
    seed, epoch, stream = key
    drawn = words(torch.tensor(INDICES), seed=seed, epoch=epoch, stream=stream)
    assert drawn.dtype == torch.int64
    assert [word % MODULUS for word in drawn.tolist()] == [slow_word(index, *key) for index in INDICES]


@pytest.mark.parametrize("key", KEYS)
def test_uniform_and_integers_equal_big_integers(key: tuple[int, int, int]) -> None:
    seed, epoch, stream = key
    index = torch.tensor(INDICES)
    expected = [slow_word(i, *key) for i in INDICES]
    for dtype, bits in ((torch.float32, 24), (torch.float64, 53)):
        numbers = uniform(index, seed=seed, epoch=epoch, stream=stream, dtype=dtype)
        assert numbers.dtype == dtype
        assert numbers.tolist() == [(word >> (64 - bits)) / 2**bits for word in expected]
    for high in (1, 2, 81, 1024, 2**40 + 1):
        numbers = integers(index, high, seed=seed, epoch=epoch, stream=stream)
        assert numbers.tolist() == [(word >> 1) % high for word in expected]


def test_uniform_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="float32 or float64"):
        uniform(torch.arange(3), seed=0, epoch=0, stream=0, dtype=torch.bfloat16)


def test_fold_depends_on_order_and_length() -> None:
    keys = [(), (0,), (0, 0), (1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (-1,), (2**64 - 2,)]
    assert [fold(*key) for key in keys] == [slow_fold(*key) for key in keys]
    assert len({fold(*key) for key in keys}) == len(keys)


def test_numbers_do_not_depend_on_the_batch() -> None:
    index = torch.arange(1000)
    whole = words(index, seed=3, epoch=4, stream=Stream.CROP)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(words(order, seed=3, epoch=4, stream=Stream.CROP), whole[order])
    single = torch.cat([words(index[i : i + 1], seed=3, epoch=4, stream=Stream.CROP) for i in range(0, 1000, 97)])
    assert torch.equal(single, whole[::97])


@pytest.mark.parametrize("key", KEYS)
def test_integers_are_uniform(key: tuple[int, int, int]) -> None:
    seed, epoch, stream = key
    index = torch.arange(200_000)
    for high in (2, 81, 1024):
        counts = np.bincount(integers(index, high, seed=seed, epoch=epoch, stream=stream), minlength=high)
        assert stats.chisquare(counts).pvalue > 1e-4
    for dtype in (torch.float32, torch.float64):
        numbers = uniform(index, seed=seed, epoch=epoch, stream=stream, dtype=dtype)
        assert float(numbers.min()) >= 0
        assert float(numbers.max()) < 1
        assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-4


def test_neighbouring_keys_are_independent() -> None:
    """Joint counts of pairs that differ in one key only fill an 8 x 8 table evenly."""

    def draw(seed: int = 5, epoch: int = 6, stream: int = 1, shift: int = 0) -> np.ndarray:
        return integers(torch.arange(shift, shift + 100_000), 8, seed=seed, epoch=epoch, stream=stream).numpy()

    base = draw()
    for other in (draw(seed=6), draw(epoch=7), draw(stream=2), draw(shift=1), draw(epoch=5, seed=6)):
        assert stats.chisquare(np.bincount(8 * base + other, minlength=64)).pvalue > 1e-4


def test_every_bit_is_fair_and_unrelated_to_the_next_index() -> None:
    bits = words(torch.arange(50_000), seed=9, epoch=0, stream=0)[:, None] >> torch.arange(64) & 1
    ones = bits.double().mean(0)
    changed = (bits[1:] != bits[:-1]).double().mean(0)
    tolerance = 5 * 0.5 / 50_000**0.5
    assert float((ones - 0.5).abs().max()) < tolerance
    assert float((changed - 0.5).abs().max()) < tolerance


def test_permutation_is_one_and_depends_on_every_key() -> None:
    orders = [
        permutation(500, seed=seed, epoch=epoch, stream=stream)
        for seed, epoch, stream in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    for order in orders:
        assert sorted(order.tolist()) == list(range(500))
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)
    assert torch.equal(orders[0], permutation(500, seed=0, epoch=0, stream=0))
    by_word = sorted(
        range(500), key=lambda index: slow_word(index, 0, 0, 0) - MODULUS * (slow_word(index, 0, 0, 0) >> 63)
    )
    assert orders[0].tolist() == by_word
    assert permutation(0, seed=0, epoch=0, stream=0).tolist() == []


def test_permutations_of_four_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        order = tuple(permutation(4, seed=1, epoch=epoch, stream=0).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4
