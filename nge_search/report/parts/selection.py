"""How a search chose its cell at the end, and how that compares with simple ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.architecture.load import read_architecture
from nge_search.errors import UserError
from nge_search.errors import plain as shown_text
from nge_search.report.parts.numbers import number, percent, plain
from nge_search.report.parts.page import Section, notice, records
from nge_search.report.parts.pareto import pareto_section
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import cells, hint

_MOST_SHOWN = 100
_LONGEST = 400


def selection_sections(run: Run) -> list[Section]:
    """What was chosen among, the cell that P alone derives, and the baselines; each may be empty."""
    summary = run.summary or {}
    selection, baselines = _mapping(summary.get("selection")), _mapping(summary.get("baselines"))
    sections = [Section("selection", "Selection", _selection(selection)), _derived(selection)]
    beside = Section("baselines", "Beside simple cells", _baselines(baselines))
    compared = [[baselines.get("found")], baselines.get("throughout"), baselines.get("random")]
    alike = "trials" if baselines.get("longer", 1) == 1 else "finals"  # only what was trained as long is compared
    groups = [selection.get(alike), *compared]
    trained = [record for group in groups for record in _records(group)]
    return [*sections, beside, pareto_section(trained)]


def _selection(selection: Mapping[str, Any]) -> str:
    if not selection:
        return ""
    method = _text(selection.get("method"))
    off = _text(selection.get("off"))
    starts = _trials(
        selection,
        "starts",
        f"Where the selection may begin, trained {_times(selection)} as long",
        "the derived cell",
    )
    edit = _text(selection.get("edit"))
    text = notice(f"By {method}: {edit}." if edit else f"By {method}: the cell that P derives stays.")
    if off:
        return notice(f"No edits are tried: {off}.", "warning") + text + starts
    begin = "where it began" if selection.get("start") else "the derived cell"
    finals = _trials(selection, "finals", f"The best of them, trained {_times(selection)} as long", begin)
    trials = _trials(selection, "trials", "Cells that were tried, the best first", begin)
    return text + finals + trials + starts + _decisions(selection)


def _times(selection: Mapping[str, Any]) -> str:
    return f"{plain(number(selection.get('longer')))} times"


def _trials(selection: Mapping[str, Any], key: str, title: str, first: str) -> str:
    """Cells that were tried, the best first; `first`: what the one is called that the others are edits of."""
    found = _records(selection.get(key))
    ranked = sorted(found, key=lambda trial: -_value(trial.get("value")))[:_MOST_SHOWN]
    rows = [(_text(trial.get("edit")) or first, *_figures(selection, trial)) for trial in ranked]
    return records(title, [f"edit of {first}"], _heads(selection), rows)


def _decisions(selection: Mapping[str, Any]) -> str:
    """What the supernet loses, decision by decision."""
    rows = []
    for decision in _records(selection.get("decisions"))[:_MOST_SHOWN]:
        top1 = decision.get("top1")
        left = [number(value) for value in top1] if isinstance(top1, list) else []
        worst = min((value for value in left if math.isfinite(value)), default=math.nan)
        best = max((value for value in left if math.isfinite(value)), default=math.nan)
        names = (_joined(decision.get(key)) for key in ("edges", "kept"))
        rows.append((_text(decision.get("kind")), *names, percent(worst), percent(best)))
    heads = ["without it", "without the least missed"]
    return records("Validation top-1 of the supernet", ["cell", "edges", "stays"], heads, rows)


def _derived(selection: Mapping[str, Any]) -> Section:
    """The cell that P alone derives, where another one was chosen."""
    given, graphs = selection.get("derived"), None
    if selection.get("edit") and isinstance(given, dict):
        graphs = _graphs(given)
    found = cells(graphs, "The cells that P alone derives")
    return Section("derived", found.title, found.body)


def _graphs(document: dict[str, Any]) -> Mapping[str, Graph] | None:
    try:
        return read_architecture(document).graphs
    except UserError:
        return None


def _baselines(baselines: Mapping[str, Any]) -> str:
    if not baselines:
        return ""
    found = _mapping(baselines.get("found"))
    own = [(("the cell found"), *_figures(baselines, found))]
    rows = [
        (f"{_text(record.get('name'))} throughout", *_figures(baselines, record))
        for record in _records(baselines.get("throughout"))
    ]
    rows += [
        (_text(record.get("name")), *_figures(baselines, record)) for record in _records(baselines.get("random"))
    ]
    kind = "" if baselines.get("beats") is True else "warning"
    remark = hint("One short training each, of the same steps and seed: small differences mean nothing.")
    verdict = notice(_text(baselines.get("verdict")), kind)
    return verdict + records("Under the same short training", ["cell"], _heads(baselines), own + rows) + remark


def _heads(of: Mapping[str, Any]) -> list[str]:
    return [_text(of.get("signal")) or "value", "validation top-1", "parameters"]


def _figures(of: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, str, str]:
    """The signal, as it is measured, the accuracy and the size; why a training failed in their place."""
    if "failed" in record:
        return f"failed: {_text(record['failed'])}", "", ""
    sign = -1 if of.get("sign") == -1 else 1
    value = sign * number(record.get("value"))
    return plain(value), percent(number(record.get("valid_top1"))), plain(number(record.get("params")), 8)


def _value(given: Any) -> float:
    value = number(given)
    return value if math.isfinite(value) else -math.inf


def _mapping(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}


def _records(given: Any) -> list[dict[str, Any]]:
    return [record for record in given if isinstance(record, dict)] if isinstance(given, list) else []


def _text(given: Any) -> str:
    return shown_text(given, _LONGEST) if isinstance(given, str) else ""


def _joined(given: Any) -> str:
    """Names, or edges as 0→2."""
    parts = given if isinstance(given, list) else []
    words = ("→".join(map(str, part[:2])) if isinstance(part, list) else _text(part) for part in parts)
    return ", ".join(words)[:_LONGEST]
