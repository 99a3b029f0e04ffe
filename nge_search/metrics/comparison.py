"""From the rows of trials to what they tell: means and deviations over seeds, and differences in pairs of seeds.

A row says who competes (its "model", or "method") and on what terms (its "budget" as it was asked for, or
"protocol"), its "seed", and its "fold" and "labels" where it has any; what else is in it are figures, which may be
null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

#: What a row says of its trial and of its run; everything else in it is a figure.
_NAMES = ("epoch", "model", "budget", "method", "protocol", "labels", "seed", "fold", "seconds", "data")

Row = Mapping[str, Any]

#: Of a row: who competes, and on what terms.
Place = tuple[str, str]


def summarise(rows: Sequence[Row], place: Place = ("model", "budget")) -> list[dict[str, Any]]:
    """For each competitor and its terms, in the rows' order, the mean and deviation of every figure over seeds.

    Where a seed has several divisions its figures are first averaged over these. The deviation is that of the
    population, null of one seed.
    """
    results = []
    for names in dict.fromkeys(tuple(row[key] for key in place) for row in rows):
        own = [row for row in rows if tuple(row[key] for key in place) == names]
        figures = {}
        for name in dict.fromkeys(name for row in own for name in row if name not in _NAMES):
            by_seed = list(_by_seed(own, name).values())
            if by_seed:
                deviation = float(np.std(by_seed)) if len(by_seed) > 1 else None
                figures[name] = {"mean": float(np.mean(by_seed)), "deviation": deviation}
        labels = sorted({row["labels"] for row in own if "labels" in row})
        counted = {"labels": labels[0]} if labels else {}
        seeds = len({row["seed"] for row in own})
        results.append({**dict(zip(place, names)), **counted, "seeds": seeds, **figures})
    return results


def compare(
    rows: Sequence[Row], figure: str = "kendall_tau", level: float = 0.95, place: Place = ("model", "budget")
) -> list[dict[str, Any]]:
    """On all terms the difference of every other competitor to the first one, in pairs of equal seeds.

    Each has the mean, the ends of its interval by Student's t, and the p-value of no difference; null of less than
    two pairs.
    """
    who, terms = place
    rivals = list(dict.fromkeys(row[who] for row in rows))
    found = []
    for term in dict.fromkeys(row[terms] for row in rows):
        own = {
            rival: _by_seed([row for row in rows if (row[who], row[terms]) == (rival, term)], figure)
            for rival in rivals
        }
        for rival in rivals[1:]:
            pairs = [own[rival][seed] - own[rivals[0]][seed] for seed in own[rival] if seed in own[rivals[0]]]
            if pairs:
                names = {who: rival, "against": rivals[0], terms: term, "figure": figure}
                found.append({**names, **paired(pairs, level)})
    return found


def paired(differences: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """The mean of differences, its interval by Student's t, and the two-sided p-value of none."""
    count, mean = len(differences), float(np.mean(differences))
    found: dict[str, Any] = {"pairs": count, "mean": mean, "low": None, "high": None, "p": None}
    if count < 2:
        return found
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    if error == 0:
        return {**found, "low": mean, "high": mean, "p": 1.0 if mean == 0 else 0.0}
    reach = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    return {**found, "low": mean - reach, "high": mean + reach, "p": p}


def _by_seed(rows: Sequence[Row], name: str) -> dict[int, float]:
    """A figure by seed, averaged over the divisions that have it."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.get(name) is not None:
            found.setdefault(row["seed"], []).append(row[name])
    return {seed: float(np.mean(values)) for seed, values in found.items()}


def with_deviation(figure: Mapping[str, float | None] | None, digits: int) -> str:
    """Mean and deviation of a figure of `summarise`, in words."""
    if figure is None:
        return "undefined"
    deviation = "" if figure["deviation"] is None else f" +- {figure['deviation']:.{digits}f}"
    return f"{figure['mean']:.{digits}f}{deviation}"
