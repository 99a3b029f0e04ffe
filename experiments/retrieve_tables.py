"""The rows of `retrieve.py` as tables in Markdown and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from predict_tables import markdown, three
from retrieve_encoders import LDA_OWN, SMOOTHED, TRANSFERRED, UNTRAINED, VARIANTS, by_chance

from nge_search.retrieve.comparison import compare, summarise
from nge_search.retrieve.layout import layout
from nge_search.retrieve.models import OURS

Row = dict[str, Any]

_COLUMNS = {
    "MRR": "mrr_at_20",
    "MAP@20": "map_at_20",
    "MAP@50": "map_at_50",
    "MAP@100": "map_at_100",
    "NDCG@20": "ndcg_at_20",
}
#: Beside untrained controls what learns from families, and what smoothing alone does.
_CONTROLS = (*UNTRAINED, "lda", *SMOOTHED)
#: Ours that are compared with all controls; others are with the best.
_WITH_ALL = ("own", "own_code")
#: Published encoders, each compared with what stands behind it.
_PUBLISHED = {"nar": ("gcn", "gat", *VARIANTS), TRANSFERRED: ("nar",), LDA_OWN: ("lda",)}


def told(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each question and encoder what it finds, the mean over seeds; of several seeds, what it finds in each."""
    found = []
    for result in summarise([_figures(row) for row in rows]):
        own = [row for row in rows if (row["task"], row["model"]) == (result["task"], result["model"])]
        one = {"task": result["task"], "model": result["model"], "seeds": [row["seed"] for row in own]}
        one |= {"sizes": size} if (size := own[0]["trial"]["set"]) else {}
        one |= {"queries": round(result["queries"], 1)}
        one |= {name: round(result[name]["mean"], 4) for name in _COLUMNS.values()}
        if len(own) > 1:
            one["by_seed"] = {name: [round(row[name], 4) for row in own] for name in ("mrr_at_20", "map_at_20")}
        found.append(one)
    return found


