"""Cell drawings that a paper can print: matplotlib figures, SVG and PNG files, and pixels for TensorBoard.

The same graphs give the same bytes: no dates, a fixed hash salt, matplotlib's own fonts, and none of the
user's matplotlib settings. matplotlib is imported when something is drawn, never before.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nge_search.architecture.graph import Graph
from nge_search.files import user_path, write_atomic
from nge_search.report.drawing.layout import Box, CellLayout, Point, arrow, control_points, lay_out
from nge_search.report.drawing.palette import ALL_STYLES, INK, PAPER, kind_title, outline_colour, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_DPI = 200
SCREEN_DPI = 96

_LINE = "#566170"
_FAINT = "#8b95a3"
_INPUT_FILL = "#e3e7ec"
_NODE_FILL = "#2b3442"
_TITLE_HEIGHT, _LEGEND_ROW, _LEGEND_COLUMN = 30.0, 15.0, 112.0
_SIDE = 8.0
_FONT = "DejaVu Sans"
_NOT_KEPT = "node outside the output"

#: The cells of an architecture, by kind.
Graphs = Mapping[str, Graph]


def draw_cell(graph: Graph, title: str) -> Figure:
    """One cell with its title and legend, in a figure as large (in points) as its layout."""
    with _own_settings():
        return _figure([(title, lay_out(graph))])


def draw_cells(cells: Graphs) -> Figure:
    """All cells of an architecture, one above the other, with one legend."""
    with _own_settings():
        return _figure(list(_layouts(cells).values()))


def svg_of(cells: Graphs) -> str:
    """The drawing of `draw_cells` as the text of an SVG file."""
    with _own_settings():
        return _encode(_figure(list(_layouts(cells).values())), "svg").decode()


def save_drawings(cells: Graphs, folder: str | Path, stem: str = "genotype") -> list[Path]:
    """Write `stem`.svg and .png, and of two cells `stem`_normal and `stem`_reduce, each file atomically.

    The folder is made if it is missing.

    Returns:
        The paths.
    """
    layouts = _layouts(cells)
    figures = {stem: list(layouts.values())}
    if len(layouts) > 1:
        figures.update({f"{stem}_{kind}": [titled] for kind, titled in layouts.items()})
    paths = []
    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _own_settings():
        for name, titled in figures.items():
            figure = _figure(titled)
            for suffix in ("svg", "png"):
                path = folder / f"{name}.{suffix}"
                write_atomic(path, _encode(figure, suffix))
                paths.append(path)
    return paths


def save_sheet(entries: Sequence[tuple[str, Graphs]], *paths: Path) -> None:
    """Several architectures in one figure, each below its title, as SVG and PNG files (by their suffixes).

    The folder is made if it is missing.
    """
    titled = [
        (title if len(cells) == 1 else f"{title} {kind_title(kind).lower()}", lay_out(graph))
        for title, cells in entries
        for kind, graph in cells.items()
    ]
    with _own_settings():
        figure = _figure(titled)
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, _encode(figure, path.suffix[1:]))


def drawing_rgb(cells: Graphs) -> np.ndarray:
    """All cells as uint8 [height, width, 3], for TensorBoard."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _own_settings():
        figure = _figure(list(_layouts(cells).values()))
        figure.set_dpi(SCREEN_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _layouts(cells: Graphs) -> dict[str, tuple[str, CellLayout]]:
    """Title and layout of each kind of cell."""
    return {kind: (kind_title(kind), lay_out(graph)) for kind, graph in cells.items()}


@contextmanager
def _own_settings() -> Iterator[None]:
    """matplotlib's defaults instead of the user's settings, for as long as we draw."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "nge_search", "svg.fonttype": "path"})
        yield


def _encode(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == "svg":
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _figure(layouts: list[tuple[str, CellLayout]]) -> Figure:
    from matplotlib.figure import Figure

    shown = frozenset().union(*(layout.operations for _, layout in layouts))
    legend = [operation for operation in ALL_STYLES if operation in shown]
    legend += sorted(shown.difference(legend))
    if not all(box.kept for _, layout in layouts for box in layout.boxes):
        legend.append(_NOT_KEPT)
    width = max(*(layout.width for _, layout in layouts), 3 * _LEGEND_COLUMN) + 2 * _SIDE
    per_row = max(1, min(len(legend), int((width - 2 * _SIDE) // _LEGEND_COLUMN)))
    rows = -(-len(legend) // per_row)
    per_row = -(-len(legend) // max(1, rows))
    height = sum(layout.height + _TITLE_HEIGHT for _, layout in layouts) + rows * _LEGEND_ROW + 20
    figure = Figure(figsize=(width / 72, height / 72), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))  # one unit is one point, y downwards
    axes.axis("off")
    top = 0.0
    for title, layout in layouts:
        axes.text(_SIDE + 12, top + 19, title, fontsize=10, fontweight="bold", color=INK, va="center", family=_FONT)
        top += _TITLE_HEIGHT
        _draw_layout(axes, layout, ((width - layout.width) / 2, top), title.split()[0].lower())
        top += layout.height
    _draw_legend(axes, legend, per_row, width, top + 6)
    return figure


def _draw_layout(axes: Axes, layout: CellLayout, corner: Point, prefix: str) -> None:
    """Paper-coloured casings under the lines show which line passes over which at a crossing."""
    dx, dy = corner
    for edge in layout.edges:
        zorder = 1 + edge.source * 0.02
        _curves(axes, edge.curves, corner, PAPER, 4.0, zorder)
        _curves(axes, (*edge.curves, *edge.lanes), corner, _LINE, 1.1, zorder + 0.01)
    if layout.joins:  # there are none where operations are on nodes
        _curves(axes, layout.joins, corner, _LINE, 1.1, 3)
    if layout.edges:  # there are none in a cell that computes nothing
        _arrows(axes, (*layout.join_tips, *(tip for edge in layout.edges for tip in edge.tips)), corner)
    for box in layout.boxes:
        _draw_box(axes, box, (box.x + dx, box.y + dy), prefix)


def _curves(
    axes: Axes, curves: tuple[tuple[Point, Point], ...], corner: Point, colour: str, width: float, zorder: float
) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    points = [point for start, end in curves for point in (start, *control_points(start, end), end)]
    codes = [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4] * len(curves)
    outline = Outline(np.asarray(points) + corner, codes)
    cap = "butt" if colour == PAPER else "round"
    axes.add_patch(PathPatch(outline, fill=False, edgecolor=colour, linewidth=width, zorder=zorder, capstyle=cap))


def _arrows(axes: Axes, tips: tuple[Point, ...], corner: Point) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    points = [point for tip in tips for point in (*arrow(tip), tip)]
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY] * len(tips)
    outline = Outline(np.asarray(points) + corner, codes)
    axes.add_patch(PathPatch(outline, facecolor=_LINE, edgecolor=_LINE, linewidth=0.4, zorder=4))


def _draw_box(axes: Axes, box: Box, centre: Point, prefix: str) -> None:
    from matplotlib.patches import Circle

    text, size, ink = box.label, 8.0, INK
    if box.kind == "node":
        fill = _NODE_FILL if box.kept else PAPER
        ink = PAPER if box.kept else _NODE_FILL
        shape = Circle(centre, box.width / 2, facecolor=fill, edgecolor=_NODE_FILL, linewidth=1.1, zorder=5)
        size = 9.0
    elif box.kind == "pill":
        style = style_of(box.operation)
        text, ink = style.short, style.ink
        shape = _rounded(centre, box.width, box.height, box.height / 2, style.fill, outline_colour(style.fill))
    else:
        text, size = f"${box.label.replace('-', '{-}')}$", 10.5
        shape = _rounded(centre, box.width, box.height, 5.0, _INPUT_FILL, _FAINT)
    label = axes.text(
        *centre,
        text,
        fontsize=size,
        color=ink,
        ha="center",
        va="center_baseline" if box.kind == "pill" else "center",
        family=_FONT,
        math_fontfamily="stix",
        zorder=6,
        fontweight="bold" if box.kind == "node" else "normal",
    )
    name = f"{prefix}-{box.name}"
    shape.set_gid(name)
    label.set_gid(f"{name}-label")
    axes.add_patch(shape)


def _rounded(centre: Point, width: float, height: float, radius: float, fill: str, line: str):
    from matplotlib.patches import FancyBboxPatch

    corner = (centre[0] - width / 2, centre[1] - height / 2)
    style = f"round,pad=0,rounding_size={radius}"
    return FancyBboxPatch(
        corner, width, height, boxstyle=style, facecolor=fill, edgecolor=line, linewidth=0.8, zorder=5
    )


def _draw_legend(axes: Axes, operations: list[str], per_row: int, width: float, top: float) -> None:
    start = (width - per_row * _LEGEND_COLUMN) / 2 + 8
    for position, operation in enumerate(operations):
        row, column = divmod(position, per_row)
        x, y = start + column * _LEGEND_COLUMN, top + (row + 0.5) * _LEGEND_ROW
        if operation == _NOT_KEPT:
            text, swatch = _NOT_KEPT, _rounded((x + 6, y), 8, 8, 4, PAPER, _NODE_FILL)
        else:
            text, fill = style_of(operation).long, style_of(operation).fill
            swatch = _rounded((x + 6, y), 12, 8, 4, fill, outline_colour(fill))
        axes.add_patch(swatch)
        axes.text(x + 17, y, text, fontsize=7, color=INK, va="center_baseline", family=_FONT)
