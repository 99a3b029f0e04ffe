"""NAS-Bench-101 (Ying et al., 2019): cells of up to seven vertices and nine edges, an operation on each vertex.

Legend: V vertices, input and output included.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nge_search.errors import UserError, shorten
from nge_search.graph import CellSpace
from nge_search.spaces.base import Code, Space, draw_rows

#: In the order that the published hash numbers them by.
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
INPUT, OUTPUT = "input", "output"
VERTICES, MAX_EDGES = 7, 9

_KERNELS = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}
_STEM, _STACKS, _CELLS_PER_STACK, _CLASSES = 128, 3, 3, 10

#: Codes whose modules, and modules whose hashes, are remembered: searches come back to the same ones.
_REMEMBERED = 1 << 16


@dataclass(frozen=True)
class Module:
    """A cell: `matrix[i][j]` is 1 where vertex i feeds vertex j > i; `operations` are the inner vertices'."""

    matrix: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]

    @property
    def vertices(self) -> int:
        return len(self.matrix)

    @property
    def edges(self) -> int:
        return sum(map(sum, self.matrix))

    def sources(self, vertex: int) -> list[int]:
        return [source for source in range(vertex) if self.matrix[source][vertex]]

    def targets(self, vertex: int) -> list[int]:
        return [target for target in range(vertex + 1, self.vertices) if self.matrix[vertex][target]]

    def pruned(self) -> Module | None:
        """The module without vertices that lie on no path from input to output; None if there is no path."""
        last = self.vertices - 1
        reached, needed = {0}, {last}
        for vertex in range(1, self.vertices):
            if reached.intersection(self.sources(vertex)):
                reached.add(vertex)
        for vertex in range(last - 1, -1, -1):
            if needed.intersection(self.targets(vertex)):
                needed.add(vertex)
        kept = sorted(reached & needed)
        if not {0, last} <= set(kept):
            return None
        matrix = tuple(tuple(self.matrix[i][j] for j in kept) for i in kept)
        return Module(matrix, tuple(self.operations[vertex - 1] for vertex in kept[1:-1]))

    def digest(self) -> bytes:
        """The MD5 hash, 16 bytes, that isomorphic modules share: NAS-Bench-101's name of a pruned module.

        Vertices start from the hash of (edges out, edges in, operation) and take up those of their neighbours, V
        times. Operations are numbered as in `OPERATIONS`, the input as -1 and the output as -2.
        """
        return _digest(self)

    def channels(self, inputs: int, outputs: int) -> list[int]:
        """Channels of each vertex of a pruned module in a network cell of `inputs` to `outputs` channels.

        Vertices that feed the output share its channels out, the first ones taking one more each where they do not
        divide; any other has as many as the widest that it feeds.
        """
        last = self.vertices - 1
        widths = [inputs] + [0] * (last - 1) + [outputs]
        feeding = [vertex for vertex in self.sources(last) if vertex]
        for position, vertex in enumerate(feeding):
            widths[vertex] = outputs // len(feeding) + (position < outputs % len(feeding))
        for vertex in range(last - 1, 0, -1):
            if vertex not in feeding:
                widths[vertex] = max(widths[target] for target in self.targets(vertex))
        return widths

    def parameters(self) -> int:
        """Trainable parameters of the published network of a pruned module (stem 128, three stacks of three cells).

        A convolution has its weights and the scale and shift of its batch normalisation; the input reaches other
        vertices through 1x1 convolutions; sums and concatenations have none, the classifier has a bias.
        """
        total = _convolution(3, _STEM, 3)
        before, now = _STEM, _STEM
        for stack in range(_STACKS):
            now *= 2 if stack else 1
            for _ in range(_CELLS_PER_STACK):
                total += self._cell_parameters(before, now)
                before = now
        return total + (now + 1) * _CLASSES

    def _cell_parameters(self, inputs: int, outputs: int) -> int:
        widths = self.channels(inputs, outputs)
        projections = sum(_convolution(inputs, widths[vertex], 1) for vertex in self.targets(0))
        return projections + sum(
            _convolution(width, width, _KERNELS[operation])
            for width, operation in zip(widths[1:], self.operations)
            if operation in _KERNELS
        )


@functools.lru_cache(_REMEMBERED)
def _digest(module: Module) -> bytes:
    labels = [-1, *map(OPERATIONS.index, module.operations), -2]
    around = [(module.sources(vertex), module.targets(vertex)) for vertex in range(module.vertices)]
    names = [_md5(str((len(targets), len(sources), label))) for (sources, targets), label in zip(around, labels)]
    for _ in range(module.vertices):
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
def _pruned(space: NasBench101Space, code: Code) -> Module | None:
    return space.module(code).pruned()


