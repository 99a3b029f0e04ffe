"""The report of drawn cells that were measured: figures by method and protocol."""

from __future__ import annotations

from nge_search.report.parts.numbers import duration, plain
from nge_search.report.parts.page import Figure, Section
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import configuration


def figures(run: Run) -> list[Figure]:
    """The headline: the space, trials, time."""
    summary = run.summary or {}
    return [
        Figure(str(summary.get("space", "–")), "Space", str(summary.get("source", ""))),
        Figure(plain(len(run.rows), 6), "Trials", ""),
        Figure(duration(run.figure("seconds")), "Time", str(summary.get("device", ""))),
    ]


def sections(run: Run) -> list[Section]:
    return [*configuration(run)]
