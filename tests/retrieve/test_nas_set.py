"""Classes of searched networks: distances against brute force, and members that belong to their centre."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nge_search.errors import UserError
from nge_search.metrics.retrieval import cosines
from nge_search.retrieve.nas_set import (
    NasSetSettings,
    distances,
    edited,
    farthest,
    genotype_of,
    nas_set,
    random_code,
    slot_features,
)
from nge_search.retrieve.tasks import same_family


def slow_distance(first: np.ndarray, second: np.ndarray) -> int:
    total = 0
    for one, other in zip(first.tolist(), second.tolist()):
        total += min(
            sum(a != b for pair in zip(one, swapped) for a, b in zip(*pair))
            for swapped in itertools.permutations(other)
        )
    return total


def test_distances_against_brute_force() -> None:
    random = np.random.default_rng(0)
    codes = np.stack([random_code(random) for _ in range(20)])
    for first in codes[:4]:
        assert distances(first, codes).tolist() == [slow_distance(first, second) for second in codes]
    assert distances(codes[0], codes[0][None, :, ::-1]).tolist() == [0]


def test_edits() -> None:
    """So many genes differ, all of them may, and what comes out is a genotype."""
    random = np.random.default_rng(1)
    code = random_code(random)
    changed = np.zeros(code.shape, bool)
    for edits in range(1, 29):
        for _ in range(10):
            found = edited(code, edits, random)
            assert (found[:, 0, 1] != found[:, 1, 1]).all()
            assert (found != code).sum() == edits
            changed |= found != code
            genotype_of(found)
    assert changed.sum() == 28
    assert not changed[[0, 4], :, 1].any()


def test_centres_are_far_apart() -> None:
    random = np.random.default_rng(2)
    pool = np.stack([random_code(random) for _ in range(60)])
    chosen = farthest(pool, 5)
    assert len(set(chosen)) == 5
    for count in range(1, 5):
        nearest = [min(slow_distance(pool[c], code) for c in chosen[:count]) for code in pool]
        assert nearest[chosen[count]] == max(nearest)


@pytest.mark.parametrize("exactly", [True, False])
def test_a_small_set(exactly: bool) -> None:
    """Members of a class are alike; the more genes are redrawn, the less."""
    found = []
    for edits in (2, 12):
        settings = NasSetSettings(4, 12, edits, exactly, 50)
        genotypes, classes = nas_set(settings, 0)
        assert classes == [number for number in range(4) for _ in range(12)]
        task = same_family([str(number) for number in classes])
        features = slot_features(genotypes)
        found.append(task.answers(cosines(features, features)).figures((20,))["map_at_20"])
        assert genotypes == nas_set(settings, 0)[0]
        assert genotypes != nas_set(settings, 1)[0]
    assert found[0] > 0.95
    assert found[1] < found[0]


def test_sets_that_cannot_be() -> None:
    with pytest.raises(UserError, match="1 to 28 edits"):
        NasSetSettings(edits=29)
    with pytest.raises(UserError, match="a pool of no fewer"):
        NasSetSettings(pool=3)