class NasBench101Space(Space):
    """Modules of up to `vertices` vertices: 423,624 of seven, counted by their hash.

    A code says of each edge, by target and then by source, whether it is there, and then names the operation of
    each inner vertex as a position in `OPERATIONS`. It is allowed if what is left of it between input and output
    has at most nine edges. Modules with fewer vertices leave some unconnected. The notation is that of the
    published records: the adjacency matrix row by row as zeros and ones, a space, and the vertices' names with
    commas.
    """

    name = "nasbench101"

    def __init__(self, vertices: int = VERTICES):
        if type(vertices) is not int or not 2 <= vertices <= VERTICES:
            raise UserError(f"{self.name} has cells of 2 to {VERTICES} vertices, not {shorten(vertices)}")
        self.graph = CellSpace(vertices - 1, OPERATIONS, inputs=1, kinds=("cell",), operations_on="vertices")
        self.length = len(self.graph.edges) + len(self.graph.labelled)

    def draw(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        return tuple(choice for p_EO in matrices for choice in draw_rows(p_EO, random).tolist())

    def log_probability(self, codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        options = max(p_EO.shape[1] for p_EO in matrices)
        logarithms = torch.cat(
            [torch.nn.functional.pad(p_EO.log(), (0, options - p_EO.shape[1])) for p_EO in matrices]
        )
        return logarithms[torch.arange(self.length, device=codes_NL.device), codes_NL].sum(dim=1)

    def module(self, code: Code) -> Module:
        """The code's module, with its unconnected vertices."""
        count = self.graph.vertices
        edges = dict(zip(self.graph.edges, code))
        matrix = tuple(tuple(edges.get((i, j), 0) for j in range(count)) for i in range(count))
        return Module(matrix, tuple(OPERATIONS[choice] for choice in code[len(self.graph.edges) :]))

    def code(self, module: Module) -> Code:
        """The code of a module of at most `graph.vertices` vertices; what it lacks stands before the output."""
        place = [*range(module.vertices - 1), self.graph.vertices - 1]
        edges = {
            (place[i], place[j]): present for i, row in enumerate(module.matrix) for j, present in enumerate(row)
        }
        operations = [OPERATIONS.index(operation) for operation in module.operations]
        unused = [0] * (len(self.graph.labelled) - len(operations))
        return (*(edges.get(edge, 0) for edge in self.graph.edges), *operations, *unused)

    def allows(self, code: Code) -> bool:
        pruned = _pruned(self, code)
        return pruned is not None and pruned.edges <= MAX_EDGES

    def key(self, code: Code) -> bytes:
        pruned = _pruned(self, code)
        if pruned is None:
            raise self._refuse(self.text(code), "no path leads from the input to the output")
        return pruned.digest()

    def neighbours(self, code: Code) -> list[Code]:
        found = []
        for position, choice in enumerate(code):
            options = 2 if position < len(self.graph.edges) else len(OPERATIONS)
            found += [
                (*code[:position], other, *code[position + 1 :]) for other in range(options) if other != choice
            ]
        return [other for other in found if self.allows(other)]

    def text(self, code: Code) -> str:
        module = _pruned(self, code) or self.module(code)
        rows = "".join(str(present) for row in module.matrix for present in row)
        return f"{rows} {','.join((INPUT, *module.operations, OUTPUT))}"

    def parse(self, text: str) -> Code:
        rows, _, names = text.strip().partition(" ")
        return self.code(self.parse_module(rows, names.strip().split(",")))

    def parse_module(self, rows: str, names: Sequence[str]) -> Module:
        """A module from its published form; raises UserError for what is none of this space."""
        count = len(names)
        if count > self.graph.vertices or count < 2 or len(rows) != count**2 or set(rows) - {"0", "1"}:
            raise self._refuse(
                rows, f"expected the zeros and ones of a square matrix for 2 to {self.graph.vertices} vertices"
            )
        if names[0] != INPUT or names[-1] != OUTPUT or set(names[1:-1]) - set(OPERATIONS):
            raise self._refuse(
                ",".join(names), f"expected {INPUT}, operations of {', '.join(OPERATIONS)}, and {OUTPUT}"
            )
        matrix = tuple(tuple(int(rows[i * count + j]) for j in range(count)) for i in range(count))
        if any(matrix[i][j] for i in range(count) for j in range(i + 1)):
            raise self._refuse(
                rows, "edges lead from earlier to later vertices: the matrix is zero below its diagonal"
            )
        module = Module(matrix, tuple(names[1:-1]))
        pruned = module.pruned()
        if pruned is None or pruned.edges > MAX_EDGES:
            raise self._refuse(rows, f"it needs a path from input to output and at most {MAX_EDGES} edges")
        return module
