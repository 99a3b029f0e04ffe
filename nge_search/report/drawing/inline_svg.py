"""A cell drawing as SVG inside the report: the layout of `layout`, in the colours of the page's scheme."""

from __future__ import annotations

import re
from html import escape

from nge_search.architecture.graph import SUM, Graph
from nge_search.report.drawing.layers import is_terminal
from nge_search.report.drawing.layout import (
    Box,
    CellLayout,
    Point,
    arrow,
    control_points,
    drawn_number,
    lay_out,
)
from nge_search.report.drawing.palette import outline_colour, style_of

INPUT_NAMES = ("c\u2096\u208b\u2082", "c\u2096\u208b\u2081")  # c with the index k-2, k-1


def cell_svg(graph: Graph, title: str, numbered: bool = False) -> str:
    """An <svg> element; its description spells the cell out for those who can't see it.

    Args:
        numbered: nodes that are operations show their numbers.
    """
    return layout_svg(lay_out(graph), f"{title}: {describe(graph)}", numbered)


def layout_svg(layout: CellLayout, description: str, numbered: bool = False) -> str:
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
    parts.extend(_box(box, numbered) for box in layout.boxes)
    return "".join([*parts, "</svg>"])


def describe(graph: Graph) -> str:
    """A cell in words: `node 0 = sep 3×3(cₖ₋₂) + skip(cₖ₋₁); ...; output = node 0, node 1`."""
    sentences, inputs = [], len(graph.inputs)
    for node in graph.order:
        if node in graph.inputs:
            continue
        edges = [graph.edges[position] for position in graph.incoming[node]]
        sources = [node_name(edge.source, inputs) for edge in edges]
        if graph.nodes[node].name == SUM:
            names = [style_of(edge.label.name).short for edge in edges]
            text = " + ".join(f"{name}({source})" for name, source in zip(names, sources)) or "nothing"
        elif is_terminal(graph, node):
            sentences.append(f"output = {', '.join(sources)}")
            continue
        else:
            text = f"{style_of(graph.nodes[node].name).short}({' + '.join(sources)})"
        sentences.append(f"{node_name(node, inputs)} = {text}")
    return "; ".join(sentences)


def node_name(node: int, inputs: int = 2) -> str:
    """What drawings call a node of a cell with so many inputs."""
    return INPUT_NAMES[len(INPUT_NAMES) - inputs + node] if node < inputs else f"node {drawn_number(node, inputs)}"


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


def _box(box: Box, numbered: bool) -> str:
    if box.kind == "node":
        kind = "node" if box.kept else "node open"
        shape = f'<circle class="{kind}" cx="{box.x:.1f}" cy="{box.y:.1f}" r="{box.width / 2:.1f}"/>'
        return shape + _text(box, f"{kind}-label", box.label)
    left, top, _, _ = box.bounds
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    if box.kind == "pill":
        style = style_of(box.operation)
        gene = f'data-gene="{box.edge}" ' if box.edge >= 0 else ""
        shape = (
            f'<rect class="pill" {gene}data-operation="{escape(box.operation)}" {frame} '
            f'rx="{box.height / 2:.1f}" fill="{style.fill}" stroke="{outline_colour(style.fill)}">'
            f"<title>{escape(style.long)}</title></rect>"
        )
        number = f" {box.node}" if numbered and box.node >= 0 else ""
        return shape + _text(box, "pill-label", f"{escape(style.short)}{number}", f' fill="{style.ink}"')
    found = re.fullmatch(r"(\w+)_\{(.*)\}", box.label)
    assert found is not None, box.label  # all labels of inputs and outputs have an index
    base, index = found.groups()
    label = f'{base}<tspan class="index" dy="3">{escape(index).replace("-", "−")}</tspan>'
    return f'<rect class="terminal" {frame} rx="5"/>' + _text(box, "terminal-label", label)


def _text(box: Box, kind: str, label: str, extra: str = "") -> str:
    return f'<text class="{kind}" x="{box.x:.1f}" y="{box.y:.1f}" dy=".35em"{extra}>{label}</text>'
