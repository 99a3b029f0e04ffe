"""The report of cells that were drawn link by link: which, how each grew, what they share with good ones."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from nge_search.architecture.graph import Graph
from nge_search.design.record import Record, Shape, read_document
from nge_search.kinds import DRAWN
from nge_search.report.drawing.inline_svg import cell_svg
from nge_search.report.drawing.palette import kind_title
from nge_search.report.parts.growth import growth, shortened
from nge_search.report.parts.numbers import duration, number, plain, share
from nge_search.report.parts.page import Figure, Section, code, grid, notice, records
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import chart, configuration, hint

#: Cells that are drawn, and those of them whose steps are shown.
_MOST_CELLS, _MOST_GROWN = 12, 3
_SHAPES = (("links", "links"), ("from_inputs", "links from the input"), ("depth", "depth"), ("width", "width"))


def figures(run: Run) -> list[Figure]:
    """The headline: cells, draws, what taught."""
    summary = run.summary or {}
    taught = f"the {plain(number(summary.get('best')), 6)} best and worst"
    return [
        Figure(plain(number(summary.get("drawn")), 6), "Cells", f"{plain(number(summary.get('draws')), 6)} draws"),
        Figure(share(run.figure("link_accuracy")), "Links judged right", "in training"),
        Figure(plain(number(summary.get("labels")), 6), "Labels", f"{taught} teach"),
        Figure(str(summary.get("into", "–")), "Space", str(summary.get("source", ""))),
        Figure(duration(run.figure("seconds")), "Time", str(summary.get("device", ""))),
    ]


def sections(run: Run) -> list[Section]:
    told = (run.summary or {}).get("notices")
    notices = "".join(notice(str(text), "warning") for text in (told if isinstance(told, list) else []))
    record = run.read(DRAWN, read_document)
    curves = [
        chart(run, "Loss", {"loss": "loss"}),
        chart(run, "Links judged right", {"link_accuracy": "links judged right"}, "%", 100),
    ]
    return [
        Section("notices", "To be known", notices),
        *(_drawn(record) if record else []),
        Section("training", "Training", grid(curves)),
        *configuration(run),
    ]


def _drawn(record: Record) -> list[Section]:
    return [
        Section("cells", "Drawn cells", _cells(record)),
        Section("growth", "How they grew", _growth(record)),
        Section("shapes", "Drawn cells beside those that taught", _shapes(record)),
        Section("frequent", "Drawn most often", _frequent(record)),
    ]


def _cells(record: Record) -> str:
    if not record.cells:
        return ""
    drawings = [
        _drawing(f"{rank}. draw {cell.draw + 1}", f"log probability {plain(cell.log_probability, 3)}", cell.graphs)
        for rank, cell in enumerate(record.cells[:_MOST_CELLS], 1)
    ]
    words = (
        "The probability is that of the moves, in their order, given the number of them: the same cell may have "
        "grown in other ways, too."
    )
    more = len(record.cells) - _MOST_CELLS
    words += f" {more} more cells stand in {DRAWN}." * (more > 0)
    return _gallery(drawings) + hint(words) + code("\n".join(cell.name for cell in record.cells), "architectures")


def _growth(record: Record) -> str:
    shown = [
        growth(cell, f"Cell {rank}", f"growth-{rank}")
        for rank, cell in enumerate(record.cells[:_MOST_GROWN], 1)
        if cell.steps
    ]
    if not shown:
        return ""
    words = (
        "Before each move: the cell so far, and the moves that there were. The score is the link model's logit, "
        "the probability the softmax of the scores divided by the temperature. The move that was drawn is marked."
    )
    return hint(words) + "".join(shown)


def _frequent(record: Record) -> str:
    often = [cell for cell in record.frequent if cell.count > 1]
    drawings = [
        _drawing(f"{rank}.", f"{cell.count} of {record.counted} draws", cell.graphs)
        for rank, cell in enumerate(often, 1)
    ]
    return _gallery(drawings)


def _gallery(drawings: list[str]) -> str:
    return f'<div class="gallery">{"".join(drawings)}</div>' if drawings else ""


def _drawing(title: str, remark: str, graphs: Mapping[str, Graph]) -> str:
    svgs = "".join(cell_svg(graph, f"{title} {kind_title(kind)}") for kind, graph in graphs.items())
    caption = f'{escape(title)} <span class="unit">{escape(remark)}</span>'
    return f"<figure><figcaption>{caption}</figcaption>{svgs}</figure>"


def _shapes(record: Record) -> str:
    """What NAL's Figure 4 speaks of, of drawn cells and of those that taught."""
    columns = [_by_operation(record.shapes[name]) for name in ("drawn", "good", "bad")]
    figures = dict(_SHAPES)
    names = dict.fromkeys(name for column in columns for name in column if name not in figures)
    rows = [(shortened(name), *(plain(column.get(name, 0.0), 3) for column in columns)) for name in names]
    rows += [(title, *(plain(column.get(key, 0.0), 3) for column in columns)) for key, title in _SHAPES]
    heads = ["drawn", f"{len(record.good)} good", f"{len(record.bad)} bad"]
    words = (
        f"Drawn ones are those of {record.counted} draws, repeats counted. Operations are nodes here, and links "
        "lead from one to the next; depth is the number of links on the longest path, width the largest number of "
        "nodes that are equally deep."
    )
    return records("Means over cells", ["of a cell"], heads, rows) + hint(words)


def _by_operation(shape: Shape) -> dict[str, float]:
    """The means, those of an operation at different places of a cell added up."""
    found: dict[str, float] = {}
    for name, value in shape.items():
        key = name.split(" ", 1)[0]
        found[key] = found.get(key, 0.0) + value
    return found
