"""Where every box, label, edge and arrowhead of a cell drawing lies, in points, before anything is drawn.

A node that adds up is a block: the operations on its incoming edges as pills, one above the other, joined to a
numbered circle on their right. A node that is an operation is a pill itself. Edges run left to right, in the gaps
between columns. Both renderers (`figure`, with matplotlib; `inline_svg`, for the report) draw this layout, so both
show the same picture. x grows to the right, y downwards.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from nge_search.architecture.graph import SUM, Graph
from nge_search.report.drawing.layers import Item, Layers, Link, is_terminal, orderings

PILL_WIDTH, PILL_HEIGHT, PILL_GAP = 50.0, 17.0, 6.0
RADIUS = 10.5
_LINK = 19.0  # from pill to circle
_BLOCK_WIDTH = PILL_WIDTH + _LINK + 2 * RADIUS
_TERMINAL_WIDTH, _TERMINAL_HEIGHT = 36.0, 23.0
_PORT_STEP = 13.0
_LANE_HEIGHT = 2.0
ARROW = 4.6
INPUT_LABELS, OUTPUT_LABEL = ("c_{k-2}", "c_{k-1}"), "c_{k}"  # a cell with one input reads the cell before it
_MARGIN = 12.0
_RELAXATIONS = 40


@dataclass(frozen=True)
class Box:
    """A labelled shape centred on (x, y).

    Attributes:
        kind: pill (an operation), node (a circle that adds up), input or output.
        name: of this box alone in its cell.
        operation: of a pill.
        edge: the position of the edge that a pill stands on; -1: on none.
        node: the node that a pill is; -1: it is none.
        kept: whether the cell's output reads a circle.
    """

    kind: str
    label: str
    x: float
    y: float
    width: float
    height: float
    name: str
    operation: str = ""
    edge: int = -1
    node: int = -1
    kept: bool = True

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        half_width, half_height = self.width / 2, self.height / 2
        return self.x - half_width, self.y - half_height, self.x + half_width, self.y + half_height


Point = tuple[float, float]


@dataclass(frozen=True)
class Edge:
    """All lines that leave node `source`: smooth curves (level at both ends), straight lanes, arrow tips."""

    source: int
    curves: tuple[tuple[Point, Point], ...]
    lanes: tuple[tuple[Point, Point], ...]
    tips: tuple[Point, ...]


@dataclass(frozen=True)
class CellLayout:
    """A drawing of `width` x `height` points. `joins` lead from a pill to its circle, `join_tips` end them."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    joins: tuple[tuple[Point, Point], ...]
    join_tips: tuple[Point, ...]
    crossings: int

    @property
    def operations(self) -> frozenset[str]:
        return frozenset(box.operation for box in self.boxes if box.operation)


@lru_cache(maxsize=64)  # a report or a set of files draws each cell more than once
def lay_out(graph: Graph) -> CellLayout:
    """The layout of a cell with the fewest crossings and, among those, the shortest vertical ways."""
    candidates = list({layers.columns: layers for layers in orderings(graph)}.values())
    fewest = min(layers.crossings() for layers in candidates)
    placed = [_Placement(graph, layers) for layers in candidates if layers.crossings() == fewest]
    return min(placed, key=lambda placement: placement.climb()).finish()


def input_label(graph: Graph, node: int) -> str:
    """What drawings call an input: of two the first is the output of the cell before the last."""
    return INPUT_LABELS[len(INPUT_LABELS) - len(graph.inputs) + graph.inputs.index(node)]


def drawn_number(node: int, inputs: int) -> int:
    """The number of an inner node in drawings: from 0 behind two inputs, as in DARTS; behind one from 1."""
    return node - (inputs if inputs > 1 else 0)


def control_points(start: Point, end: Point) -> tuple[Point, Point]:
    """The inner Bezier points of a curve that is level at both ends."""
    middle = (start[0] + end[0]) / 2
    return (middle, start[1]), (middle, end[1])


def arrow(tip: Point) -> tuple[Point, Point, Point, Point]:
    """The corners of an arrowhead that points right, to `tip`."""
    x, y = tip
    wing = ARROW * 0.48
    return (x, y), (x - ARROW, y - wing), (x - ARROW * 0.75, y), (x - ARROW, y + wing)


