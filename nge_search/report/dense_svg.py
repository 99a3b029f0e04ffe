"""A cell of NAS-Bench-201 as SVG inside the report: four nodes in a row, an operation on each edge."""

from __future__ import annotations

from html import escape

from nge_search.report.palette import outline_colour, style_of
from nge_search.spaces import Code, NasBench201Space

_SPACE = NasBench201Space()
_STEP, _LEFT, _MIDDLE = 130, 40, 112
_RADIUS, _PILL_WIDTH, _PILL_HEIGHT = 11, 54, 17
#: Height of the middle of an edge above the row of nodes.
_RISE = {(0, 2): 48, (1, 3): -48, (0, 3): 88}


def dense_cell_svg(code: Code) -> str:
    """An <svg> element; edges that carry `none` are left out."""
    width = 2 * _LEFT + _STEP * (_SPACE.graph.vertices - 1)
    parts = [
        f'<svg class="cell" viewBox="0 0 {width} 190" width="{width * 1.4:.0f}" role="img" '
        f'aria-label="Cell: {escape(_SPACE.text(code))}">'
    ]
    for edge, operation in zip(_SPACE.graph.edges, code):
        name = _SPACE.graph.operations[operation]
        if name != "none":
            parts.append(_edge(edge, name))
    for node in range(_SPACE.graph.vertices):
        label = f'<text class="node-label" x="{_x(node)}" y="{_MIDDLE}" dy=".35em">{node}</text>'
        parts.append(f'<circle class="node" cx="{_x(node)}" cy="{_MIDDLE}" r="{_RADIUS}"/>{label}')
    return "".join([*parts, "</svg>"])


def _x(node: int) -> int:
    return _LEFT + _STEP * node


def _edge(edge: tuple[int, int], name: str) -> str:
    source, target = edge
    rise, style = _RISE.get(edge, 0), style_of(name)
    start, end, middle = _x(source) + _RADIUS, _x(target) - _RADIUS, (_x(source) + _x(target)) / 2
    if rise:  # a quadratic curve passes half as high as its control point
        line = f"M{start},{_MIDDLE}Q{middle},{_MIDDLE - 2 * rise} {end},{_MIDDLE}"
    else:
        line = f"M{start},{_MIDDLE}L{end},{_MIDDLE}"
    y = _MIDDLE - rise
    return (
        f'<path class="edge" d="{line}"/><rect class="pill" data-edge="{source}-{target}" data-operation="{name}" '
        f'x="{middle - _PILL_WIDTH / 2}" y="{y - _PILL_HEIGHT / 2}" width="{_PILL_WIDTH}" height="{_PILL_HEIGHT}" '
        f'rx="{_PILL_HEIGHT / 2}" fill="{style.fill}" stroke="{outline_colour(style.fill)}">'
        f"<title>{escape(style.long)}</title></rect>"
        f'<text class="pill-label" x="{middle}" y="{y}" dy=".35em" fill="{style.ink}">{escape(style.short)}</text>'
    )
