"""The rows of `predict.py` as tables in Markdown: the paper's figures, ours, and differences in pairs of seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from nge_search.metrics.comparison import paired
from nge_search.metrics.ranking import kendall_tau

Row = dict[str, Any]
#: Of a part and a set, the paper's figures by model and number of labels.
Paper = Callable[[str, str], dict[str, dict[int, Any]]]

#: Pairs of models that are compared beside each variant and its base.
_PAIRS = (
    ("ta_gates", "control"),
    *(("ensemble", other) for other in ("gates", "ta_gates", "control", "analytic_gp", "flow")),
    *(("ta_gates", other) for other in ("multi_gates", "multi_control", "multi_lstm", "single_gates")),
)


def print_part(part: str, rows: Sequence[Row], titles: dict[str, str], paper: Paper) -> None:
    """Print all tables of a part, set by set."""
    for source in dict.fromkeys(row["trial"]["source"] for row in rows):
        for anytime in (False, True):
            own = [row for row in rows if row["trial"]["source"] == source and row["trial"]["anytime"] == anytime]
            if not own:
                continue
            print(f"\n### {titles[source]}\n")
            known = paper("table3" if anytime else part, source)
            if part == "calibration":
                print(figures(own, {"50 %": "covered_0.5", "90 %": "covered_0.9"}, {}))
            elif anytime:
                for index, (stage, prefix) in enumerate((("half", "half_"), ("final", ""))):
                    named = {name: f"{prefix}{figure}" for name, figure in _ANYTIME.items()}
                    of_stage = {
                        model: {count: pair[index] for count, pair in taus.items()} for model, taus in known.items()
                    }
                    print(f"{stage} accuracy\n\n{figures(own, named, of_stage)}\n")
            else:
                print(figures(own, {"tau": "kendall_tau", "last 5 epochs": "kendall_tau_last_5"}, known))
                print_others(known, own)
            print(f"\n{differences(own, 'kendall_tau')}")


_ANYTIME = {"tau": "kendall_tau", "LC": "pearson", "MSE": "mean_squared_error"}


def print_others(known: dict[str, dict[int, Any]], rows: Sequence[Row]) -> None:
    """The paper's table where none of its numbers of labels is among ours, as its sets are not at hand."""
    counts = sorted({count for taus in known.values() for count in taus})
    if known and not {row["labels"] for row in rows} & set(counts):
        lines = [[model, *(three(taus.get(count)) for count in counts)] for model, taus in known.items()]
        print("\nThe paper, on a set of its own that is not this one; labels:\n")
        print(markdown(["model", *map(str, counts)], lines))


def figures(rows: Sequence[Row], named: dict[str, str], known: dict[str, dict[int, Any]]) -> str:
    """Models by budgets: the paper's figure if there is one, then ours with deviations over seeds."""
    columns = []
    for budget in budgets_of(rows):
        if any(labels_of(budget) in taus for taus in known.values()):
            columns.append((budget, "paper", ""))
        own = [row for row in rows if row["trial"]["budget"] == budget]
        columns += [(budget, *pair) for pair in named.items() if any(row.get(pair[1]) is not None for row in own)]
    lines = []
    for model in dict.fromkeys(row["trial"]["model"] for row in rows):
        cells = [model]
        for budget, _, name in columns:
            of_paper = known.get(model, {}).get(labels_of(budget))
            cells.append(spread(by_seed(rows, name, model, budget)) if name else three(of_paper))
        lines.append(cells)
    return markdown(["model", *(f"{budget}: {title}" for budget, title, _ in columns)], lines)


def budgets_of(rows: Iterable[Row]) -> list[str]:
    """As they were asked for, in the rows' order."""
    return list(dict.fromkeys(row["trial"]["budget"] for row in rows))


def labels_of(budget: str) -> int:
    """A budget that is a number of labels; 0 for a share."""
    return int(budget) if budget.isdigit() else 0


def differences(rows: Sequence[Row], name: str) -> str:
    """Means of differences in pairs of seeds, with intervals of 95 % by Student's t."""
    variants = [row["trial"]["model"] for row in rows if "," in row["trial"]["model"]]
    compared = [(model, base) for model in variants for base in (model.partition(",")[0], "control")]
    lines = []
    for first, second in dict.fromkeys([*compared, *_PAIRS]):
        for budget in budgets_of(rows):
            one, other = (by_seed(rows, name, model, budget) for model in (first, second))
            pairs = [one[seed] - other[seed] for seed in one if seed in other]
            if pairs:
                found = paired(pairs)
                ends = "" if found["low"] is None else f"{found['low']:+.3f} to {found['high']:+.3f}"
                lines.append([f"{first} - {second}", budget, f"{found['mean']:+.3f}", ends, str(len(pairs))])
    return markdown(["difference of tau", "labels", "mean", "95 %", "pairs"], lines) if lines else ""