@dataclass
class _Placement:
    """Heights for one ordering of the columns, then widths, then the finished layout."""

    graph: Graph
    layers: Layers
    y: dict[Item, float] = field(default_factory=dict)
    arrival: dict[Link, float] = field(default_factory=dict)  # height at which a link ends, from its item's y

    def __post_init__(self) -> None:
        self.entering: dict[Item, list[Link]] = defaultdict(list)
        self.leaving: dict[Item, list[Link]] = defaultdict(list)
        for link in self.layers.links:
            self.entering[link.end].append(link)
            self.leaving[link.start].append(link)
        for column in self.layers.columns:
            self._settle(column, [0.0] * len(column))
        for _ in range(_RELAXATIONS):
            for column in (*self.layers.columns, *reversed(self.layers.columns)):
                self._assign_arrivals()
                self._settle(column, [self._wish(item) for item in column])
        self._assign_arrivals()

    def climb(self) -> float:
        """The heights that all links climb or fall, together."""
        return round(sum(abs(self._end(link) - self.y[link.start]) for link in self.layers.links), 3)

    def _end(self, link: Link) -> float:
        return self.y[link.end] + self.arrival[link]

    def _assign_arrivals(self) -> None:
        """Let links arrive in the order they come from: no two links into one box cross."""
        for item, links in self.entering.items():
            step = 0.0 if item.lane else self._arrival_step(item)
            ranked = sorted(links, key=lambda link: (self.y[link.start], link.edge or 0))
            for rank, link in enumerate(ranked):
                self.arrival[link] = (rank - (len(ranked) - 1) / 2) * step

    def _arrival_step(self, item: Item) -> float:
        """The distance between the ends of two links into an item; an operation is reached at one point."""
        if self._is_block(item.node):
            return PILL_HEIGHT + PILL_GAP
        return _PORT_STEP if is_terminal(self.graph, item.node) else 0.0

    def _is_block(self, node: int) -> bool:
        return self.graph.nodes[node].name == SUM

    def _wish(self, item: Item) -> float:
        """The height at which the links of `item` run levelest; beside lanes they weigh more."""
        total = weights = 0.0
        for link in self.entering[item]:
            weight = _weight(link)
            total += weight * (self.y[link.start] - self.arrival[link])
            weights += weight
        for link in self.leaving[item]:
            weight = _weight(link)
            total += weight * self._end(link)
            weights += weight
        return total / weights if weights else self.y[item]

    def _settle(self, column: tuple[Item, ...], wishes: list[float]) -> None:
        """The heights nearest to `wishes` (least squares) that keep the order and the distances."""
        offsets = [0.0]
        for upper, lower in pairwise(column):
            offsets.append(offsets[-1] + self._distance(upper, lower))
        pools: list[list[float]] = []  # [sum, count]: pool adjacent violators
        for wish, offset in zip(wishes, offsets):
            pools.append([wish - offset, 1])
            while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
                total, count = pools.pop()
                pools[-1][0] += total
                pools[-1][1] += count
        level = [total / count for total, count in pools for _ in range(int(count))]
        for item, height, offset in zip(column, level, offsets):
            self.y[item] = height + offset

    def _height(self, item: Item) -> float:
        arriving = len(self.entering[item])
        if item.lane:
            return _LANE_HEIGHT
        if self._is_block(item.node):
            return max(2 * RADIUS, arriving * (PILL_HEIGHT + PILL_GAP) - PILL_GAP)
        if is_terminal(self.graph, item.node):
            return max(_TERMINAL_HEIGHT, (arriving - 1) * _PORT_STEP + 16)
        return PILL_HEIGHT

    def _width(self, item: Item) -> float:
        if item.lane:
            return 0.0
        if self._is_block(item.node):
            return _BLOCK_WIDTH
        return _TERMINAL_WIDTH if is_terminal(self.graph, item.node) else PILL_WIDTH

    def _distance(self, upper: Item, lower: Item) -> float:
        lanes = upper.lane + lower.lane
        clear = 26.0 if lanes == 0 and upper.column == 0 else (20.0, 12.0, 9.0)[lanes]
        return (self._height(upper) + self._height(lower)) / 2 + clear

    def finish(self) -> CellLayout:
        """Shift everything into the page and give columns their x."""
        top = min(y - self._height(item) / 2 for item, y in self.y.items())
        bottom = max(y + self._height(item) / 2 for item, y in self.y.items())
        for item in self.y:
            self.y[item] = round(self.y[item] - top + _MARGIN, 2)
        left, right = [], []
        x = _MARGIN
        for number in range(len(self.layers.columns)):
            left.append(x)
            x += max(map(self._width, self.layers.columns[number]))
            right.append(x)
            climbs = [abs(self._end(link) - self.y[link.start]) for link in self._in_gap(number)]
            x += min(34.0 + 0.3 * max(climbs, default=0.0), 105.0)
        boxes, joins, tips = self._boxes(left, right)
        edges = tuple(self._edge(node, left, right) for node in range(len(self.graph.nodes)))
        return CellLayout(
            round(right[-1] + _MARGIN, 2),
            round(bottom - top + 2 * _MARGIN, 2),
            tuple(boxes),
            tuple(edge for edge in edges if edge.curves),
            tuple(joins),
            tuple(tips),
            self.layers.crossings(),
        )

    def _in_gap(self, column: int) -> list[Link]:
        return [link for link in self.layers.links if link.start.column == column]

    def _boxes(
        self, left: list[float], right: list[float]
    ) -> tuple[list[Box], list[tuple[Point, Point]], list[Point]]:
        boxes: list[Box] = []
        joins: list[tuple[Point, Point]] = []
        tips: list[Point] = []
        nodes = [item for column in self.layers.columns for item in column if not item.lane]
        for item in sorted(nodes, key=lambda item: item.node):
            y, centre = self.y[item], (left[item.column] + right[item.column]) / 2
            if not self._is_block(item.node):
                boxes.append(self._single(item, centre))
                continue
            hub = right[item.column] - RADIUS
            circle = self._circle(item, hub)
            boxes.append(circle)
            if self.entering[item]:
                tips.append((hub - RADIUS, y))
            for link in self.entering[item]:
                boxes.append(self._pill(link, left[item.column]))
                joins.append(((left[item.column] + PILL_WIDTH, boxes[-1].y), (hub - RADIUS - ARROW / 2, y)))
        return boxes, joins, tips

    def _single(self, item: Item, centre: float) -> Box:
        """An input, an output, or a node that is an operation."""
        node, size = item.node, (self._width(item), self._height(item))
        if node in self.graph.inputs:
            label = input_label(self.graph, node)
            return Box("input", label, centre, self.y[item], *size, name=f"input-{label}")
        if is_terminal(self.graph, node):
            return Box("output", OUTPUT_LABEL, centre, self.y[item], *size, name=f"output-{OUTPUT_LABEL}")
        operation = self.graph.nodes[node].name
        name = f"node-{node}-{operation}"
        return Box("pill", operation, centre, self.y[item], *size, name=name, operation=operation, node=node)

    def _circle(self, item: Item, hub: float) -> Box:
        node, label = item.node, str(drawn_number(item.node, len(self.graph.inputs)))
        kept = node in self.graph.outputs or any(
            target in self.graph.outputs for target in self.graph.targets(node)
        )
        return Box("node", label, hub, self.y[item], 2 * RADIUS, 2 * RADIUS, name=f"node-{label}", kept=kept)

    def _pill(self, link: Link, left: float) -> Box:
        edge = link.edge
        assert edge is not None  # what enters a block carries an operation
        operation = self.graph.edges[edge].label.name
        return Box(
            "pill",
            operation,
            left + PILL_WIDTH / 2,
            round(self._end(link), 2),
            PILL_WIDTH,
            PILL_HEIGHT,
            name=f"gene-{edge}-{operation}",
            operation=operation,
            edge=edge,
        )

    def _edge(self, node: int, left: list[float], right: list[float]) -> Edge:
        curves, lanes, tips = [], [], []
        for link in self.layers.links:
            if link.start.node != node:
                continue
            start = (self._right(link.start, left, right), self.y[link.start])
            end = (self._left(link.end, left, right), round(self._end(link), 2))
            if link.end.lane:
                lanes.append((end, (right[link.end.column], end[1])))
                curves.append((start, end))
            else:
                tips.append(end)
                curves.append((start, (end[0] - ARROW / 2, end[1])))
        return Edge(node, tuple(curves), tuple(lanes), tuple(tips))

    def _left(self, item: Item, left: list[float], right: list[float]) -> float:
        """Where an item's shape begins: blocks and lanes fill their column, all else stands in its middle."""
        if item.lane or self._is_block(item.node):
            return left[item.column]
        return (left[item.column] + right[item.column] - self._width(item)) / 2

    def _right(self, item: Item, left: list[float], right: list[float]) -> float:
        return left[item.column] + right[item.column] - self._left(item, left, right)


def _weight(link: Link) -> float:
    """How much a link wants to be level: a bend between two lanes would only disturb."""
    return (1.0, 3.0, 12.0)[link.start.lane + link.end.lane]
