"""What notebooks show: a run's figures and cells, and cells alone, without a request or a script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from nge_search import kinds
from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.report.drawing.figure import svg_of
from nge_search.report.parts.numbers import number, plain

if TYPE_CHECKING:
    from nge_search.engine.watched_run import Run

#: Epochs whose figures are shown, and figures of an epoch.
_EPOCHS, _FIGURES = 5, 8
_LEFT_OUT = ("epoch", "step", "seconds", "peak_memory_mb")


def cells_svg(cells: Mapping[str, Graph]) -> str:
    """All cells of an architecture, one above the other, as an <svg> element."""
    text = svg_of(cells)
    return text[text.index("<svg") :]


def run_html(run: Run) -> str:
    """A run: how far it has come, the figures of its last epochs, its cells; what cannot be read is left out."""
    run = run.lenient()
    try:
        known = kinds.find(run.kind)
        title = known.title if known else "Run"
        of = "" if run.epochs is None else f" of {run.epochs}"
        state = "finished" if run.summary is not None else "unfinished"
        shown = f"{run.unit} {run.epoch}{of}, {state}", _table(run.history[-_EPOCHS:], run.unit)
    except UserError as error:  # of the system: a folder that may not be read
        title, shown = "Run", (escape(str(error)), "")
    place = f"<p><b>{escape(title)}</b> <code>{escape(str(run.folder))}</code>: {shown[0]}</p>"
    return f"<div>{place}{shown[1]}{_drawing(run)}</div>"


def _drawing(run: Run) -> str:
    """Its cells; empty where there are none that can be drawn."""
    try:
        found = run.architecture
        return "" if found is None else f"<div>{cells_svg(found.graphs)}</div>"
    except UserError:
        return ""


def _table(rows: tuple[dict[str, Any], ...], unit: str) -> str:
    """The single numbers of rows, a column for each; empty without a row."""
    if not rows:
        return ""
    names = [name for name, value in rows[-1].items() if number(value) == number(value) and name not in _LEFT_OUT]
    names = names[:_FIGURES]
    heads = "".join(f"<th>{escape(name)}</th>" for name in (unit, *names))
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(plain(number(row.get(name)), 5))}</td>' for name in ('epoch', *names))}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
