"""The cells that a search trained, error against size: those that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nge_search.errors import plain as shown_text
from nge_search.metrics.pareto import hypervolume, pareto_front
from nge_search.report.parts.numbers import number, percent, plain, scaled
from nge_search.report.parts.page import Section, grid, records
from nge_search.report.parts.scatter import Point, scatter
from nge_search.report.parts.sections import hint

_COSTS = {"macs": "mult-adds", "params": "parameters"}
_FEWEST, _LONGEST, _MOST_SHOWN, _MOST_DRAWN = 3, 1000, 50, 2000


def pareto_section(trained: Sequence[Mapping[str, Any]], name: str = "architecture") -> Section:
    """A front for each size that the records have, beside the error of their `valid_top1`; empty for a few cells.

    Args:
        trained: a record for each cell; those without an accuracy or a size are left out.
        name: key of what a cell is called.
    """
    parts = [part for cost in _COSTS if (part := _front(trained, cost, name))]
    remark = hint(
        "No other cell of the search has both a smaller error and a smaller size than one of the front. The "
        "hypervolume is the share of the square from no error, and no size, to 100 % and the largest size seen "
        "that the front dominates. Errors are those of short trainings, or of a table's signal."
    )
    return Section("pareto", "Error and size", remark + "".join(parts) if parts else "")


def _front(trained: Sequence[Mapping[str, Any]], cost: str, name: str) -> str:
    found = {}  # a cell that was trained twice counts once
    for record in trained:
        pair = 100 - number(record.get("valid_top1")), number(record.get(cost))
        if 0 <= pair[0] <= 100 and 0 <= pair[1] < math.inf:
            found[str(record.get(name, ""))] = pair[1], pair[0]
    if len(found) < _FEWEST:
        return ""
    names, points = list(found), list(found.values())
    front = pareto_front(points)
    largest = max(size for size, _ in points) or 1.0
    covered = hypervolume([(size / largest, error / 100) for size, error in points], (1, 1))
    title = f"Validation error against {_COSTS[cost]}"
    drawn = scatter(title, [Point(*points[at]) for at in _drawn(front, len(points))], _COSTS[cost], "%", False)
    rows = [
        (shown_text(names[at], _LONGEST), scaled(points[at][0]), percent(points[at][1]))
        for at in front[:_MOST_SHOWN]
    ]
    heading = (
        f"The front: {len(front)} of {len(points)} cells, hypervolume {plain(covered)} below 100 % and "
        f"{scaled(largest)} {_COSTS[cost]}"
    )
    return grid([drawn]) + records(heading, ["cell"], [_COSTS[cost], "validation error"], rows)


def _drawn(front: Sequence[int], count: int) -> list[int]:
    """Positions of the points to draw: the front, and of the others so many that all are few enough."""
    on_it = set(front)
    others = [at for at in range(count) if at not in on_it]
    step = -(-len(others) // max(_MOST_DRAWN - len(on_it), 1)) or 1
    return [*others[::step], *front]
