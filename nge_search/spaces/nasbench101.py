"""NAS-Bench-101 (Ying et al., 2019): cells of up to seven vertices and nine edges, an operation on each vertex.

Legend: V vertices, input and output included.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.graph import INPUT, OUTPUT, Edge, Graph, Label
from nge_search.errors import UserError, shorten
from nge_search.spaces.base import Code, Space, draw_tables, log_probability_of_tables

#: In the order that the published hash numbers them by.
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
VERTICES, MAX_EDGES = 7, 9
_LABELS = tuple(map(Label, OPERATIONS))

KERNELS = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}
#: Of the published network: channels of its stem, and stacks of cells, between which channels double.
STEM, STACKS, CELLS_PER_STACK = 128, 3, 3
_CLASSES = 10

#: Codes whose graphs, and graphs whose hashes, are remembered: searches come back to the same ones.
_REMEMBERED = 1 << 16


def digest(graph: Graph) -> bytes:
    """The MD5 hash, 16 bytes, that isomorphic cells share: NAS-Bench-101's name of a pruned cell.

    Vertices start from the hash of (edges out, edges in, operation) and take up those of their neighbours, V times.
    Operations are numbered as in `OPERATIONS`, the input as -1 and the output as -2.
    """
    return _digest(graph)


def vertex_channels(graph: Graph, inputs: int, outputs: int) -> list[int]:
    """Channels of each vertex of a pruned cell from `inputs` to `outputs` channels.

    Vertices that feed the output share its channels out, the first ones taking one more each where they do not
    divide; any other has as many as the widest that it feeds.
    """
    last = len(graph.nodes) - 1
    widths = [inputs] + [0] * (last - 1) + [outputs]
    feeding = [vertex for vertex in sorted(graph.sources(last)) if vertex]
    for position, vertex in enumerate(feeding):
        widths[vertex] = outputs // len(feeding) + (position < outputs % len(feeding))
    for vertex in range(last - 1, 0, -1):
        if vertex not in feeding:
            widths[vertex] = max(widths[target] for target in graph.targets(vertex))
    return widths


def parameters(graph: Graph) -> int:
    """Trainable parameters of the published network of a pruned cell (stem 128, three stacks of three cells).

    A convolution has its weights and the scale and shift of its batch normalisation; the input reaches other
    vertices through 1x1 convolutions; sums and concatenations have none, the classifier has a bias.
    """
    total = _convolution(3, STEM, 3)
    before, now = STEM, STEM
    for stack in range(STACKS):
        now *= 2 if stack else 1
        for _ in range(CELLS_PER_STACK):
            total += _cell_parameters(graph, before, now)
            before = now
    return total + (now + 1) * _CLASSES


def _cell_parameters(graph: Graph, inputs: int, outputs: int) -> int:
    widths = vertex_channels(graph, inputs, outputs)
    projections = sum(_convolution(inputs, widths[vertex], 1) for vertex in graph.targets(0))
    return projections + sum(
        _convolution(width, width, KERNELS[label.name])
        for width, label in zip(widths, graph.nodes)
        if label.name in KERNELS
    )


@functools.lru_cache(_REMEMBERED)
def _digest(graph: Graph) -> bytes:
    labels = [-1, *(OPERATIONS.index(label.name) for label in graph.nodes[1:-1]), -2]
    around = [(graph.sources(vertex), graph.targets(vertex)) for vertex in range(len(graph.nodes))]
    names = [_md5(str((len(targets), len(sources), label))) for (sources, targets), label in zip(around, labels)]
    for _ in graph.nodes:
        names = [
            _md5("|".join(["".join(sorted(names[v] for v in side)) for side in sides] + [own]))
            for sides, own in zip(around, names)
        ]
    return hashlib.md5(str(sorted(names)).encode()).digest()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def _convolution(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of a convolution without bias and of the batch normalisation behind it."""
    return inputs * outputs * kernel**2 + 2 * outputs


@functools.lru_cache(_REMEMBERED)
def _pruned(space: NasBench101Space, code: Code) -> Graph | None:
    return space.whole_graph(code).pruned()


