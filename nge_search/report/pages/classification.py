"""The report of a retraining: its figures and all of its curves."""

from __future__ import annotations

import math

from nge_search.report.parts import evaluation_sections
from nge_search.report.parts.numbers import number, percent, plain, scaled
from nge_search.report.parts.page import Figure, Section, grid
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import (
    cells,
    chart,
    configuration,
    genotype,
    norm_charts,
    other_charts,
    remark,
    shared_charts,
    throughput,
    training_time,
)

_SHOWN = (
    *("train_loss", "train_top1", "test_loss", "test_top1", "test_top5", "ema_loss", "ema_top1", "ema_top5"),
    *("learning_rate", "images_per_second", "peak_memory_mb", "drop_path", "unreadable_images"),
)
_TOP = 5


def figures(run: Run) -> list[Figure]:
    """The headline of a retraining; before the summary exists, errors come from the last epoch."""
    top1, averaged = _error(run, "top1_error", "test_top1"), _error(run, "ema_top1_error", "ema_top1")
    shown = [Figure(percent(top1), "Top-1 error, test", remark(run, top1, "test_top1", "best_top1_error", False))]
    if math.isfinite(averaged):
        shown.append(Figure(percent(averaged), "Top-1 error, averaged weights", "last epoch"))
    top5 = _error(run, "top5_error", "test_top5") if _has_top5(run) else math.nan
    if math.isfinite(top5):
        shown.append(Figure(percent(top5), "Top-5 error, test", "last epoch"))
    shown += [
        Figure(scaled(run.figure("params")), "Parameters"),
        Figure(scaled(run.figure("macs")), "Mult-adds"),
        training_time(run),
        throughput(run),
    ]
    unreadable = run.figure("unreadable_images")
    if unreadable > 0:
        shown.append(Figure(plain(unreadable, 7), "Unreadable images"))
    return shown


def sections(run: Run) -> list[Section]:
    unreadable = any(value > 0 for _, value in run.points("unreadable_images"))
    accuracies = {
        "train_top1": "training top-1",
        "test_top1": "test top-1",
        "test_top5": "test top-5",
        "ema_top1": "test top-1, averaged weights",
        "ema_top5": "test top-5, averaged weights",
    }
    if not _has_top5(run):
        accuracies = {key: name for key, name in accuracies.items() if not key.endswith("top5")}
    curves = [
        chart(run, "Loss", {"train_loss": "training", "test_loss": "test", "ema_loss": "test, averaged weights"}),
        chart(run, "Accuracy", accuracies, "%"),
        chart(run, "Learning rate", {"learning_rate": "learning rate"}),
        chart(run, "Drop-path probability", {"drop_path": "drop-path"}),
        *shared_charts(run),
        *([chart(run, "Unreadable images", {"unreadable_images": "images"}, from_zero=True)] if unreadable else []),
    ]
    return [
        cells(run.graphs, "Cells", run.notation),
        Section("curves", "Curves", grid(curves)),
        evaluation_sections.confusion(run.evaluation),
        evaluation_sections.worst(run.evaluation),
        Section("norms", "Parameter norms", grid(norm_charts(run))),
        Section("other", "Other figures", grid(other_charts(run, _SHOWN))),
        genotype(run.genotype),
        *configuration(run),
    ]


def _has_top5(run: Run) -> bool:
    """Whether top-5 says anything: earlier versions recorded it among five classes or fewer, too."""
    return run.evaluation is None or len(run.evaluation.classes) > _TOP


def _error(run: Run, key: str, accuracy: str) -> float:
    """The summary's error `key` in percent, else that of the last test with an `accuracy`."""
    value = number((run.summary or {}).get(key))
    return value if math.isfinite(value) else 100 - run.last(accuracy)