def by_seed(rows: Iterable[Row], name: str, model: str, budget: str) -> dict[int, float]:
    """A figure of a model by seed, the mean over its divisions."""
    found: dict[int, list[float]] = {}
    for row in rows:
        trial = row["trial"]
        if (trial["model"], trial["budget"]) == (model, budget) and row.get(name) is not None:
            found.setdefault(trial["seed"], []).append(row[name])
    return {seed: float(np.mean(values)) for seed, values in found.items()}


#: What is kept of a training in results/predict_PART.json.
_KEPT = (
    *("kendall_tau", "kendall_tau_last_5", "half_kendall_tau", "spearman", "pearson", "mean_squared_error"),
    *("precision_at_0.05", "covered_0.5", "covered_0.9", "fit_seconds", "score_seconds"),
)


def by_model(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each set, model and budget the seeds and divisions of its trainings, and a list of each figure."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        trial = row["trial"]
        groups.setdefault((trial["source"], trial["model"], trial["budget"]), []).append(row)
    found = []
    for (source, model, budget), own in groups.items():
        told = {"set": source, "model": model, "budget": budget, "labels": own[0]["labels"]}
        seeds = {"seeds": [row["trial"]["seed"] for row in own], "folds": [row["trial"]["fold"] for row in own]}
        named = {name: [row.get(name) for row in own] for name in _KEPT if any(name in row for row in own)}
        known = {name: [None if value is None else round(value, 4) for value in own] for name, own in named.items()}
        found.append({**told, **seeds, **known})
    return found


def plot(rows: Sequence[Row], titles: dict[str, str], path: Path) -> None:
    """Tau against the number of labels, mean and deviation over seeds: a panel for each set."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sources = list(dict.fromkeys(row["trial"]["source"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(sources), figsize=(6 * len(sources), 5), squeeze=False, layout="constrained"
    )
    for source, panel in zip(sources, panels[0]):
        own = [row for row in rows if row["trial"]["source"] == source]
        for model in dict.fromkeys(row["trial"]["model"] for row in own):
            counts = {row["trial"]["budget"]: row["labels"] for row in own if row["trial"]["model"] == model}
            budgets = sorted(counts, key=lambda budget: counts[budget])
            taus = [list(by_seed(own, "kendall_tau", model, budget).values()) or [np.nan] for budget in budgets]
            means, deviations = [np.mean(values) for values in taus], [np.std(values) for values in taus]
            panel.errorbar(
                [counts[budget] for budget in budgets], means, deviations, marker="o", capsize=3, label=model
            )
        panel.set(xscale="log", xlabel="labels", ylabel="Kendall's tau", title=titles[source].partition(",")[0])
        panel.legend(fontsize="small")
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def spread(values: dict[int, float]) -> str:
    """Mean, and deviation over seeds (of the population)."""
    if not values:
        return ""
    own = list(values.values())
    return three(np.mean(own)) + (f" ± {np.std(own):.3f}" if len(own) > 1 else "")


def three(value: Any) -> str:
    """Three digits behind the point, or four of small numbers; empty for what is not known."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.4f}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def ceiling(repeats_NR: np.ndarray, draws: int = 20) -> str:
    """What a perfect predictor of expected accuracies would reach, from the noise of repeated trainings.

    Labels are shrunk to the variance that is left without noise, then noise is drawn anew: as if it were normal,
    and alike for all architectures.
    """
    repeats_NR = repeats_NR.reshape(len(repeats_NR), -1)
    repeats_NR = repeats_NR[~np.isnan(repeats_NR).all(axis=1)]
    count_N = (~np.isnan(repeats_NR)).sum(axis=1)
    label_N = np.nanmean(repeats_NR, axis=1)
    several = count_N > 1
    if not several.any():
        return "no training is repeated, so that the ceiling is not known"
    square = np.nansum((repeats_NR[several] - label_N[several, None]) ** 2) / (count_N[several] - 1).sum()
    noise_N = np.sqrt(square / count_N)
    kept = max(0.0, 1 - float(np.mean(noise_N**2) / label_N.var()))
    truth_N = label_N.mean() + np.sqrt(kept) * (label_N - label_N.mean())
    random = np.random.default_rng(0)
    taus = [kendall_tau(truth_N, truth_N + random.normal(size=len(truth_N)) * noise_N) for _ in range(draws)]
    return (
        f"trainings of one cell deviate by {np.sqrt(square):.2f} points ({several.sum()} cells repeated); "
        f"a perfect predictor would reach tau {np.mean(taus):.3f}"
    )
