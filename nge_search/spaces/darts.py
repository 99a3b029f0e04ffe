"""DARTS' space: a normal and a reduction cell, two incoming edges for each of their inner nodes.

Legend: N codes, L decisions of a code, E edges, O operations.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import EDGES_PER_NODE, Cell, Genotype
from nge_search.architecture.graph import Graph
from nge_search.architecture.load import Architecture, of_genotype
from nge_search.errors import UserError
from nge_search.spaces.base import Code, EdgeSpace, draw_rows
from nge_search.spaces.derive import derive_genotype


class DartsSpace(EdgeSpace):
    """Genotypes over `graph`'s operations.

    A code has, for each kind of cell and each inner node, the sources of two incoming edges in their order, and
    then the operations on them: (source, source, operation, operation). The notation is the genotype's JSON object,
    without its provenance, on one line.

    A node's edges are drawn one after the other, with chances in proportion to the largest probability of each
    edge's operations, which is what `derive` ranks edges by; then their operations by their probabilities.
    """

    name = "darts"
    networks = "nge_search.networks.cifar:CifarNetwork"

    def __init__(self, graph: CellSpace | None = None):
        self.cell_space = graph or CellSpace()
        self.kept = EDGES_PER_NODE * self.cell_space.nodes
        self.length = 2 * self.kept * len(self.cell_space.kinds)

    def draw(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        code: list[int] = []
        for p_EO in matrices:
            operations_E = draw_rows(p_EO, random)
            for node in self.cell_space.inner:
                incoming = self.cell_space.incoming(node)
                weights = p_EO[incoming.start : incoming.stop].max(axis=1)
                drawn = random.choice(node, EDGES_PER_NODE, replace=False, p=weights / weights.sum(), shuffle=False)
                sources = sorted(drawn.tolist())
                code += [*sources, *(int(operations_E[incoming[source]]) for source in sources)]
        return tuple(code)

    def log_probability(self, codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        parts = codes_NL.view(len(codes_NL), len(matrices), self.cell_space.nodes, 2, EDGES_PER_NODE)
        total = matrices[0].new_zeros(len(codes_NL))
        for p_EO, cells in zip(matrices, parts.unbind(dim=1)):
            for position, node in enumerate(self.cell_space.inner):
                incoming = self.cell_space.incoming(node)
                p_IO = p_EO[incoming.start : incoming.stop]
                weight_I = p_IO.max(dim=1).values
                weight_I = weight_I / weight_I.sum()
                (first, second), (of_first, of_second) = (
                    part.unbind(dim=1) for part in cells[:, position].unbind(1)
                )
                a, b = weight_I[first], weight_I[second]
                pair = (a * b / (1 - a) + a * b / (1 - b)).log()
                total = total + pair + p_IO[first, of_first].log() + p_IO[second, of_second].log()
        return total

    def neighbours(self, code: Code) -> list[Code]:
        found = []
        step = 2 * EDGES_PER_NODE
        for first in range(0, len(code), step):
            node = self.cell_space.inner[first // step % self.cell_space.nodes]
            part = code[first : first + step]
            found += [(*code[:first], *other, *code[first + step :]) for other in self._beside(part, node)]
        return found

    def _beside(self, part: Code, node: int) -> list[Code]:
        """What a node's four decisions may become: another operation, or another source with the same operation."""
        found: list[Code] = []
        sources, operations = part[:EDGES_PER_NODE], part[EDGES_PER_NODE:]
        for slot in range(EDGES_PER_NODE):
            for operation in range(len(self.cell_space.operations)):
                if operation != operations[slot]:
                    found.append((*sources, *operations[:slot], operation, *operations[slot + 1 :]))
            for source in range(node):
                if source not in sources:
                    pairs = [(source, operations[slot]), (sources[1 - slot], operations[1 - slot])]
                    found.append(tuple(itertools.chain(*zip(*sorted(pairs)))))
        return found

    def edits(self, code: Code, likely: Sequence[Sequence[Sequence[int]]]) -> list[Code]:
        """In one of the two cells: another of its likely operations on a kept edge, or another edge in its place.

        A new edge has its likeliest operation.
        """
        found = []
        for first, node, own in self._parts(likely):
            part = code[first : first + 2 * EDGES_PER_NODE]
            pairs = list(zip(part[:EDGES_PER_NODE], part[EDGES_PER_NODE:]))
            for slot, (source, operation) in enumerate(pairs):
                others = [(source, other) for other in own[source] if other != operation]
                others += [(other, own[other][0]) for other in range(node) if other not in dict(pairs)]
                for pair in others:
                    edited = sorted([*pairs[:slot], pair, *pairs[slot + 1 :]])
                    after = code[first + 2 * EDGES_PER_NODE :]
                    found.append((*code[:first], *itertools.chain(*zip(*edited)), *after))
        return found

    def _parts(
        self, likely: Sequence[Sequence[Sequence[int]]]
    ) -> Iterator[tuple[int, int, Sequence[Sequence[int]]]]:
        """For each kind of cell and each inner node where its part of a code begins, the node, and what is likely.

        What is likely is said for each source in turn.
        """
        first = 0
        for of_edges in likely:
            for node in self.cell_space.inner:
                incoming = self.cell_space.incoming(node)
                yield first, node, of_edges[incoming.start : incoming.stop]
                first += 2 * EDGES_PER_NODE

    def throughout(self, operation: int) -> Code:
        node = (*range(EDGES_PER_NODE), *(operation,) * EDGES_PER_NODE)
        return node * self.cell_space.nodes * len(self.cell_space.kinds)

    def genotype(self, code: Code, provenance: dict[str, Any] | None = None) -> Genotype:
        """The code as a genotype."""
        cells, step = [], 2 * EDGES_PER_NODE
        for kind in range(len(self.cell_space.kinds)):
            first = kind * step * self.cell_space.nodes
            parts = [code[at : at + step] for at in range(first, first + step * self.cell_space.nodes, step)]
            genes = tuple(
                (self.cell_space.operations[operation], source)
                for part in parts
                for source, operation in zip(part[:EDGES_PER_NODE], part[EDGES_PER_NODE:])
            )
            cells.append(Cell(genes, tuple(self.cell_space.inner)))
        normal, reduce = cells
        return Genotype(normal, reduce, provenance or {})

    def code(self, graphs: Mapping[str, Graph]) -> Code:
        return tuple(part for kind in self.cell_space.kinds for part in self._cell_code(kind, graphs[kind]))

    def _cell_code(self, kind: str, cell: Graph) -> Iterator[int]:
        inner, operations = self.cell_space.inner, self.cell_space.operations
        if len(cell.nodes) != inner.stop + 1 or sorted(cell.sources(inner.stop)) != list(inner):
            raise UserError(f"{kind}: a cell of this space has {len(inner)} inner nodes, all in the output")
        for node in inner:
            arriving = [cell.edges[position] for position in cell.incoming[node]]
            genes = sorted((edge.source, edge.label.name) for edge in arriving)
            sources = [source for source, _ in genes]
            if len(sources) != EDGES_PER_NODE:
                raise UserError(f"{kind}: node {node} has {len(sources)} operations, not {EDGES_PER_NODE}")
            if len(set(sources)) < EDGES_PER_NODE:
                raise UserError(f"{kind}: node {node} reads node {sources[0]} twice")
            for _, operation in genes:
                if operation not in operations:
                    raise UserError(f"{kind}: operation {operation} is not of this space")
            yield from sources
            yield from (operations.index(operation) for _, operation in genes)

    def graphs(self, code: Code) -> dict[str, Graph]:
        """The normal and the reduction cell; see `Genotype.graphs`."""
        return self.genotype(code).graphs()

    def architecture(self, code: Code, provenance: dict[str, Any] | None = None) -> Architecture:
        return of_genotype(self.genotype(code, provenance))

    def derive(self, matrices: Sequence[Tensor], provenance: dict[str, Any] | None = None) -> Architecture:
        p_normal_EO, p_reduce_EO = matrices
        return of_genotype(derive_genotype(p_normal_EO, p_reduce_EO, self.cell_space, provenance))

    def text(self, code: Code) -> str:
        document = self.to_dict(code)
        del document["provenance"]
        return json.dumps(document, separators=(",", ":"))

    def to_dict(self, code: Code, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.genotype(code, provenance).to_dict()

    def parse(self, text: str) -> Code:
        try:
            return self.code(Genotype.from_json(text, "architecture").graphs())
        except UserError as error:
            raise self._refuse(text, str(error)) from None
