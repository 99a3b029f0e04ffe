"""The report of a search: what was found, how P came to it, and the signs that a search goes wrong."""

from __future__ import annotations

import math

from nge_search.recipes import retrain_command
from nge_search.report.charts import Reference
from nge_search.report.inline_svg import node_name
from nge_search.report.numbers import duration, percent, plain, scaled, share
from nge_search.report.page import Figure, Section, code, grid, notice
from nge_search.report.probabilities import evolution, heatmap
from nge_search.report.run_folder import RunFolder
from nge_search.report.sections import (
    cells,
    chart,
    configuration,
    genotype,
    hint,
    norm_charts,
    other_charts,
    shared_charts,
    throughput,
)
from nge_search.report.trace import Trace, read_trace

#: Above this share of parameter-free operations a search has probably collapsed.
PARAMETER_FREE_LIMIT = 0.5

_PARAMETER_FREE = {
    "parameter_free_normal": "normal, share of P",
    "parameter_free_reduce": "reduction, share of P",
    "parameter_free_derived_normal": "normal, derived",
    "parameter_free_derived_reduce": "reduction, derived",
}
_SHOWN = (
    *("train_loss", "train_top1", "architecture_loss", "architecture_top1", "valid_loss", "valid_top1"),
    *("learning_rate", "embedding_learning_rate", "images_per_second", "peak_memory_mb"),
    *("entropy_normal", "entropy_reduce", "dead_units", "expected_macs"),
    *_PARAMETER_FREE,
)


def figures(run: RunFolder) -> list[Figure]:
    """The headline: accuracy, cost of the search, and what the derived cells are made of."""
    best = max((value for _, value in run.points("valid_top1") if math.isfinite(value)), default=math.nan)
    top1 = run.figure("valid_top1")
    remark = f"best {percent(best)}" if math.isfinite(best) and best > top1 else ""
    entropies = [run.last("entropy_normal"), run.last("entropy_reduce")]
    derived = [run.last("parameter_free_derived_normal"), run.last("parameter_free_derived_reduce")]
    macs = run.last("expected_macs")
    return [
        Figure(percent(top1), "Validation top-1", remark or "of the supernet"),
        Figure(duration(run.figure("seconds")), "Search time", str((run.summary or {}).get("device", ""))),
        throughput(run),
        Figure(" / ".join(plain(value, 3) for value in entropies), "Entropy of P, nats", "normal / reduction"),
        Figure(" / ".join(map(share, derived)), "Parameter-free operations", "derived, normal / reduction"),
        Figure(scaled(macs), "Expected mult-adds", "of the network under P"),
    ]


def sections(run: RunFolder) -> list[Section]:
    traces = [trace for kind in ("normal", "reduce") if (trace := read_trace(run, kind))]
    return [
        cells(run.genotype),
        Section("retrain", "How to retrain", _retrain(run)),
        Section("curves", "Curves", grid(_curves(run))),
        Section("p", "Operation probabilities", _probabilities(traces)),
        Section("evolution", "How P evolved", _evolution(traces)),
        Section("health", "Health of the search", _health(run, traces)),
        Section("norms", "Parameter norms", grid(norm_charts(run))),
        Section("other", "Other figures", grid(other_charts(run, _SHOWN))),
        genotype(run.genotype),
        *configuration(run),
    ]


def _retrain(run: RunFolder) -> str:
    if run.genotype is None:
        return hint("No cells have been derived yet.")
    text = code(retrain_command(run.path, run.config.get("data") or {}), "command")
    if not run.genotype_saved:
        text += hint("The folder has no genotype.json yet; the command works once the search has written it.")
    return text


def _curves(run: RunFolder) -> list[str]:
    phases = (("train", "weights (training)"), ("architecture", "architecture"), ("valid", "validation"))
    return [
        chart(run, "Loss", {f"{phase}_loss": name for phase, name in phases}),
        chart(run, "Top-1 accuracy", {f"{phase}_top1": name for phase, name in phases}, "%"),
        chart(run, "Learning rate of the weights", {"learning_rate": "weights"}),
        chart(run, "Learning rate of the embedding", {"embedding_learning_rate": "embedding"}),
        *shared_charts(run),
        chart(run, "Expected mult-adds", {"expected_macs": "expected mult-adds"}, from_zero=True),
    ]


def _probabilities(traces: list[Trace]) -> str:
    if not traces:
        return ""
    numbering = hint(
        f"Rows are edges, source→target: 0 and 1 are the cell's inputs {node_name(0)} and {node_name(1)}, and "
        "node n of the drawings is n + 2 here, as in the genotype. Each row sums to 1."
    )
    return numbering + "".join(map(heatmap, traces))


def _evolution(traces: list[Trace]) -> str:
    if not traces:
        return ""
    reading = hint(
        "From the first epoch (left) to the last (right), one panel per edge; columns share a source, rows a "
        "target. The height of a colour is its operation's probability; outlined edges are kept."
    )
    return reading + "".join(map(evolution, traces))


def _health(run: RunFolder, traces: list[Trace]) -> str:
    choices = max((len(trace.operations) for trace in traces), default=0)
    uniform = Reference(math.log(choices), f"uniform, ln {choices}") if choices > 1 else None
    charts = grid(
        [
            chart(
                run,
                "Entropy of P",
                {"entropy_normal": "normal", "entropy_reduce": "reduction"},
                "nats, mean over edges",
                reference=uniform,
            ),
            chart(
                run,
                "Parameter-free operations",
                _PARAMETER_FREE,
                "%",
                100,
                Reference(100 * PARAMETER_FREE_LIMIT, "50 %"),
            ),
            chart(run, "Dead units", {"dead_units": "dead units"}, "% of all", 100),
        ]
    )
    return _collapse_hint(run) + charts if charts else ""


def _collapse_hint(run: RunFolder) -> str:
    """A warning that names each share of parameter-free operations above the limit in the last epoch."""
    above = []
    for key, name in _PARAMETER_FREE.items():
        last = run.last(key)
        if last > PARAMETER_FREE_LIMIT:
            first = next(epoch for epoch, value in run.points(key) if value > PARAMETER_FREE_LIMIT)
            above.append(f"{name}: {share(last)}, first above 50 % in epoch {plain(first, 6)}")
    if not above:
        return ""
    return notice(
        f"Skip connections and pools hold more than half ({'; '.join(above)}). "
        "A search that drifts to parameter-free operations often retrains poorly.",
        "warning",
    )
