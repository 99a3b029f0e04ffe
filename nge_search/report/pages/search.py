"""The report of a search: what was found, how P came to it, and the signs that a search goes wrong."""

from __future__ import annotations

import math
import shlex
from functools import lru_cache

from nge_search.architecture.genotype import Genotype
from nge_search.architecture.load import of_genotype
from nge_search.errors import UserError
from nge_search.predict.shipped import expected, of_space
from nge_search.report.drawing.inline_svg import node_name
from nge_search.report.drawing.palette import CELL_TITLES
from nge_search.report.parts.charts import Reference
from nge_search.report.parts.numbers import duration, percent, plain, scaled, share
from nge_search.report.parts.page import Figure, Section, code, grid, notice
from nge_search.report.parts.probabilities import evolution, heatmap
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import (
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
from nge_search.report.parts.selection import selection_sections
from nge_search.report.parts.trace import Trace, read_trace

#: Above this share of parameter-free operations a search has probably collapsed.
PARAMETER_FREE_LIMIT = 0.5

#: Published networks that are shown beside what was found.
_ALIKE = 5

#: Kinds of cell, and their names in legends.
_KINDS = {"normal": "normal", "reduce": "reduction", "cell": "cell"}
_ENTROPY = {f"entropy_{kind}": name for kind, name in _KINDS.items()}
_PARAMETER_FREE = {
    **{f"parameter_free_{kind}": f"{name}, share of P" for kind, name in _KINDS.items()},
    **{f"parameter_free_derived_{kind}": f"{name}, derived" for kind, name in _KINDS.items()},
}
_TARGET = {"target_size": "derived", "target_size_of_p": "of P alone"}
_SHOWN = (
    *("train_loss", "train_top1", "architecture_loss", "architecture_top1", "valid_loss", "valid_top1"),
    *("learning_rate", "embedding_learning_rate", "images_per_second", "peak_memory_mb"),
    *("dead_units", "expected_macs", "target_multiplier", "expected_latency", "target_changed"),
    *_TARGET,
    *_ENTROPY,
    *_PARAMETER_FREE,
)


def figures(run: Run) -> list[Figure]:
    """The headline: accuracy, cost of the search, and what the derived cells are made of."""
    best = max((value for _, value in run.points("valid_top1") if math.isfinite(value)), default=math.nan)
    top1 = run.figure("valid_top1")
    remark = f"best {percent(best)}" if math.isfinite(best) and best > top1 else ""
    kinds = {kind: name for kind, name in _KINDS.items() if run.points(f"entropy_{kind}")} or CELL_TITLES
    entropies = [run.last(f"entropy_{kind}") for kind in kinds]
    derived = [run.last(f"parameter_free_derived_{kind}") for kind in kinds]
    remark_kinds = " / ".join(_KINDS[kind] for kind in kinds) if len(kinds) > 1 else "mean over edges"
    macs, aimed = run.last("expected_macs"), run.last("target_size")
    return [
        Figure(percent(top1), "Validation top-1", remark or "of the supernet"),
        Figure(duration(run.figure("seconds")), "Search time", str((run.summary or {}).get("device", ""))),
        throughput(run),
        Figure(" / ".join(plain(value, 3) for value in entropies), "Entropy of P, nats", remark_kinds),
        Figure(
            " / ".join(map(share, derived)),
            "Parameter-free operations",
            "derived, " + remark_kinds if len(kinds) > 1 else "derived",
        ),
        Figure(scaled(macs), "Expected mult-adds of the supernet", _counted_edges(run)),
        *(
            [Figure(scaled(aimed), "Size of the derived network", _target_words(run))]
            if math.isfinite(aimed)
            else []
        ),
    ]


def _counted_edges(run: Run) -> str:
    """What `expected_macs` adds up."""
    edges = run.rows[-1].get("edges") if run.rows else None
    count = f"{len(edges)} " if isinstance(edges, list) and edges else ""
    return f"under P, on all {count}edges of its cells"


def sections(run: Run) -> list[Section]:
    traces = [trace for kind in _KINDS if (trace := read_trace(run, kind))]
    return [
        cells(run.graphs, text=run.notation),
        *selection_sections(run),
        Section("expected", "What to expect of them", _expected(run)),
        Section("alike", "Published networks most like them", _alike(run)),
        Section("retrain", "How to retrain", _retrain(run)) if _is_darts(run) else _look_up(run),
        Section("curves", "Curves", grid(_curves(run))),
        Section("p", "Operation probabilities", _probabilities(traces)),
        Section("evolution", "How P evolved", _evolution(traces)),
        Section("health", "Health of the search", _health(run, traces)),
        Section("norms", "Parameter norms", grid(norm_charts(run))),
        Section("other", "Other figures", grid(other_charts(run, _SHOWN))),
        genotype(run.genotype),
        *configuration(run),
    ]


def _is_darts(run: Run) -> bool:
    """Whether what was found, if anything, is in DARTS' notation."""
    return run.architecture is None or run.genotype is not None


def _look_up(run: Run) -> Section:
    """NAS-Bench-201's cells need no retraining: their accuracies are known."""
    command = f"nge table tables/nb201 --find {shlex.quote(str(run.path))}"
    remark = hint("tables/nb201 is the benchmark's table, which `nge table FILE --out tables/nb201` makes once.")
    return Section("accuracy", "Its true accuracy", code(command, "command") + remark)


def _expected(run: Run) -> str:
    """What cells of DARTS' space are expected to reach; empty for others."""
    expectation = expected(run.genotype)
    if expectation is None:
        return ""
    figure, source, *doubts = expectation.lines()
    return notice(figure) + hint(source) + "".join(notice(doubt, "warning") for doubt in doubts)


def _alike(run: Run) -> str:
    """The published networks that the network for ImageNet of a finished search's cells is most like."""
    if run.summary is None or run.genotype is None or not of_space(run.genotype):
        return ""
    try:
        found = _nearest(run.genotype)
    except UserError as error:
        return hint(f"This could not be told: {error}")
    command = f"nge retrieve query {shlex.quote(str(run.path))} --report like.html"
    remark = hint("With a map, and the operations that it shares with the first:")
    return found + remark + code(command, "command")


@lru_cache(maxsize=4)  # a run's report is written more than once
def _nearest(genotype: Genotype) -> str:
    from nge_search.report.parts.nearest_networks import nearest_table  # torch, which other pages do without
    from nge_search.retrieve.asked_network import of_architecture
    from nge_search.retrieve.catalogue import open_catalogue
    from nge_search.retrieve.query import ask

    asked = of_architecture(of_genotype(genotype), "the derived cells' network for ImageNet")
    return nearest_table(ask(open_catalogue(), asked, _ALIKE))


def _retrain(run: Run) -> str:
    if run.genotype is None:
        return hint("No cells have been derived yet.")
    text = code(run.retraining(), "command")
    if not run.genotype_saved:
        text += hint("The folder has no genotype.json yet; the command works once the search has written it.")
    return text


def _curves(run: Run) -> list[str]:
    phases = (("train", "weights (training)"), ("architecture", "architecture"), ("valid", "validation"))
    return [
        chart(run, "Loss", {f"{phase}_loss": name for phase, name in phases}),
        chart(run, "Top-1 accuracy", {f"{phase}_top1": name for phase, name in phases}, "%"),
        chart(run, "Learning rate of the weights", {"learning_rate": "weights"}),
        chart(run, "Learning rate of the embedding", {"embedding_learning_rate": "embedding"}),
        *shared_charts(run),
        chart(run, f"Size of the derived network, {_target_words(run)}", _TARGET),
        chart(run, "Expected latency of the supernet", {"expected_latency": _counted_edges(run)}, "ms", 1000),
        chart(run, "Multiplier of the expected size", {"target_multiplier": "multiplier"}),
        chart(run, "Operations that are not those of P alone", {"target_changed": "changed"}, from_zero=True),
        chart(run, "Expected mult-adds of the supernet", {"expected_macs": _counted_edges(run)}, from_zero=True),
    ]


def _target_words(run: Run) -> str:
    """What the wanted size is of, and how much it is."""
    macs, params = (run.setting(f"search.target_{of}") for of in ("macs", "params"))
    return f"wanted {params} parameters" if params else f"wanted {macs} mult-adds"


def _probabilities(traces: list[Trace]) -> str:
    if not traces:
        return ""
    nodes = (
        f"0 and 1 are the cell's inputs {node_name(0)} and {node_name(1)}, and node n of the drawings is n + 2 "
        "here, as in the genotype."
    )
    if any(trace.kind not in CELL_TITLES for trace in traces):
        nodes = "0 is the cell's input, the last node its output."
    return hint(f"Rows are edges, source→target: {nodes} Each row sums to 1.") + "".join(map(heatmap, traces))


def _evolution(traces: list[Trace]) -> str:
    if not traces:
        return ""
    reading = hint(
        "From the first epoch (left) to the last (right), one panel per edge; columns share a source, rows a "
        "target. The height of a colour is its operation's probability; outlined edges are kept."
    )
    return reading + "".join(map(evolution, traces))


def _health(run: Run, traces: list[Trace]) -> str:
    choices = max((len(trace.operations) for trace in traces), default=0)
    uniform = Reference(math.log(choices), f"uniform, ln {choices}") if choices > 1 else None
    charts = grid(
        [
            chart(
                run,
                "Entropy of P",
                _present(run, _ENTROPY),
                "nats, mean over edges",
                reference=uniform,
            ),
            chart(
                run,
                "Parameter-free operations",
                _present(run, _PARAMETER_FREE),
                "%",
                100,
                Reference(100 * PARAMETER_FREE_LIMIT, "50 %"),
            ),
            chart(run, "Dead units", {"dead_units": "dead units"}, "% of all", 100),
        ]
    )
    stopped, still = ((run.summary or {}).get(name) for name in ("stopped", "undecided"))
    early = notice(f"The search {stopped}.") if isinstance(stopped, str) else ""
    early += notice(f"{still}.", "warning") if isinstance(still, str) else ""
    return early + _collapse_hint(run) + charts if charts else early


def _present(run: Run, keys: dict[str, str]) -> dict[str, str]:
    """Without the keys of kinds of cell that the space lacks."""
    return {key: name for key, name in keys.items() if run.points(key)}


def _collapse_hint(run: Run) -> str:
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
        f"Operations without weights hold more than half ({'; '.join(above)}). "
        "A search that drifts to parameter-free operations often retrains poorly.",
        "warning",
    )
