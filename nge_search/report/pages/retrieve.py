"""The report of an encoder of networks: how well it finds unseen families, what counts as new, and the map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nge_search.kinds import RETRIEVAL
from nge_search.report.parts.charts import Series, line_chart
from nge_search.report.parts.network_map import network_map, places_of
from nge_search.report.parts.numbers import duration, number, plain, share
from nge_search.report.parts.page import Figure, Section, grid, records, table
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import configuration, hint

_DEPTHS = (20, 50, 100)


def figures(run: Run) -> list[Figure]:
    """The headline: how well families are found whose names were not seen."""
    summary, quality = run.summary or {}, _mapping(run, "quality")
    novelty = _mapping(run, "novelty")
    return [
        Figure(plain(number(quality.get("map_at_20")), 3), "MAP@20", "families whose names it had not seen"),
        Figure(plain(number(quality.get("mrr_at_20")), 3), "MRR@20", "the same"),
        Figure(
            plain(number(novelty.get("area")), 3), "AUROC of what is new", "families left out against known ones"
        ),
        Figure(
            plain(number(summary.get("graphs")), 6), "Distinct graphs", f"{summary.get('networks', '–')} networks"
        ),
        Figure(str(summary.get("model", "–")), "Encoder", f"{summary.get('features', '–')} features"),
        Figure(duration(number(summary.get("seconds"))), "Time", str(summary.get("device", ""))),
    ]


def sections(run: Run) -> list[Section]:
    return [
        Section("quality", "How well it finds", _quality(_mapping(run, "quality"))),
        Section("novelty", "What counts as new", _novelty(_mapping(run, "novelty"))),
        Section("losses", "Losses", _losses(run)),
        Section("map", "Map of the corpus", _map(run)),
        Section("versions", "Versions", table(dict(_mapping(run, "versions")))),
        *configuration(run),
    ]


def _mapping(run: Run, key: str) -> Mapping[str, Any]:
    value = (run.summary or {}).get(key)
    return value if isinstance(value, dict) else {}


def _quality(quality: Mapping[str, Any]) -> str:
    rows = [
        (
            f"first {depth}",
            *(plain(number(quality.get(f"{name}_at_{depth}")), 4) for name in ("mrr", "map", "ndcg")),
        )
        for depth in _DEPTHS
        if math.isfinite(number(quality.get(f"map_at_{depth}")))
    ]
    words = (
        "Each network of a family of five or more is looked for in all others, by an encoder that had not seen the "
        "name of its family."
    )
    found = records("Families found", ["answers"], ["MRR", "MAP", "NDCG"], rows)
    return found + hint(words) if found else ""


def _novelty(novelty: Mapping[str, Any]) -> str:
    if not math.isfinite(number(novelty.get("threshold"))):
        return ""
    rows = [
        ("threshold of similarity", plain(number(novelty.get("threshold")), 4)),
        ("networks of known families below it", share(number(novelty.get("false_alarms")))),
        ("networks of families left out below it", share(number(novelty.get("detections")))),
        ("area under the curve of both (AUROC)", plain(number(novelty.get("area")), 3)),
    ]
    return records("When nothing is near", ["what"], ["value"], rows)


def _losses(run: Run) -> str:
    stages: dict[str, list[tuple[float, float]]] = {}
    for row in run.rows:
        if isinstance(row.get("stage"), str):
            own = stages.setdefault(row["stage"], [])
            own.append((len(own) + 1.0, number(row.get("loss"))))
    return grid([line_chart(f"Loss, {stage}", [Series(stage, points)]) for stage, points in stages.items()])


def _map(run: Run) -> str:
    document = run.document(RETRIEVAL) or {}
    entries = document.get("map")
    places = places_of([entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else [])
    found = network_map("Known networks", places)
    words = "t-SNE of cosines: near each other is alike; distances between far points tell nothing."
    return found + hint(words) if found else ""
