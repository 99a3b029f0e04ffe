"""Fronts and hypervolumes against definitions, point by point and square by square."""

from __future__ import annotations

import random

import pytest

from nge_search.metrics.pareto import hypervolume, pareto_front


def dominates(a, b):
    return a[0] <= b[0] and a[1] <= b[1] and a != b


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_dominates(seed):
    draw = random.Random(seed)
    points = [(draw.randrange(12), draw.randrange(12)) for _ in range(40)]
    front = pareto_front(points)
    assert front == sorted(front, key=points.__getitem__)
    undominated = {point for point in points if not any(dominates(other, point) for other in points)}
    assert {points[at] for at in front} == undominated
    assert len(front) == len(undominated)
    assert all(points.index(points[at]) == at for at in front)  # of equal ones the first


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_counts_unit_squares(seed):
    draw = random.Random(seed)
    points = [(draw.randrange(14), draw.randrange(14)) for _ in range(6)]
    squares = sum(any(a <= x and b <= y for a, b in points) for x in range(10) for y in range(11))
    assert hypervolume(points, (10, 11)) == squares


def test_nothing_covers_nothing():
    assert pareto_front([]) == []
    assert hypervolume([], (1, 1)) == 0
    assert hypervolume([(1, 0.5), (2, 2)], (1, 1)) == 0
