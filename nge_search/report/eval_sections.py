"""The report of a retraining, and of any other kind of run: its figures and all of its curves."""

from __future__ import annotations

import math

from nge_search.report.numbers import MISSING, duration, percent, plain, scaled
from nge_search.report.page import Figure, Section, grid
from nge_search.report.run_folder import RunFolder, number
from nge_search.report.sections import (
    cells,
    chart,
    configuration,
    genotype,
    norm_charts,
    other_charts,
    shared_charts,
    throughput,
)

_SHOWN = (
    *("train_loss", "train_top1", "test_loss", "test_top1", "test_top5"),
    *("learning_rate", "images_per_second", "peak_memory_mb", "drop_path"),
)
_HEADLINE = frozenset({"kind", "genotype", "seconds", "device", "epochs", "images_per_second"})


def figures(run: RunFolder) -> list[Figure]:
    """The headline of a retraining; before the summary exists, errors come from the last epoch."""
    best = min((100 - value for _, value in run.points("test_top1") if math.isfinite(value)), default=math.nan)
    top1, top5 = _error(run, "top1"), _error(run, "top5")
    remark = f"best {percent(best)}" if math.isfinite(best) and best < top1 else ""
    return [
        Figure(percent(top1), "Top-1 error", remark or "test"),
        Figure(percent(top5), "Top-5 error", "test"),
        Figure(scaled(run.figure("params")), "Parameters"),
        Figure(scaled(run.figure("macs")), "Mult-adds"),
        Figure(duration(run.figure("seconds")), "Training time", str((run.summary or {}).get("device", ""))),
        throughput(run),
    ]


def other_figures(run: RunFolder) -> list[Figure]:
    """The headline of a kind this report does not know: every number of its summary."""
    values = {key: number(value) for key, value in (run.summary or {}).items() if key not in _HEADLINE}
    known = [
        Figure(scaled(value) if abs(value) >= 1e4 else plain(value, 5), key.replace("_", " "))
        for key, value in values.items()
        if math.isfinite(value)
    ]
    timing = [Figure(duration(run.figure("seconds")), "Time", str((run.summary or {}).get("device", "")))]
    speed = [throughput(run)] if throughput(run).value != MISSING else []
    return known + timing + speed


def sections(run: RunFolder) -> list[Section]:
    curves = [
        chart(run, "Loss", {"train_loss": "training", "test_loss": "test"}),
        chart(
            run,
            "Accuracy",
            {"train_top1": "training top-1", "test_top1": "test top-1", "test_top5": "test top-5"},
            "%",
        ),
        chart(run, "Learning rate", {"learning_rate": "learning rate"}),
        chart(run, "Drop-path probability", {"drop_path": "drop-path"}),
        *shared_charts(run),
    ]
    return [
        cells(run.genotype, "Cells"),
        Section("curves", "Curves", grid(curves)),
        Section("norms", "Parameter norms", grid(norm_charts(run))),
        Section("other", "Other figures", grid(other_charts(run, _SHOWN))),
        genotype(run.genotype),
        *configuration(run),
    ]


def _error(run: RunFolder, rank: str) -> float:
    """The summary's error in percent, else that of the last test."""
    value = number((run.summary or {}).get(f"{rank}_error"))
    return value if math.isfinite(value) else 100 - run.last(f"test_{rank}")
