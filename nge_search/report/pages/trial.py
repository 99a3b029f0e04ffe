"""The report of a short training."""

from __future__ import annotations

from nge_search.report.parts.numbers import percent, plain, scaled
from nge_search.report.parts.page import Figure, Section
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import cells, configuration, genotype, throughput, training_time


def figures(run: Run) -> list[Figure]:
    """The three signals, the network's size, and the time."""
    return [
        Figure(plain(run.figure("valid_loss")), "Validation loss"),
        Figure(percent(run.figure("valid_top1")), "Validation top-1"),
        Figure(plain(run.figure("train_losses")), "Sum of training losses"),
        Figure(scaled(run.figure("params")), "Parameters"),
        Figure(scaled(run.figure("macs")), "Mult-adds"),
        training_time(run),
        throughput(run),
    ]


def sections(run: Run) -> list[Section]:
    """What was trained, and with which settings."""
    return [cells(run.graphs, "Cells", run.notation), genotype(run.genotype), *configuration(run)]
