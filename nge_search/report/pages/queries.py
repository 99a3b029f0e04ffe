"""The report of a search by queries: what was found, against what there is, query by query."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from nge_search.kinds import GENOTYPE
from nge_search.report.parts.charts import Reference
from nge_search.report.parts.numbers import duration, number, percent, plain
from nge_search.report.parts.page import Figure, Section, code, grid, records
from nge_search.report.parts.pareto import pareto_section
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import cells, chart, configuration

_MOST_SHOWN = 10
#: Columns of a table that are sizes.
_SIZES = ("params", "macs")


def figures(run: Run) -> list[Figure]:
    """The headline: what the search saw, what the cell is worth, what it cost."""
    best = number((run.summary or {}).get("best"))
    cost = run.figure("simulated_seconds")
    if _by_training(run):
        return [
            Figure(plain(_sign(run) * run.figure("best_signal")), "Signal of the chosen cell", _signal_words(run)),
            Figure(percent(run.figure("score")), "Validation top-1 of the chosen cell", "after its short training"),
            Figure(plain(len(run.rows), 6), "Short trainings", str(run.setting("strategy.name"))),
            Figure(duration(run.figure("seconds")), "Search time", str((run.summary or {}).get("device", ""))),
            Figure(duration(cost) if cost else "–", "Time of all trainings", "one after the other"),
        ]
    return [
        Figure(percent(run.figure("score")), "Score of the chosen cell", _of(best)),
        Figure(
            percent(run.figure("best_signal")), "Signal of the chosen cell", str(run.setting("benchmark.signal"))
        ),
        Figure(plain(len(run.rows), 6), "Distinct queries", str(run.setting("strategy.name"))),
        Figure(duration(run.figure("seconds")), "Search time", str((run.summary or {}).get("device", ""))),
        Figure(duration(cost) if cost else "–", "Training time saved", "of all architectures asked for"),
    ]


def _by_training(run: Run) -> bool:
    return run.setting("evaluator.kind") == "training"


def _sign(run: Run) -> int:
    """-1 where signals in rows are figures with a minus, since less of them is better."""
    return -1 if _by_training(run) and run.setting("evaluator.signal") != "valid_top1" else 1


def _signal_words(run: Run) -> str:
    """What short trainings are compared by."""
    return str(run.setting("evaluator.signal")).replace("_", " ")


def _of(best: float) -> str:
    return f"the best in the table {percent(best)}" if math.isfinite(best) else ""


def sections(run: Run) -> list[Section]:
    best = number((run.summary or {}).get("best"))
    reference = Reference(best, "best in the table") if math.isfinite(best) else None
    signals, unit = {"signal": "of the query", "best_signal": "best so far"}, "" if _sign(run) < 0 else "%"
    title = f"Signal: {_signal_words(run)}" if _by_training(run) else "Signal"
    curves = [
        chart(run, "Score of the best by signal", {"score": "score"}, "%", reference=reference, axis="query"),
        chart(run, title, signals, unit, _sign(run), axis="query"),
    ]
    genotype = (run.summary or {}).get("genotype")
    text = code(json.dumps(genotype, indent=2), GENOTYPE) if isinstance(genotype, dict) else ""
    return [
        cells(run.graphs, text=run.notation),
        Section("genotype", "Genotype", text),
        Section("retrain", "How to retrain", _retrain(run)),
        Section("curves", "Queries", grid(curves)),
        Section("best", "Best by signal", _best(run)),
        pareto_section(_judged(run)),
        *configuration(run),
    ]


def _judged(run: Run) -> Sequence[dict[str, Any]]:
    """The queries with what is known of an architecture's accuracy, percent; none where signals are none."""
    if _by_training(run):
        return run.rows
    signal = str(run.setting("benchmark.signal"))
    if signal in _SIZES or "_seconds_" in signal:
        return []
    return [{**row, "valid_top1": row.get("signal")} for row in run.rows]


def _retrain(run: Run) -> str:
    """The line that trains what short trainings have found; a table's cells need none."""
    if not _by_training(run) or run.genotype is None:
        return ""
    return code(run.retraining(), "command")


def _best(run: Run) -> str:
    """The architectures with the best signals."""

    def signal(row: dict[str, Any]) -> float:
        value = number(row.get("signal"))
        return value if math.isfinite(value) else -math.inf

    shown = sorted(run.rows, key=signal, reverse=True)[:_MOST_SHOWN]

    def words(row: dict[str, Any]) -> str:
        value = _sign(run) * number(row.get("signal"))
        return plain(value) if _sign(run) < 0 else percent(value)

    rows = [(str(row.get("architecture", "")), plain(row["epoch"], 6), words(row)) for row in shown]
    return records("Architectures with the best signals", ["architecture"], ["query", "signal"], rows)