def comparisons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What ships and what is for code with every control, others of ours with the untrained one of highest MAP;
    published encoders with each other; discriminants of ours with others."""
    found = []
    for question in dict.fromkeys(row["task"] for row in rows):
        rows_of: dict[str, list[Row]] = {}
        for row in rows:
            if row["task"] == question:
                rows_of.setdefault(row["model"], []).append(_figures(row))
        maps = {name: float(np.mean([row["map_at_20"] for row in own])) for name, own in rows_of.items()}
        controls = sorted((name for name in maps if name in _CONTROLS), key=lambda name: -maps[name])
        best = [name for name in controls if name in UNTRAINED][:1]
        pairs = [(control, name) for name in maps if name in OURS for control in _controls(name, controls, best)]
        pairs += [(other, name) for name, others in _PUBLISHED.items() for other in others]
        for other, name in pairs:
            if {other, name} <= {*maps}:
                both = [rows_of[other], rows_of[name]]
                found += compare([*_of_seeds(*both), *_of_seeds(*reversed(both))])
    return [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in pair.items()}
        for pair in found
    ]


def _controls(name: str, controls: list[str], best: list[str]) -> list[str]:
    return controls if name in _WITH_ALL else best


def _of_seeds(rows: list[Row], others: list[Row]) -> list[Row]:
    """Rows, or for each seed of the others the one row of what no chance enters."""
    if by_chance(rows[0]["model"], rows[0]["task"]):
        return rows
    return [{**rows[0], "seed": row["seed"]} for row in others]


def _figures(row: Row) -> Row:
    """What `comparison` knows of a row."""
    return {name: row[name] for name in row if name not in ("trial", "date", "points")}


def in_lines(document: dict[str, Any]) -> str:
    """JSON, each item of a list on a line of its own."""
    parts = []
    for name, value in document.items():
        items = [f"\n    {json.dumps(item)}" for item in value] if isinstance(value, list) else []
        text = f"[{','.join(items)}\n  ]" if items else json.dumps(value)
        parts.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def tables(rows: Sequence[Row], compared: Sequence[dict[str, Any]]) -> str:
    """All questions of a part."""
    parts = []
    for question in dict.fromkeys(row["task"] for row in rows):
        asked = [row for row in rows if row["task"] == question]
        own = summarise([_figures(row) for row in asked])
        sizes = max((row["trial"]["set"] for row in asked), key=len)
        parts.append(f"\n### {question}, {own[0]['queries']:.0f} queries{', ' * bool(sizes)}{sizes}\n")
        lines = [
            [one["model"], *(spread(one[name]) for name in _COLUMNS.values()), str(one["seeds"])] for one in own
        ]
        parts.append(markdown(["encoder", *_COLUMNS, "seeds"], lines))
        lines = [_difference(pair) for pair in compared if pair["task"] == question]
        if lines:
            parts.append("\n" + markdown(["difference", "MAP@20", "p", "MRR"], lines))
    return "\n".join(parts)


def _difference(pair: dict[str, Any]) -> list[str]:
    return [
        f"{pair['model']} - {pair['against']}",
        f"{pair['difference']:+.4f}",
        f"{pair['p']:.2g}",
        f"{pair['mrr_difference']:+.4f}",
    ]


def spread(figure: dict[str, Any]) -> str:
    """Mean, and deviation over seeds."""
    return three(figure["mean"]) + ("" if not figure["deviation"] else f" ± {figure['deviation']:.3f}")


_COLOURS = {"cnn": "tab:blue", "attention": "tab:orange", "other": "tab:green"}


def draw_map(embedding_ND: np.ndarray, about: Sequence[dict[str, Any]], query_1D: np.ndarray, path: Path) -> None:
    """A point for each network, coloured by what mixes places; the largest families named; the query a star."""
    point_N2 = layout(np.vstack([embedding_ND, query_1D]).astype(np.float32), 0)
    figure, axes = _pyplot().subplots(figsize=(8, 8))
    for label, colour in _COLOURS.items():
        own = [place for place, one in enumerate(about) if one["label"] == label]
        axes.scatter(*point_N2[own].T, s=7, color=colour, label=label, alpha=0.6, linewidths=0)
    families = [one["family"] for one in about]
    for family in sorted(set(families), key=lambda name: -families.count(name))[:24]:
        own = [place for place, name in enumerate(families) if name == family]
        axes.annotate(family, np.median(point_N2[own], axis=0), fontsize=6, ha="center")
    axes.scatter(*point_N2[-1], s=120, marker="*", color="black", label="darts_v2")
    axes.legend(loc="lower right", fontsize=8)
    axes.set_axis_off()
    _save(figure, path)


def draw_panels(rows: Sequence[Row], path: Path) -> None:
    """The points of rows that have some, a panel for each, coloured by what the networks are (Figure 5)."""
    rows = [row for row in rows if "points" in row]
    if not rows:
        return
    questions = list(dict.fromkeys(row["task"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    size = 2.6 * len(models), 2.6 * len(questions)
    figure, axes = _pyplot().subplots(len(questions), len(models), figsize=size, squeeze=False)
    for own_axes in axes.flat:
        own_axes.set_axis_off()
    for row in rows:
        own_axes = axes[questions.index(row["task"])][models.index(row["model"])]
        kinds = np.array(row["points"]["kinds"])
        point_N2 = np.stack([row["points"]["x"], row["points"]["y"]], axis=1)
        for number, kind in enumerate(sorted(set(kinds.tolist()))):
            colour = _COLOURS.get(kind, f"C{number}")
            own_axes.scatter(*point_N2[kinds == kind].T, s=4, color=colour, linewidths=0)
        own_axes.set_title(f"{row['model']}, {row['task']}", fontsize=8)
    _save(figure, path)


def _pyplot() -> Any:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
    _pyplot().close(figure)