class NasBench101Space(Space):
    """Cells of up to `vertices` vertices: 423,624 of seven, counted by their hash.

    A code says of each edge, by target and then by source, whether it is there, and then names the operation of
    each inner vertex as a position in `OPERATIONS`. It is allowed if what is left of it between input and output
    has at most nine edges. Cells with fewer vertices leave some unconnected. The notation is that of the
    published records: the adjacency matrix row by row as zeros and ones, a space, and the vertices' names with
    commas.
    """

    name = "nasbench101"
    networks = "nge_search.networks.nasbench101:NasBench101Network"

    def __init__(self, vertices: int = VERTICES):
        if type(vertices) is not int or not 2 <= vertices <= VERTICES:
            raise UserError(f"{self.name} has cells of 2 to {VERTICES} vertices, not {shorten(vertices)}")
        self.cell_space = CellSpace(vertices - 1, OPERATIONS, inputs=1, kinds=("cell",), operations_on="vertices")
        self.length = len(self.cell_space.edges) + len(self.cell_space.labelled)
        self._edges = tuple(Edge(*ends) for ends in self.cell_space.edges)

    def draw(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        return draw_tables(matrices, random)

    def log_probability(self, codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        return log_probability_of_tables(codes_NL, matrices)

    def graphs(self, code: Code) -> dict[str, Graph]:
        """The pruned cell."""
        graph = _pruned(self, code)
        if graph is None:
            raise self._refuse(self.text(code), "no path leads from the input to the output")
        return {"cell": graph}

    def whole_graph(self, code: Code) -> Graph:
        """The code's cell with its unconnected vertices."""
        edges = tuple(itertools.compress(self._edges, code))
        operations = (_LABELS[choice] for choice in code[len(self._edges) :])
        return Graph((Label(INPUT), *operations, Label(OUTPUT)), edges, (0,), (self.cell_space.vertices - 1,))

    def code(self, graphs: Mapping[str, Graph]) -> Code:
        """The code of a cell of at most `graph.vertices` vertices; what it lacks stands before the output."""
        graph = graphs["cell"]
        if len(graph.nodes) > self.cell_space.vertices:
            raise UserError(
                f"a cell of {len(graph.nodes)} vertices; this space has up to {self.cell_space.vertices}"
            )
        place = [*range(len(graph.nodes) - 1), self.cell_space.vertices - 1]
        edges = {(place[edge.source], place[edge.target]) for edge in graph.edges}
        operations = [OPERATIONS.index(label.name) for label in graph.nodes[1:-1]]
        unused = [0] * (len(self.cell_space.labelled) - len(operations))
        return (*(int(edge in edges) for edge in self.cell_space.edges), *operations, *unused)

    def allows(self, code: Code) -> bool:
        pruned = _pruned(self, code)
        return pruned is not None and len(pruned.edges) <= MAX_EDGES

    def key(self, code: Code) -> bytes:
        return digest(self.graphs(code)["cell"])

    def neighbours(self, code: Code) -> list[Code]:
        found = []
        for position, choice in enumerate(code):
            options = 2 if position < len(self.cell_space.edges) else len(OPERATIONS)
            found += [
                (*code[:position], other, *code[position + 1 :]) for other in range(options) if other != choice
            ]
        return [other for other in found if self.allows(other)]

    def text(self, code: Code) -> str:
        graph = _pruned(self, code) or self.whole_graph(code)
        edges, vertices = {(edge.source, edge.target) for edge in graph.edges}, range(len(graph.nodes))
        rows = "".join(str(int((i, j) in edges)) for i in vertices for j in vertices)
        return f"{rows} {','.join(label.name for label in graph.nodes)}"

    def parse(self, text: str) -> Code:
        rows, _, names = text.strip().partition(" ")
        return self.code({"cell": self.parse_graph(rows, names.strip().split(","))})

    def parse_graph(self, rows: str, names: Sequence[str]) -> Graph:
        """A cell from its published form; raises UserError for what is none of this space."""
        count = len(names)
        if count > self.cell_space.vertices or count < 2 or len(rows) != count**2 or set(rows) - {"0", "1"}:
            raise self._refuse(
                rows, f"expected the zeros and ones of a square matrix for 2 to {self.cell_space.vertices} vertices"
            )
        if names[0] != INPUT or names[-1] != OUTPUT or set(names[1:-1]) - set(OPERATIONS):
            raise self._refuse(
                ",".join(names), f"expected {INPUT}, operations of {', '.join(OPERATIONS)}, and {OUTPUT}"
            )
        edges = [(i, j) for i in range(count) for j in range(count) if rows[i * count + j] == "1"]
        if any(source >= target for source, target in edges):
            raise self._refuse(
                rows, "edges lead from earlier to later vertices: the matrix is zero below its diagonal"
            )
        graph = Graph.build(names, edges, [0], [count - 1])
        pruned = graph.pruned()
        if pruned is None or len(pruned.edges) > MAX_EDGES:
            raise self._refuse(rows, f"it needs a path from input to output and at most {MAX_EDGES} edges")
        return graph
