"""Columns: quantiles and bags of words against loops; isomorphic cells share them."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from nge_search.architecture.graph import INPUT, SUM, Graph
from nge_search.predict import analytic
from nge_search.predict.columns import (
    PLACES,
    SUBTREES,
    Bag,
    Columns,
    Scales,
    essences,
    place_words,
    subtree_words,
)
from nge_search.predict.encoding import Form
from nge_search.predict.splits import isomorphism_class
from nge_search.spaces import SPACES


def some(name: str, count: int, seed: int = 0) -> list[dict[str, Graph]]:
    space, random = SPACES[name](), np.random.default_rng(seed)
    return [space.graphs(space.random(random)) for _ in range(count)]


def test_scales_as_a_loop() -> None:
    random = np.random.default_rng(0)
    known_NF, asked_MF = random.integers(0, 5, (9, 3)).astype(float), random.integers(-1, 7, (20, 3)) / 1.0
    known_NF[:, 1] = 4.0
    scales = Scales()
    scales.fit(known_NF)
    found_MF, standard_MF = (part.numpy() for part in scales(asked_MF))
    assert scales.kept == [0, 2]
    for row, x_F in enumerate(asked_MF):
        for column, feature in enumerate(scales.kept):
            standard = (x_F[feature] - known_NF[:, feature].mean()) / known_NF[:, feature].std()
            assert abs(standard_MF[row, column] - standard) < 1e-12
            below = sum(known < x_F[feature] for known in known_NF[:, feature])
            equal = sum(known == x_F[feature] for known in known_NF[:, feature])
            expected = NormalDist().inv_cdf((below + equal / 2 + 0.5) / 10)
            assert abs(found_MF[row, column] - expected) < 1e-9


@pytest.mark.parametrize("words", [subtree_words, place_words])
def test_bags_are_cosines(words) -> None:
    known, asked = essences(some("nasbench101", 12)), essences(some("nasbench101", 6, seed=1))
    bag = Bag(words)
    known_NW = bag.fit(known)
    asked_MW = bag(asked)
    for row, mine in enumerate(known):
        for column, yours in enumerate(asked):
            a, b = words(mine), words(yours)
            lengths = [math.sqrt(sum(count**2 for count in bag.values())) for bag in (a, b)]
            cosine = sum(a[word] * b[word] for word in a) / (lengths[0] * lengths[1])
            assert abs(float(known_NW[row] @ asked_MW[column]) / bag.scale**2 - cosine) < 1e-12
    torch.testing.assert_close(asked_MW.norm(dim=1), torch.full((6,), bag.scale, dtype=torch.float64))
    squares = torch.cdist(known_NW, known_NW) ** 2 / known_NW.shape[1]
    assert abs(float(squares.mean()) - 2) < 1e-9


def test_places_of_a_small_cell() -> None:
    names, joined = ["input", "conv3x3-bn-relu", "maxpool3x3", "output"], [(0, 1), (1, 2), (2, 3), (0, 2)]
    graph = Graph.build(names, joined, [0], [3])
    skipping = Graph.build(
        [INPUT, SUM, SUM, SUM],
        [
            (0, 1, "conv3x3-bn-relu"),
            (1, 2, "maxpool3x3"),
            (2, 3, "skip_connect"),
            (0, 1, "none"),
            (1, 3, "skip_connect"),
        ],
        [0],
        [3],
    )
    assert place_words(essences([{"cell": skipping}])[0]) == {
        "cell/input/0": 1,
        "cell/conv3x3-bn-relu/1": 1,
        "cell/maxpool3x3/2": 1,
        "cell/sum/3": 1,
        "cell/0/1": 1,
        "cell/1/2": 1,
        "cell/1/3": 1,
        "cell/2/3": 1,
    }
    assert place_words({"cell": None}) == {"cell/dead": 1}
    assert place_words({"cell": graph}) == {
        "cell/input/0": 1,
        "cell/conv3x3-bn-relu/1": 1,
        "cell/maxpool3x3/2": 1,
        "cell/output/3": 1,
        "cell/0/1": 1,
        "cell/1/2": 1,
        "cell/0/2": 1,
        "cell/2/3": 1,
    }


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts", "enas_macro"])
def test_isomorphic_cells_have_equal_columns(name: str) -> None:
    """Numbered anew, and each asked for alone or together with others."""
    known = some(name, 20)
    moved = [{kind: _turned(cell) for kind, cell in cells.items()} for cells in known]
    columns = Columns(Form.of(SPACES[name]()))
    x_NF = columns.fit(known)
    assert torch.equal(columns(moved), x_NF)
    assert torch.equal(columns(moved[3:4] * 2 + known[:1]), x_NF[[3, 3, 0]])


def _turned(cell: Graph) -> Graph:
    return cell.renumbered(range(len(cell.nodes) - 1, -1, -1))


def test_cells_that_compute_the_same_have_the_same_words() -> None:
    """As `isomorphism_class` has it, at the depth to which subtrees look."""
    random, space = np.random.default_rng(1), SPACES["nasbench201"]()
    cells = [space.graphs(space.random(random)) for _ in range(300)]
    words = [(subtree_words(own), place_words(own)) for own in essences(cells)]
    classes: dict[tuple, list[int]] = {}
    for position, own in enumerate(cells):
        classes.setdefault(isomorphism_class(own), []).append(position)
    assert sum(len(members) > 1 for members in classes.values()) > 5
    assert all(words[one] == words[members[0]] for members in classes.values() for one in members)


def test_groups_are_those_of_the_features() -> None:
    known = some("darts", 10)
    columns = Columns(Form.of(SPACES["darts"]()))
    x_NF = columns.fit(known)
    scales = columns.quantiles, columns.standard
    numbers = [column for part in (*scales, columns.words) for group in part.values() for column in group]
    assert numbers == list(range(x_NF.shape[1]))
    assert list(columns.words) == [SUBTREES, PLACES]
    for kind in ("normal", "reduce"):
        raw_NA = analytic.features([cells[kind] for cells in known]).round(9)
        for group, names in analytic.GROUPS.items():
            varies = [analytic.NAMES.index(name) for name in names]
            varies = [feature for feature in varies if np.ptp(raw_NA[:, feature]) > 0]
            for scale in scales:
                own = scale.get(f"{group} of {kind}", [])
                assert len(own) == len(varies)
                for column, feature in zip(own, varies):
                    order_N = np.argsort(raw_NA[:, feature], kind="stable")
                    assert (x_NF[order_N, column].diff() >= 0).all()


def test_architectures_that_are_all_the_same() -> None:
    columns = Columns(Form.of(SPACES["nasbench201"]()), bags=())
    x_NF = columns.fit(some("nasbench201", 1) * 3)
    assert columns.quantiles == columns.standard == columns.words == {}
    assert torch.equal(x_NF, torch.zeros(3, 1, dtype=torch.float64))
    assert torch.equal(columns(some("nasbench201", 5, seed=1)), torch.zeros(5, 1, dtype=torch.float64))
