"""The rows of `design.py` as tables in Markdown: means with standard errors, and differences in pairs of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import design_published as paper
import numpy as np

from nge_search.design.protocol import paired

#: By name of a row, and seed: figures.
Repeats = Mapping[str, Mapping[str, Mapping[str, float]]]

#: Columns by part.
SHOWN = {
    "oracle": (
        *("mean", "mean_new", "best", "best_new", "best_by_signal", "best_by_signal_new"),
        *("valid", "unique", "novel", "distinct_new", "queries"),
    ),
    "ablations": ("mean", "mean_new", "best", "best_new", "unique", "novel", "distinct_new"),
    "honest": ("mean_queried", "mean_new", "best", "best_random", "gain", "draws", "queries"),
    "searches": ("after_30", "after_50", "after_100"),
}
#: Figures that are compared in pairs.
COMPARED = {
    "oracle": ("mean_new", "best_new"),
    "ablations": ("mean_new", "best_new"),
    "honest": ("mean_new", "best"),
    "searches": SHOWN["searches"],
}


def summary(repeats: Repeats) -> dict[str, dict[str, Any]]:
    """For each row its number of repeats, and by figure the mean and its standard error.

    `gain` is what `best` is above that of as many random queries, the first of which are the same.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, own in repeats.items():
        figures = dict.fromkeys(key for one in own.values() for key in one)
        rows[name] = {"repeats": len(own)}
        rows[name] |= {key: _mean([one[key] for one in own.values() if key in one]) for key in figures}
        if "best_random" in figures:
            rows[name]["gain"] = _mean([one["best"] - one["best_random"] for one in own.values()])
    return rows


def differences(
    repeats: Repeats, pairs: Sequence[tuple[str, str]], compared: Sequence[str]
) -> list[dict[str, Any]]:
    """Of all pairs of rows by figure the mean difference over the seeds that both have, and its standard error."""
    found = []
    for first, second in pairs:
        one, other = repeats.get(first, {}), repeats.get(second, {})
        for figure in compared:
            seeds = [seed for seed in one if seed in other and figure in one[seed] and figure in other[seed]]
            if len(seeds) > 1:
                mean, error = paired(*([own[seed][figure] for seed in seeds] for own in (one, other)))
                names = {"row": first, "against": second, "figure": figure, "pairs": len(seeds)}
                found.append({**names, "mean": round(mean, 4), "error": round(error, 4)})
    return found


def _mean(values: Sequence[float]) -> list[float]:
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return [round(float(np.mean(values)), 4), round(error, 4)]


def rows_table(rows: Mapping[str, Mapping[str, Any]], part: str) -> str:
    """A line for each row; seconds are of one core."""
    columns = (*SHOWN[part], "seconds")
    shown = [column for column in columns if any(column in row for row in rows.values())]
    lines = [
        [name, str(row["repeats"]), *(_figure(row[column]) if column in row else "" for column in shown)]
        for name, row in rows.items()
    ]
    return markdown(["row", "repeats", *shown], lines)


def _figure(figure: Sequence[float]) -> str:
    """Mean and standard error."""
    mean, error = figure
    return f"{mean:.2f} ± {error:.2f}" if error else f"{mean:.2f}".removesuffix(".00")


def differences_table(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each difference, in points and in standard errors."""
    lines = [
        [
            f"{own['row']} - {own['against']}",
            own["figure"],
            f"{own['mean']:+.3f} ± {own['error']:.3f}",
            f"{own['mean'] / own['error']:+.1f}" if own["error"] else "",
            str(own["pairs"]),
        ]
        for own in found
    ]
    return markdown(["difference", "figure", "mean", "standard errors", "pairs"], lines)


def orders(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The paper's ablations from the worst to the best mean, and ours, as far as they are there."""
    names = sorted(paper.TABLE4, key=lambda name: paper.TABLE4[name][0])
    lines = [f"the paper: {' < '.join(names)}"]
    for variant in ("ours", "printed"):
        own = {name: rows.get(f"{variant}, {name}" if name != "full" else variant) for name in names}
        means = {name: row["mean"][0] for name, row in own.items() if row}
        if len(means) > 1:
            lines.append(f"{variant}: {' < '.join(sorted(means, key=means.__getitem__))}")
    return lines


def print_paper(part: str) -> None:
    """The paper's figures, which are of NAS-Bench-101's cells of up to 7 vertices, trained for 108 epochs."""
    if part == "ablations":
        lines = [[name, *(f"{value:.2f}" for value in values)] for name, values in paper.TABLE4.items()]
        print(f"\nThe paper (7 vertices, Table 4):\n\n{markdown(['row', 'mean', 'best'], lines)}")
    else:
        table = [[name, str(queries), accuracy] for name, (queries, accuracy) in paper.TABLE1.items()]
        print(f"\nThe paper (7 vertices, Table 1):\n\n{markdown(['method', 'queries', 'best'], table)}")


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))
