"""A cell drawing as SVG inside the report: the layout of `drawing`, in the colours of the page's scheme."""

from __future__ import annotations

import re
from html import escape

from nge_search.genotype import INPUT_NODES, Cell
from nge_search.report.layout import Box, CellLayout, Point, arrow, control_points, lay_out
from nge_search.report.palette import ALL_STYLES, STYLES, outline_colour

_INPUTS = ("c\u2096\u208b\u2082", "c\u2096\u208b\u2081")  # c with the index k-2, k-1


def cell_svg(cell: Cell, title: str) -> str:
    """An <svg> element; its description spells the cell out for those who can't see it."""
    return layout_svg(lay_out(cell), f"{title}: {describe(cell)}")


def layout_svg(layout: CellLayout, description: str) -> str:
    """An <svg> element of what a layout holds."""
    parts = [
        f'<svg class="cell" viewBox="0 0 {layout.width:g} {layout.height:g}" width="{layout.width * 1.6:.0f}" '
        f'role="img" aria-label="{escape(description)}">'
    ]
    for edge in layout.edges:
        parts.append(f'<path class="casing" d="{_curves(edge.curves)}"/>')
        parts.append(f'<path class="edge" d="{_curves((*edge.curves, *edge.lanes))}"/>')
    parts.append(f'<path class="edge" d="{_curves(layout.joins)}"/>')
    tips = (*layout.join_tips, *(tip for edge in layout.edges for tip in edge.tips))
    parts.append(f'<path class="tip" d="{"".join(_polygon(arrow(tip)) for tip in tips)}"/>')
    parts.extend(_box(box) for box in layout.boxes)
    return "".join([*parts, "</svg>"])


def describe(cell: Cell) -> str:
    """The cell in words: `node 0 = sep 3×3(cₖ₋₂) + skip(cₖ₋₁); ...; output = 0, 1`."""
    sentences = []
    for node in range(INPUT_NODES, INPUT_NODES + cell.nodes):
        terms = [f"{STYLES[operation].short}({node_name(source)})" for operation, source in cell.incoming(node)]
        sentences.append(f"{node_name(node)} = {' + '.join(terms)}")
    return "; ".join(sentences) + f"; output = {', '.join(node_name(node) for node in cell.concat)}"


def node_name(node: int) -> str:
    """What drawings call node `node` of a genotype."""
    return _INPUTS[node] if node < INPUT_NODES else f"node {node - INPUT_NODES}"


def _curves(curves: tuple[tuple[Point, Point], ...]) -> str:
    pieces = []
    for start, end in curves:
        first, second = control_points(start, end)
        pieces.append(f"M{_at(start)}C{_at(first)} {_at(second)} {_at(end)}")
    return "".join(pieces)


def _polygon(corners: tuple[Point, ...]) -> str:
    return "M" + "L".join(_at(corner) for corner in corners) + "Z"


def _at(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _box(box: Box) -> str:
    if box.kind == "node":
        kind = "node" if box.kept else "node open"
        shape = f'<circle class="{kind}" cx="{box.x:.1f}" cy="{box.y:.1f}" r="{box.width / 2:.1f}"/>'
        return shape + _text(box, f"{kind}-label", box.label)
    left, top, _, _ = box.bounds
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    if box.kind == "pill":
        style = ALL_STYLES[box.operation]
        shape = (
            f'<rect class="pill" data-gene="{box.gene}" data-operation="{box.operation}" {frame} '
            f'rx="{box.height / 2:.1f}" fill="{style.fill}" stroke="{outline_colour(style.fill)}">'
            f"<title>{escape(style.long)}</title></rect>"
        )
        return shape + _text(box, "pill-label", style.short, f' fill="{style.ink}"')
    base, index = re.fullmatch(r"(\w+)_\{(.*)\}", box.label).groups()
    label = f'{base}<tspan class="index" dy="3">{escape(index).replace("-", "−")}</tspan>'
    return f'<rect class="terminal" {frame} rx="5"/>' + _text(box, "terminal-label", label)


def _text(box: Box, kind: str, label: str, extra: str = "") -> str:
    return f'<text class="{kind}" x="{box.x:.1f}" y="{box.y:.1f}" dy=".35em"{extra}>{label}</text>'
