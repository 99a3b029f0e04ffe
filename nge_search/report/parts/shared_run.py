"""What two networks have in common, drawn: where it stands in each of them, and its operations with their edges."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nge_search.architecture.graph import Graph

_WIDTH, _STRIP = 420, 12
_ROW, _BOX, _LEFT = 20, 15, 60
#: Operations that are drawn of a longer run.
_MOST = 24
#: Lanes that edges which pass operations by are drawn in, on the left.
_LANES = 5


def run_figure(title: str, graph: Graph, nodes: Sequence[int]) -> str:
    """A <figure> of the nodes `nodes` of a graph; empty without any."""
    if not nodes:
        return ""
    shown = list(nodes[:_MOST])
    left = f", the first {_MOST} are drawn" if len(nodes) > _MOST else ""
    words = f"{len(nodes)} operations in a row of {len(graph.nodes)}{left}"
    return (
        f'<figure><figcaption>{escape(title)} <span class="unit">{escape(words)}</span></figcaption>'
        f"{_strip(graph, nodes)}{_operations(graph, shown)}</figure>"
    )


def _strip(graph: Graph, nodes: Sequence[int]) -> str:
    """The network from its input to its output as a bar, with the run in it."""
    place = {node: position for position, node in enumerate(graph.order)}
    first, last = min(place[node] for node in nodes), max(place[node] for node in nodes)
    unit = _WIDTH / len(graph.nodes)
    start, width = first * unit, max((last + 1 - first) * unit, 1.5)
    return (
        f'<svg class="chart run" viewBox="0 0 {_WIDTH} {_STRIP}" role="img" '
        f'aria-label="operations {first + 1} to {last + 1} of {len(graph.nodes)}">'
        f'<rect class="whole" x="0" y="2" width="{_WIDTH}" height="{_STRIP - 4}" rx="3"/>'
        f'<rect class="k1" x="{start:.1f}" y="0" width="{width:.1f}" height="{_STRIP}" rx="2"/></svg>'
    )


def _operations(graph: Graph, nodes: Sequence[int]) -> str:
    """The operations from top to bottom; an edge that passes some by is a bow on the left."""
    row = {node: position for position, node in enumerate(nodes)}
    height = _ROW * len(nodes) + 6
    parts = [
        f'<svg class="chart run" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_spelt(graph, nodes)}">'
    ]
    for edge in graph.edges:
        if edge.source in row and edge.target in row:
            parts.append(_edge(row[edge.source], row[edge.target]))
    for node, position in row.items():
        y = position * _ROW + 3
        label = graph.nodes[node]
        parts.append(
            f'<rect class="operation" x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT - 2}" height="{_BOX}" rx="4"/>'
            f'<text x="{_LEFT + 8}" y="{y + _BOX / 2}" dy=".35em">{escape(str(label))}</text>'
        )
    return "".join([*parts, "</svg>"])


def _edge(source: int, target: int) -> str:
    start, end = source * _ROW + 3 + _BOX, target * _ROW + 3
    if target == source + 1:
        x = _LEFT + 20
        return f'<path class="edge" d="M{x},{start}L{x},{end}"/>'
    lane = _LEFT - 8 - (_LEFT - 14) * min(target - source - 1, _LANES) / _LANES
    start, end = start - _BOX // 2, end + _BOX // 2
    return f'<path class="edge" d="M{_LEFT},{start}C{lane:.0f},{start} {lane:.0f},{end} {_LEFT},{end}"/>'


def _spelt(graph: Graph, nodes: Sequence[int]) -> str:
    return escape(", ".join(graph.nodes[node].name for node in nodes))
