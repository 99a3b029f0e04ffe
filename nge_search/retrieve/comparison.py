"""From the rows of trials to what they tell: means over seeds, and whether one encoder finds more than another.

A row says its "task", "model", "seed" and "queries"; "families" holds for each family of its queries how many of
them have an answer, and the sum of their average precisions at 20; what else is in it are figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nge_search.metrics.retrieval import Answers, family_permutation_test

_NAMES = ("epoch", "task", "model", "seed", "queries", "families", "seconds", "data")
_DEPTH = 20

Row = Mapping[str, Any]


def figures(answers: Answers, family_Q: np.ndarray) -> dict[str, Any]:
    """What a row holds of the answers to a question's queries."""
    precision_Q = answers.average_precisions(_DEPTH)
    asked_Q = ~np.isnan(precision_Q)
    families = {
        str(name): [int(own_Q.sum()), round(float(precision_Q[own_Q].sum()), 6)]
        for name in np.unique(family_Q[asked_Q])
        if (own_Q := asked_Q & (family_Q == name)).any()
    }
    found = {name: round(value, 6) for name, value in answers.figures().items()}
    return {**found, "queries": int(asked_Q.sum()), "families": families}


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each task and model, in the rows' order, the mean and deviation of every figure over seeds.

    The deviation is that of the population, null of one seed.
    """
    results = []
    for task, model in dict.fromkeys((row["task"], row["model"]) for row in rows):
        own = [row for row in rows if (row["task"], row["model"]) == (task, model)]
        found = {}
        for name in dict.fromkeys(name for row in own for name in row if name not in _NAMES):
            values = [row[name] for row in own if row.get(name) is not None]
            if values:
                deviation = float(np.std(values)) if len(values) > 1 else None
                found[name] = {"mean": float(np.mean(values)), "deviation": deviation}
        queries = float(np.mean([row["queries"] for row in own]))
        results.append({"task": task, "model": model, "seeds": len(own), "queries": queries, **found})
    return results


def compare(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each task how much more every model finds than the first, in pairs of equal seeds.

    "difference" is of MAP at 20, "p" that it is no more than chance: one-sided, families exchanged as a whole,
    those of all seeds together.
    """
    found = []
    models = list(dict.fromkeys(row["model"] for row in rows))
    for task in dict.fromkeys(row["task"] for row in rows):
        own = {(row["model"], row["seed"]): row for row in rows if row["task"] == task}
        for model in models[1:]:
            seeds = [seed for name, seed in own if name == model and (models[0], seed) in own]
            if not seeds:
                continue
            pairs = [(own[model, seed], own[models[0], seed]) for seed in seeds]
            found.append(
                {"task": task, "model": model, "against": models[0], "pairs": len(pairs), **_paired(pairs)}
            )
    return found


def _paired(pairs: Sequence[tuple[Row, Row]]) -> dict[str, float]:
    means = [first["map_at_20"] - second["map_at_20"] for first, second in pairs]
    ranks = [first["mrr_at_20"] - second["mrr_at_20"] for first, second in pairs]
    totals: dict[str, list[float]] = {}
    for pair in pairs:
        for place, row in enumerate(pair):
            for family, (_, total) in row["families"].items():
                totals.setdefault(family, [0.0, 0.0])[place] += total
    total_F2 = np.array(list(totals.values())).reshape(-1, 2)
    p = family_permutation_test(total_F2[:, 0], total_F2[:, 1], np.array(list(totals)))
    return {"difference": float(np.mean(means)), "mrr_difference": float(np.mean(ranks)), "p": p}
