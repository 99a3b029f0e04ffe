"""The rows of `retrieve.py` as tables in Markdown and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from predict_tables import markdown, three
from retrieve_encoders import LDA_OWN, TRANSFERRED, UNTRAINED

from nge_search.retrieve.comparison import compare, summarise
from nge_search.retrieve.layout import layout
from nge_search.retrieve.models import OURS

Row = dict[str, Any]

_COLUMNS = {"MRR": "mrr_at_20", "MAP@20": "map_at_20", "MAP@100": "map_at_100", "NDCG@20": "ndcg_at_20"}


def comparisons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each of ours with the control of highest MAP; where code is taken over, with all controls; discriminants of
    ours with others; what was trained on searched networks first, with what was not."""
    found = []
    for question in dict.fromkeys(row["task"] for row in rows):
        asked = [row for row in rows if row["task"] == question]
        maps = {result["model"]: result["map_at_20"]["mean"] for result in summarise(asked)}
        controls = sorted((name for name in maps if name in UNTRAINED), key=lambda name: -maps[name])
        controls = controls if question.startswith("code") else controls[:1]
        pairs = [(control, model) for control in controls for model in maps if model in OURS]
        pairs += [pair for pair in (("lda", LDA_OWN), ("nar", TRANSFERRED)) if {*pair} <= {*maps}]
        for first, second in pairs:
            own = [row for name in (first, second) for row in asked if row["model"] == name]
            found += compare(own)
    return found


def tables(rows: Sequence[Row], compared: Sequence[dict[str, Any]]) -> str:
    """All questions of a part."""
    parts = []
    for question in dict.fromkeys(row["task"] for row in rows):
        own = [result for result in summarise(rows) if result["task"] == question]
        parts.append(f"\n### {question}, {own[0]['queries']:.0f} queries\n")
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
