"""The report of predictors that are compared: ranking by number of labels, by how many are chosen, and in pairs."""

from __future__ import annotations

import math
import re
from typing import Any

from nge_search.metrics.comparison import compare, summarise
from nge_search.report.parts.charts import Series, line_chart
from nge_search.report.parts.numbers import duration, mean_of, number, plain, share, with_deviation
from nge_search.report.parts.page import Figure, Section, grid, records
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import configuration, hint

_PRECISION = re.compile(r"precision_at_([\d.]{1,8})")
_COVERED = ("covered_0.5", "covered_0.9")
_MOST = 1 << 31

Result = dict[str, Any]


def figures(run: Run) -> list[Figure]:
    """The headline: the best predictor on the most labels."""
    results, summary = _results(run), run.summary or {}
    found = [
        Figure(str(summary.get("space", "–")), "Space", str(summary.get("source", ""))),
        Figure(plain(len(run.rows), 6), "Trials", f"{len({_name(row) for row in results})} predictors"),
        Figure(duration(run.figure("seconds")), "Time", str(summary.get("device", ""))),
    ]
    if results:
        most = max(number(result["labels"]) for result in results)
        best = max((own for own in results if own["labels"] == most), key=_tau)
        remark = f"{_name(best)} on {plain(most, 6)} labels, {best['seeds']} seed{'s' * (best['seeds'] != 1)}"
        found.insert(0, Figure(with_deviation(best, "kendall_tau"), "Kendall's tau", remark))
    return found


def sections(run: Run) -> list[Section]:
    results = _results(run)
    return [
        Section("labels", "Kendall's tau against labels", _by_labels(results, "kendall_tau")),
        Section("half", "Kendall's tau half-way through training", _by_labels(results, "half_kendall_tau")),
        Section("precision", "The best among those chosen", _precision(results)),
        Section("pairs", "Against the first, in pairs of seeds", _pairs(run)),
        Section("intervals", "Intervals", _intervals(results)),
        *configuration(run),
    ]


def _trials(run: Run) -> list[dict[str, Any]]:
    """The rows that tell of a trial."""
    names = ("model", "budget")
    return [
        {
            key: value
            for key, value in row.items()
            if key in (*names, "labels", "seed") or math.isfinite(number(value))
        }
        for row in run.rows
        if all(isinstance(row.get(name), str) for name in names)
        and all(type(row.get(name)) is int and abs(row[name]) < _MOST for name in ("labels", "seed"))
    ]


def _results(run: Run) -> list[Result]:
    """Means and deviations, also of a run that is still at work."""
    return summarise(_trials(run))


def _name(result: Result) -> str:
    return str(result.get("model", ""))


def _tau(result: Result) -> float:
    value = mean_of(result, "kendall_tau")
    return value if math.isfinite(value) else -math.inf


def _models(results: list[Result]) -> list[str]:
    return list(dict.fromkeys(map(_name, results)))


def _by_labels(results: list[Result], figure: str) -> str:
    """A figure of every predictor by the number of labels; empty where none has it."""
    if not any(figure in result for result in results):
        return ""
    models, budgets = _models(results), list(dict.fromkeys(str(result["budget"]) for result in results))
    by_place = {(_name(result), str(result["budget"])): result for result in results}
    series = []
    for model in models:
        own = sorted((result for result in results if _name(result) == model), key=lambda result: result["labels"])
        series.append(Series(model, [(float(result["labels"]), mean_of(result, figure)) for result in own]))
    rows = [
        (model, *(with_deviation(by_place.get((model, budget), {}), figure) for budget in budgets))
        for model in models
    ]
    heads = []
    for budget in budgets:
        first = next(result for result in results if str(result["budget"]) == budget)
        heads.append(f"{first['labels']} labels" + (f" ({budget})" if budget.endswith("%") else ""))
    table = records("Mean ± deviation over seeds", ["predictor"], heads, rows)
    return grid([line_chart("Kendall's tau", series, axis="labels"), table])


def _precision(results: list[Result]) -> str:
    """P@K of every predictor on the most labels, by K in percent of the architectures."""
    series = []
    for model in _models(results):
        own = max((result for result in results if _name(result) == model), key=lambda result: result["labels"])
        points = [
            (100 * float(match[1]), 100 * mean_of(own, key)) for key in own if (match := _PRECISION.fullmatch(key))
        ]
        series.append(Series(f"{model}, {own['labels']} labels", sorted(points)))
    words = (
        "Of the K % of architectures with the highest scores, so many are among the K % with the best labels "
        "(Precision@K)."
    )
    chart = line_chart("Precision@K", series, "%", from_zero=True, axis="K in %")
    return grid([chart]) + hint(words) if chart else ""


def _pairs(run: Run) -> str:
    rows = []
    for found in compare(_trials(run)):
        low, high = found["low"], found["high"]
        rows.append(
            (
                f"{found['model']} − {found['against']}",
                str(found["budget"]),
                plain(found["mean"], 3),
                "–" if low is None else f"{plain(low, 3)} to {plain(high, 3)}",
                plain(math.nan if found["p"] is None else found["p"], 2),
                str(found["pairs"]),
            )
        )
    heads = ["labels", "mean", "95 % interval", "p", "pairs"]
    return records("Differences of Kendall's tau", ["predictors"], heads, rows)


def _intervals(results: list[Result]) -> str:
    rows = [
        (_name(result), str(result["labels"]), *(share(mean_of(result, key)) for key in _COVERED))
        for result in results
        if all(math.isfinite(mean_of(result, key)) for key in _COVERED)
    ]
    title = "Labels within the intervals that are to hold 50 % and 90 % of them"
    return records(title, ["predictor"], ["labels", "of 50 %", "of 90 %"], rows)
