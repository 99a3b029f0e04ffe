"""The report of cells that were drawn link by link: what drew them, and how it learnt."""

from __future__ import annotations

from nge_search.report.parts.numbers import duration, number, plain, share
from nge_search.report.parts.page import Figure, Section, grid, notice
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import chart, configuration


def figures(run: Run) -> list[Figure]:
    """The headline: cells, draws, what taught."""
    summary = run.summary or {}
    taught = f"the {plain(number(summary.get('best')), 6)} best and worst"
    return [
        Figure(plain(number(summary.get("drawn")), 6), "Cells", f"{plain(number(summary.get('draws')), 6)} draws"),
        Figure(share(number(summary.get("link_accuracy"))), "Links judged right", taught),
        Figure(plain(number(summary.get("labels")), 6), "Labels", str(summary.get("source", ""))),
        Figure(duration(number(summary.get("seconds"))), "Time", str(summary.get("device", ""))),
    ]


def sections(run: Run) -> list[Section]:
    told = (run.summary or {}).get("notices")
    notices = "".join(notice(str(text), "warning") for text in (told if isinstance(told, list) else []))
    curves = [
        chart(run, "Loss", {"loss": "loss"}, ""),
        chart(run, "Links judged right", {"link_accuracy": "share"}, ""),
    ]
    return [Section("notices", "To be known", notices), Section("training", "Training", grid(curves)), *configuration(run)]
