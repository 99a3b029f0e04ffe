"""The report of a predictor: how well it ranks what it has not seen, how sure it may be, and what it looks at."""

from __future__ import annotations

import math
from typing import Any

from nge_search.kinds import PREDICTION
from nge_search.report.parts.charts import Series, line_chart
from nge_search.report.parts.numbers import duration, number, plain, share
from nge_search.report.parts.page import Figure, Section, grid, notice, records
from nge_search.report.parts.run import Run
from nge_search.report.parts.scatter import Point, scatter
from nge_search.report.parts.sections import configuration, hint

_COVERED = (("covered_0.5", "50 %"), ("covered_0.9", "90 %"))
_MOST_SHOWN = 10


def figures(run: Run) -> list[Figure]:
    """The headline: its rank correlation, what its intervals held, what it learnt from."""
    summary = run.summary or {}
    low, high = _ends(summary.get("interval"))
    interval = f"95 % interval {plain(low, 3)} to {plain(high, 3)}" if math.isfinite(low + high) else ""
    found = [
        Figure(plain(number(summary.get("kendall_tau")), 3), "Kendall's tau, cross-validated", interval),
        Figure(plain(number(summary.get("labels")), 6), "Labels", str(summary.get("source", ""))),
        Figure(str(summary.get("model", "–")), "Predictor", str(summary.get("space", ""))),
    ]
    found += [
        Figure(share(number(summary.get(key))), f"of labels in {name} intervals", "out of fold")
        for key, name in _COVERED
        if math.isfinite(number(summary.get(key)))
    ]
    return [*found, Figure(duration(number(summary.get("seconds"))), "Time", str(summary.get("device", "")))]


def sections(run: Run) -> list[Section]:
    document = run.document(PREDICTION) or {}
    return [
        Section(
            "notices", "To be known", "".join(notice(str(text), "warning") for text in _listed(document, "notices"))
        ),
        Section("predictions", "Predictions of what was not seen", _predictions(document)),
        Section("curve", "What more labels would bring", _curve(document)),
        Section("importance", "What it looks at", _importance(document)),
        *configuration(run),
    ]


def _predictions(document: dict[str, Any]) -> str:
    entries = [entry for entry in _listed(document, "predictions") if isinstance(entry, dict)]
    points = [_point(entry) for entry in entries]
    if not points:
        return ""
    in_percent = any(isinstance(entry.get("quantiles"), list) for entry in entries)
    words = (
        f"Each architecture was predicted by a predictor that the other parts of the labels had taught "
        f"({plain(number(document.get('folds')), 6)} parts)."
    )
    if in_percent:
        words += " A line is the interval that is to hold the label in 90 % of cases."
    title = "Prediction against label"
    chart = scatter(title, points, "label in %", "predicted, %" if in_percent else "score", in_percent)
    return grid([chart, _calibration(document), _largest_errors(entries)]) + hint(words)


def _point(entry: dict[str, Any]) -> Point:
    quantiles = entry.get("quantiles")
    if isinstance(quantiles, list) and len(quantiles) == 5:
        low, _, middle, _, high = map(number, quantiles)
        return Point(number(entry.get("label")), middle, low, high)
    return Point(number(entry.get("label")), number(entry.get("score")))


def _calibration(document: dict[str, Any]) -> str:
    rows = [(name, share(value)) for key, name in _COVERED if math.isfinite(value := number(document.get(key)))]
    return records("Calibration", ["interval"], ["held of the labels"], rows)


def _largest_errors(entries: list[dict[str, Any]]) -> str:
    """The architectures whose labels surprise most."""
    points = [
        (abs(point.y - point.x), entry, point) for entry in entries if math.isfinite((point := _point(entry)).low)
    ]
    points.sort(key=lambda one: -one[0])
    rows = [
        (str(entry.get("architecture", "")), plain(point.x), plain(point.y))
        for _, entry, point in points[:_MOST_SHOWN]
    ]
    return records("Largest errors", ["architecture"], ["label", "predicted"], rows)


def _curve(document: dict[str, Any]) -> str:
    points: dict[str, list[tuple[float, float]]] = {"tau": [], "95 % interval, low": [], "high": []}
    for entry in _listed(document, "curve"):
        if isinstance(entry, dict) and math.isfinite(number(entry.get("labels"))):
            values = (number(entry.get("kendall_tau")), *_ends(entry.get("interval")))
            for own, value in zip(points.values(), values):
                own.append((number(entry["labels"]), value))
    if len(points["tau"]) < 2:
        return ""
    series = [Series(name, own) for name, own in points.items()]
    words = (
        "The interval tells how much tau would differ for other architectures, and not how much it would for "
        "predictors taught by other labels."
    )
    return grid([line_chart("Kendall's tau against labels learnt from", series, axis="labels")]) + hint(words)


def _importance(document: dict[str, Any]) -> str:
    rows = [
        (str(entry.get("group", "")), plain(number(entry.get("loss")), 3))
        for entry in _listed(document, "importance")
        if isinstance(entry, dict)
    ]
    title = "Loss of Kendall's tau where a group of features is that of another architecture"
    table = records(title, ["features"], ["loss"], rows)
    return table + hint("On the labels that it has learnt from.") if table else ""


def _listed(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def _ends(value: Any) -> tuple[float, float]:
    return (
        (number(value[0]), number(value[1]))
        if isinstance(value, list) and len(value) == 2
        else (math.nan, math.nan)
    )
