"""The report's sections that any kind of run has: cells, curves, configuration, environment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from html import escape

from nge_search.architecture.genotype import EDGES_PER_NODE, Genotype
from nge_search.architecture.graph import CONCAT, SUM, Graph
from nge_search.kinds import CONFIG, GENOTYPE
from nge_search.report.drawing.inline_svg import cell_svg
from nge_search.report.drawing.palette import CELL_TITLES, kind_title
from nge_search.report.parts.charts import SERIES_STYLES, Reference, Series, line_chart
from nge_search.report.parts.numbers import duration, number, percent, plain, scaled
from nge_search.report.parts.page import Figure, Section, code, table
from nge_search.report.parts.run import Run

_BOOKKEEPING = frozenset({"epoch", "step", "seconds"})


def chart(
    run: Run,
    title: str,
    keys: Mapping[str, str],
    unit: str = "",
    factor: float = 1.0,
    reference: Reference | None = None,
    from_zero: bool = False,
    sparse: bool = False,
    axis: str = "epoch",
) -> str:
    """A line per key of `keys` (key of the rows: name in the legend), values times `factor`; empty without data.

    `sparse` is for keys that some rows are meant to lack: lines pass over these instead of breaking there.
    """
    series = [
        Series(name, [(epoch, factor * value) for epoch, value in run.points(key, sparse)])
        for key, name in keys.items()
    ]
    return line_chart(title, series, unit, reference, from_zero, axis)


def cells(graphs: Mapping[str, Graph] | None, title: str = "", text: str = "") -> Section:
    """All cells of an architecture, drawn; `text` is a notation to copy."""
    title = title or ("Derived cells" if graphs is None or len(graphs) > 1 else "Derived cell")
    if graphs is None:
        return Section("cells", title, "")
    drawings = "".join(
        f"<figure><figcaption>{kind_title(kind)}</figcaption>"
        f'<div class="scroll" tabindex="0">{cell_svg(graph, kind_title(kind))}</div></figure>'
        for kind, graph in graphs.items()
    )
    words = [hint(f"{_reading(graphs)} Rest the pointer on an operation for its full name.")]
    if text:
        words.append(code(text, "architecture"))
    return Section("cells", title, f'<div class="cells">{drawings}</div>{"".join(words)}')


def _reading(graphs: Mapping[str, Graph]) -> str:
    """How a drawing is to be read, by what it holds."""
    names = {label.name for graph in graphs.values() for label in graph.nodes}
    if CONCAT in names:
        return "A numbered circle adds up its operations; the output concatenates the filled ones."
    if SUM in names:
        return "A numbered circle adds up what its edges bring, and the last is the output; none is left out."
    return "An operation adds up what reaches it; the output concatenates what reaches it, and adds the input."


def genotype(found: Genotype | None) -> Section:
    """The genotype as JSON to copy: what genotype.json says, one line per node."""
    return Section("genotype", "Genotype", code(genotype_text(found), GENOTYPE) if found else "")


def genotype_text(found: Genotype) -> str:
    """The JSON form with the pairs of one node on one line."""
    entries = []
    for key, value in found.to_dict().items():
        text = json.dumps(value)
        if key in CELL_TITLES:
            pairs = [json.dumps(pair) for pair in value]
            nodes = [pairs[first : first + EDGES_PER_NODE] for first in range(0, len(pairs), EDGES_PER_NODE)]
            text = "[\n    " + ",\n    ".join(map(", ".join, nodes)) + "\n  ]"
        entries.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def shared_charts(run: Run) -> list[str]:
    """Throughput and memory."""
    return [
        chart(run, "Throughput", {"images_per_second": "images per second"}, "images/s", from_zero=True),
        chart(run, "Peak memory", {"peak_memory_mb": "peak memory"}, "MB", from_zero=True),
    ]


def other_charts(run: Run, known: Iterable[str]) -> list[str]:
    """One chart for every numeric key that no other section shows: a figure that is logged is a figure shown."""
    shown = _BOOKKEEPING.union(known)
    keys = dict.fromkeys(key for row in run.rows for key in row if key not in shown)
    return [chart(run, key.replace("_", " "), {key: key}) for key in keys]


def norm_charts(run: Run) -> list[str]:
    """Parameter norms, largest first, so that charts group norms of like size."""
    names: dict[str, float] = {}
    for row in run.rows:
        if isinstance(row.get("norms"), dict):
            for name, value in row["norms"].items():
                if math.isfinite(number(value)):
                    names[name] = number(value)
    ordered = sorted(names, key=lambda name: -names[name])
    charts = []
    for first in range(0, len(ordered), SERIES_STYLES):
        series = [
            Series(name, [(row["epoch"], _entry(row.get("norms"), name)) for row in run.rows])
            for name in ordered[first : first + SERIES_STYLES]
        ]
        charts.append(line_chart("Parameter norms", series))
    return charts


def _entry(values: object, name: str) -> float:
    return number(values.get(name)) if isinstance(values, dict) else math.nan


def remark(run: Run, value: float, key: str, best_key: str, highest: bool) -> str:
    """How a headline figure in percent was taken, and the best epoch's where that is better.

    Args:
        value: the figure.
        key: of the rows, accuracies in percent.
        best_key: of the summary, the best epoch's figure.
        highest: the figure is the accuracy itself, otherwise 100 less it.
    """
    summary = run.summary or {}
    tests = [(accuracy, epoch) for epoch, accuracy in run.points(key) if math.isfinite(accuracy)]
    words = "last epoch"
    if run.summary is None and tests and tests[-1][1] < run.rows[-1]["epoch"]:
        words = f"test at the end of epoch {plain(tests[-1][1], 6)}"
    seeds = number(summary.get("seeds"))
    if seeds >= 1:
        words += f", {plain(seeds, 6)} seed{'s' if seeds > 1 else ''}"
    sign = -1 if highest else 1  # times a figure: the lower, the better
    figures = [(-accuracy if highest else 100 - accuracy, epoch) for accuracy, epoch in tests]
    best, epochs = min(figures, default=(math.nan, math.nan))
    if math.isfinite(number(summary.get(best_key))):
        best, epochs = sign * number(summary[best_key]), number(summary.get("best_epoch"))
    if best < sign * value:
        words += f"; best {percent(sign * best)}"
        if math.isfinite(epochs):
            words += f" after {plain(epochs, 6)} epoch{'' if epochs == 1 else 's'}"
    return words


def training_time(run: Run) -> Figure:
    return Figure(duration(run.figure("seconds")), "Training time", str((run.summary or {}).get("device", "")))


def throughput(run: Run) -> Figure:
    return Figure(scaled(run.figure("images_per_second")), "Images per second")


def configuration(run: Run) -> list[Section]:
    """config.yaml as it is, and environment.json as a table."""
    text = code(run.config_text, CONFIG) if run.config_text.strip() else ""
    return [Section("config", "Configuration", text), Section("environment", "Environment", table(run.environment))]


def hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'
