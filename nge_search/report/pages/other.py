"""The report of a kind of run that is not known: all of its figures and curves."""

from __future__ import annotations

import math

from nge_search.report.pages.classification import sections
from nge_search.report.parts.numbers import MISSING, duration, number, plain, scaled
from nge_search.report.parts.page import Figure
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import throughput

__all__ = ["figures", "sections"]

_HEADLINE = frozenset({"kind", "genotype", "seconds", "device", "epochs", "images_per_second"})


def figures(run: Run) -> list[Figure]:
    """The headline of a kind this report does not know: every number of its summary."""
    values = {key: number(value) for key, value in (run.summary or {}).items() if key not in _HEADLINE}
    known = [
        Figure(scaled(value) if abs(value) >= 1e4 else plain(value, 5), key.replace("_", " "))
        for key, value in values.items()
        if math.isfinite(value)
    ]
    timing = [Figure(duration(run.figure("seconds")), "Time", str((run.summary or {}).get("device", "")))]
    speed = [throughput(run)] if throughput(run).value != MISSING else []
    return known + timing + speed
