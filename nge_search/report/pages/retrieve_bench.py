"""The report of encoders that are compared: what each finds, by question, and against the first."""

from __future__ import annotations

import math
from typing import Any

from nge_search.report.parts.numbers import duration, number, plain
from nge_search.report.parts.page import Figure, Section, records
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import configuration, hint
from nge_search.retrieve.comparison import compare, summarise

_FIGURES = tuple(f"{name}_at_{depth}" for depth in (20, 50, 100) for name in ("mrr", "map", "ndcg"))
_MOST = 1 << 31

Result = dict[str, Any]


def figures(run: Run) -> list[Figure]:
    """The headline: the encoder that finds most, by question."""
    results, summary = summarise(_trials(run)), run.summary or {}
    found = []
    for task in dict.fromkeys(result["task"] for result in results):
        best = max((own for own in results if own["task"] == task), key=lambda own: own["map_at_20"]["mean"])
        found.append(Figure(_shown(best, "map_at_20"), f"MAP@20, {task}", best["model"]))
    return [
        *found,
        Figure(plain(len(run.rows), 6), "Trials", f"{summary.get('graphs', '–')} graphs"),
        Figure(duration(run.figure("seconds")), "Time", str(summary.get("device", ""))),
    ]


def sections(run: Run) -> list[Section]:
    trials = _trials(run)
    results = summarise(trials)
    found = [
        Section(f"task-{task}", f"Question: {task}", _table([own for own in results if own["task"] == task]))
        for task in dict.fromkeys(result["task"] for result in results)
    ]
    return [*found, Section("pairs", "Against the first", _pairs(trials)), *configuration(run)]


def _trials(run: Run) -> list[dict[str, Any]]:
    """The rows that tell of a trial."""
    names = ("task", "model", "seed", "queries", "families", *_FIGURES)
    return [{name: row[name] for name in names} for row in run.rows if _is_trial(row)]


def _is_trial(row: dict[str, Any]) -> bool:
    families = row.get("families")
    return (
        all(isinstance(row.get(name), str) for name in ("task", "model"))
        and all(type(row.get(name)) is int and abs(row[name]) < _MOST for name in ("seed", "queries"))
        and all(math.isfinite(number(row.get(name))) for name in _FIGURES)
        and isinstance(families, dict)
        and all(isinstance(own, list) and len(own) == 2 and all(map(_is_number, own)) for own in families.values())
    )


def _is_number(value: Any) -> bool:
    return math.isfinite(number(value))


def _shown(result: Result, figure: str) -> str:
    deviation = result[figure]["deviation"]
    return plain(result[figure]["mean"], 4) + ("" if deviation is None else f" ± {plain(deviation, 2)}")


def _table(results: list[Result]) -> str:
    rows = [(own["model"], *(_shown(own, name) for name in _FIGURES), str(own["seeds"])) for own in results]
    heads = [name.upper().replace("_AT_", "@") for name in _FIGURES]
    title = f"Mean ± deviation over seeds, {plain(results[0]['queries'], 6)} queries"
    return records(title, ["encoder"], [*heads, "seeds"], rows)


def _pairs(trials: list[dict[str, Any]]) -> str:
    rows = [
        (
            found["task"],
            f"{found['model']} − {found['against']}",
            plain(found["difference"], 3),
            plain(found["p"], 2),
            plain(found["mrr_difference"], 3),
            str(found["pairs"]),
        )
        for found in compare(trials)
    ]
    heads = ["MAP@20", "p", "MRR@20", "pairs of seeds"]
    words = "p: one-sided, that the difference of MAP@20 is chance; the two are exchanged family by family."
    found = records("Differences", ["question", "encoders"], heads, rows)
    return found + hint(words) if found else ""
