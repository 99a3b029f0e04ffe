"""The report of drawn cells that were measured: what each method's are worth, also in pairs of seeds."""

from __future__ import annotations

import math
from typing import Any

from nge_search.metrics.comparison import compare, summarise
from nge_search.report.parts.numbers import duration, mean_of, number, plain, share, with_deviation
from nge_search.report.parts.page import Figure, Section, notice, records
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import configuration, hint

_PLACE = ("method", "protocol")
_MOST = 1 << 31
#: By protocol what teaches, and the figures with their names; shares stand behind the accuracies.
_PROTOCOLS = {
    "oracle": "The best and worst of the whole table teach",
    "honest": "Random queries teach",
}
_ACCURACIES = (
    ("mean", "all"),
    ("mean_new", "new cells"),
    ("mean_queried", "queried cells"),
    ("best_by_signal", "best by validation"),
    ("best_by_signal_new", "best new by validation"),
    ("best", "best"),
    ("best_new", "best new"),
    ("best_random", "best of as many random"),
)
_SHARES = (("valid", "valid"), ("unique", "unique"), ("novel", "novel"))
_COUNTS = (("distinct_new", "different new cells"), ("draws", "draws"), ("queries", "queries"))
_COMPARED = (
    *(("mean_new", "mean of new cells"), ("best_by_signal", "best by validation")),
    *(("best", "best"), ("best_new", "best new")),
)

Result = dict[str, Any]


def figures(run: Run) -> list[Figure]:
    """The headline: the space, trials, the method with the best new cells by protocol, time."""
    results, summary = summarise(_trials(run), _PLACE), run.summary or {}
    found = [
        Figure(str(summary.get("space", "–")), "Space", str(summary.get("source", ""))),
        Figure(plain(len(run.rows), 6), "Trials", f"judged by {summary['score']}" if "score" in summary else ""),
    ]
    for protocol in _protocols(results):
        best = max((own for own in results if own["protocol"] == protocol), key=_mean_new)
        found.append(
            Figure(with_deviation(best, "mean_new"), f"Mean of new cells, {protocol}, %", str(best["method"]))
        )
    return [*found, Figure(duration(run.figure("seconds")), "Time", str(summary.get("device", "")))]


def sections(run: Run) -> list[Section]:
    rows = _trials(run)
    results = summarise(rows, _PLACE)
    told = (run.summary or {}).get("notices")
    notices = "".join(notice(str(text), "warning") for text in (told if isinstance(told, list) else []))
    return [
        Section("notices", "To be known", notices),
        *(
            Section(f"protocol-{place}", _PROTOCOLS.get(protocol, protocol), _of_protocol(protocol, results))
            for place, protocol in enumerate(_protocols(results))
        ),
        Section("pairs", "Against the first, in pairs of seeds", _pairs(rows)),
        *configuration(run),
    ]


def _trials(run: Run) -> list[dict[str, Any]]:
    """The rows that tell of a trial."""
    return [
        {key: value for key, value in row.items() if key in (*_PLACE, "seed") or math.isfinite(number(value))}
        for row in run.rows
        if all(isinstance(row.get(name), str) for name in _PLACE)
        and type(row.get("seed")) is int
        and abs(row["seed"]) < _MOST
    ]


def _protocols(results: list[Result]) -> list[str]:
    return list(dict.fromkeys(str(result["protocol"]) for result in results))


def _of_protocol(protocol: str, results: list[Result]) -> str:
    own = [result for result in results if result["protocol"] == protocol]
    words = (
        "New cells are none of those that taught; repeats count among them. Best by validation is the cell with "
        "the best signal, by its score; best is chosen by the score itself."
        if protocol == "oracle"
        else "New cells are different ones that were not queried. Best is the cell with the best signal of all "
        "that were queried and drawn, by its score."
    )
    parts = [
        _table("Accuracy in %, mean ± deviation over seeds", own, _ACCURACIES, with_deviation),
        _table("Of the draws", own, _SHARES, lambda result, key: share(mean_of(result, key))),
        _table("Counts, mean over seeds", own, _COUNTS, lambda result, key: plain(mean_of(result, key), 5)),
    ]
    return "".join(parts) + hint(words)


def _table(title: str, results: list[Result], columns: Any, write: Any) -> str:
    """A row for each method; columns that no method has are left out."""
    shown = [(key, name) for key, name in columns if any(key in result for result in results)]
    if not shown:
        return ""
    rows = [
        (str(result["method"]), *(write(result, key) for key, _ in shown), str(result["seeds"]))
        for result in results
    ]
    return records(title, ["method"], [*(name for _, name in shown), "seeds"], rows)


def _mean_new(result: Result) -> float:
    value = mean_of(result, "mean_new")
    return value if math.isfinite(value) else -math.inf


def _pairs(trials: list[dict[str, Any]]) -> str:
    rows = []
    for figure, name in _COMPARED:
        for found in compare(trials, figure, place=_PLACE):
            low, high = found["low"], found["high"]
            rows.append(
                (
                    f"{found['method']} − {found['against']}",
                    str(found["protocol"]),
                    name,
                    plain(found["mean"], 3),
                    "–" if low is None else f"{plain(low, 3)} to {plain(high, 3)}",
                    plain(math.nan if found["p"] is None else found["p"], 2),
                    str(found["pairs"]),
                )
            )
    heads = ["mean", "95 % interval", "p", "pairs"]
    return records("Differences in points of accuracy", ["methods", "protocol", "figure"], heads, rows)
