"""Where everything of a drawing of a NAS-Bench-201 cell lies: four nodes in a row, a pill on each edge."""

from __future__ import annotations

import math

from nge_search.report.layout import ARROW, PILL_HEIGHT, PILL_WIDTH, RADIUS, Box, CellLayout, Edge
from nge_search.spaces import Code, NasBench201Space

_SPACE = NasBench201Space()
_STEP, _LEFT, _MIDDLE = 130.0, 30.0, 118.0
_WIDTH, _HEIGHT = 2 * _LEFT + _STEP * (_SPACE.graph.vertices - 1), 184.0
_TURN = 74.0  # what a line takes to rise
#: How high an edge's pill lies above the row of nodes, and its ends above the centres of its circles.
_RISE = {(0, 2): (48.0, 4.0), (1, 3): (-48.0, -4.0), (0, 3): (100.0, 9.0)}


def lay_out_dense(code: Code) -> CellLayout:
    """The layout of a cell; edges that carry `none` are left out. A pill's gene is its edge."""
    nodes = [
        Box("node", str(node), _LEFT + _STEP * node, _MIDDLE, 2 * RADIUS, 2 * RADIUS)
        for node in range(_SPACE.graph.vertices)
    ]
    pills, edges, joins, join_tips = [], [], [], []
    for gene, ((source, target), operation) in enumerate(zip(_SPACE.graph.edges, code)):
        name = _SPACE.graph.operations[operation]
        if name != "none":
            rise, port = _RISE.get((source, target), (0.0, 0.0))
            x, y = (nodes[source].x + nodes[target].x) / 2, _MIDDLE - rise
            reach, level = math.sqrt(RADIUS**2 - port**2), _MIDDLE - port
            pills.append(Box("pill", name, x, y, PILL_WIDTH, PILL_HEIGHT, operation=name, gene=gene))
            start, tip = (nodes[source].x + reach, level), (x - PILL_WIDTH / 2, y)
            out, end = (x + PILL_WIDTH / 2, y), (nodes[target].x - reach, level)
            turns = (min(start[0] + _TURN, tip[0] - ARROW), y), (max(end[0] - _TURN, out[0] + ARROW), y)
            edges.append(Edge(source, ((start, turns[0]),), ((turns[0], tip),), (tip,)))
            joins += [(out, turns[1]), (turns[1], end)]
            join_tips.append(end)
    return CellLayout(_WIDTH, _HEIGHT, (*pills, *nodes), tuple(edges), tuple(joins), tuple(join_tips), 0)
