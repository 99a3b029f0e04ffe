"""The report of a corpus: how many networks became graphs, of which families, and which did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nge_search.errors import UserError
from nge_search.kinds import CORPUS
from nge_search.report.parts.numbers import duration, number, plain, scaled
from nge_search.report.parts.page import Figure, Section, records, table
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import configuration, hint

_MOST_SHOWN = 500


def figures(run: Run) -> list[Figure]:
    """The headline: networks, distinct graphs, families."""
    summary = run.summary or {}
    names = (("networks", "Networks"), ("graphs", "Distinct graphs"), ("large_families", "Families of 5 or more"))
    found = [Figure(plain(number(summary.get(key)), 6), title) for key, title in names]
    return [*found, Figure(duration(run.figure("seconds")), "Time", str(summary.get("device", "")))]


def sections(run: Run) -> list[Section]:
    summary = run.summary or {}
    return [
        Section("libraries", "Libraries", _libraries(run)),
        Section("families", "Families", _families(run)),
        Section("skipped", "Networks without a graph", _skipped(_mapping(summary, "reasons"))),
        Section("versions", "Versions", table(dict(_mapping(summary, "versions")))),
        *configuration(run),
    ]


def _mapping(summary: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = summary.get(key)
    return value if isinstance(value, dict) else {}


def _libraries(run: Run) -> str:
    heads = ["networks", "graphs", "skipped"]
    rows = [(str(row.get("library", "")), *(plain(number(row.get(head)), 6) for head in heads)) for row in run.rows]
    return records("What was traced", ["library"], heads, rows)


def _families(run: Run) -> str:
    """Of the corpus that the run left; nothing of one that is not there or damaged."""
    from nge_search.retrieve.corpus import read_corpus

    try:
        corpus = read_corpus(run.path / CORPUS)
    except UserError:
        return ""
    rows = []
    for family, count in sorted(corpus.families().items(), key=lambda pair: (-pair[1], pair[0])):
        own = [entry for entry in corpus.entries if entry.family == family]
        sizes = [network.parameters for entry in own for network in entry.networks]
        labels = ", ".join(sorted({entry.label for entry in own}))
        rows.append((family, labels, str(count), str(len(sizes)), f"{scaled(min(sizes))} to {scaled(max(sizes))}"))
    words = "Networks that share a graph are one; widths and resolutions leave no trace in it."
    return records("Families", ["family", "label"], ["graphs", "networks", "parameters"], rows) + hint(words)


def _skipped(reasons: Mapping[str, Any]) -> str:
    rows = [(name, str(why)) for name, why in list(reasons.items())[:_MOST_SHOWN]]
    return records("Networks without a graph", ["network", "reason"], [], rows)
