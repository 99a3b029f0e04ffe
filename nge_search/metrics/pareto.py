"""Which of several architectures no other is better than in every respect, and how much they cover.

Legend: N architectures, 2 objectives, both the less the better.
"""

from __future__ import annotations

from collections.abc import Sequence

#: An architecture's two objectives.
Pair = tuple[float, float]


def pareto_front(points_N2: Sequence[Pair]) -> list[int]:
    """Positions of the points that no other dominates, by ascending first objective; of equal ones the first.

    A point dominates another that it is at most as large as in both objectives, and smaller in one.
    """
    front: list[int] = []
    for position in sorted(range(len(points_N2)), key=lambda own: (points_N2[own], own)):
        if not front or points_N2[position][1] < points_N2[front[-1]][1]:
            front.append(position)
    return front


def hypervolume(points_N2: Sequence[Pair], reference: Pair) -> float:
    """The area of what some point dominates and that dominates `reference` (Zitzler and Thiele, 1998)."""
    area, height = 0.0, reference[1]
    for position in pareto_front(points_N2):
        first, second = points_N2[position]
        if first < reference[0] and second < height:
            area += (reference[0] - first) * (height - second)
            height = second
    return area
