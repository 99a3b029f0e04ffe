"""NAS-Bench-201 (Dong and Yang, 2020): a cell of four nodes with an operation on each of its six edges."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.graph import INPUT, SUM, Graph
from nge_search.architecture.load import Architecture
from nge_search.errors import UserError, shorten
from nge_search.spaces.base import Code, EdgeSpace, draw_rows

NONE = "none"
OPERATIONS = (NONE, "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

#: Of a network, between which it halves the resolution.
STAGES = 3

_EDGE = re.compile(r"(\w+)~([0-9])")


class NasBench201Space(EdgeSpace):
    """Cells whose node k adds up an operation on each earlier node: 5^6 = 15,625, all of them allowed.

    A code has the operation of each edge, (0,1) (0,2) (1,2) (0,3) (1,3) (2,3), as a position in `OPERATIONS`. The
    notation is that of the paper's code: `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`, an operation and the
    node that it reads for each edge, a group for each node.
    """

    name = "nasbench201"
    networks = "nge_search.networks.nasbench201:NasBench201Network"
    cell_space = CellSpace(nodes=3, operations=OPERATIONS, inputs=1, kinds=("cell",))
    length = kept = len(cell_space.edges)
    size = len(OPERATIONS) ** length

    def draw(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        return tuple(draw_rows(matrices[0], random).tolist())

    def log_probability(self, codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        edges_L = torch.arange(self.length, device=codes_NL.device)
        return matrices[0].log()[edges_L, codes_NL].sum(dim=1)

    def derive(self, matrices: Sequence[Tensor], provenance: dict[str, Any] | None = None) -> Architecture:
        """The most probable operation of each edge, `none` among them."""
        return self.architecture(tuple(matrices[0].argmax(dim=1).tolist()), provenance)

    def edits(self, code: Code, likely: Sequence[Sequence[Sequence[int]]]) -> list[Code]:
        """With another of its edge's likely operations on one edge."""
        return [
            (*code[:edge], operation, *code[edge + 1 :])
            for edge, own in enumerate(likely[0])
            for operation in own
            if operation != code[edge]
        ]

    def throughout(self, operation: int) -> Code:
        return (operation,) * self.length

    def neighbours(self, code: Code) -> list[Code]:
        return [
            (*code[:edge], operation, *code[edge + 1 :])
            for edge in range(self.length)
            for operation in range(len(self.cell_space.operations))
            if operation != code[edge]
        ]

    def graphs(self, code: Code) -> dict[str, Graph]:
        """The cell; where it has `none`, it has no edge."""
        edges = [
            (*edge, self.cell_space.operations[choice])
            for edge, choice in zip(self.cell_space.edges, code)
            if self.cell_space.operations[choice] != NONE
        ]
        sums = [SUM] * self.cell_space.nodes
        return {"cell": Graph.build([INPUT, *sums], edges, [0], [self.cell_space.nodes])}

    def code(self, graphs: Mapping[str, Graph]) -> Code:
        chosen = {(edge.source, edge.target): edge.label.name for edge in graphs["cell"].edges}
        if set(chosen) - set(self.cell_space.edges) or set(chosen.values()) - set(OPERATIONS):
            raise UserError(f"the graph is no cell of {self.name}")
        return tuple(OPERATIONS.index(chosen.get(edge, NONE)) for edge in self.cell_space.edges)

    def text(self, code: Code) -> str:
        parts = dict.fromkeys(self.cell_space.inner, "")
        for (source, target), operation in zip(self.cell_space.edges, code):
            parts[target] += f"{OPERATIONS[operation]}~{source}|"
        return "+".join(f"|{part}" for part in parts.values())

    def parse(self, text: str) -> Code:
        found: dict[tuple[int, int], int] = {}
        groups = text.split("+")
        if len(groups) != self.cell_space.nodes:
            raise self._refuse(text, f"it has {len(groups)} groups of edges, not {self.cell_space.nodes}")
        for target, group in zip(self.cell_space.inner, groups):
            for edge in group.strip().strip("|").split("|"):
                match = _EDGE.fullmatch(edge.strip())
                if match is None or match[1] not in OPERATIONS:
                    raise self._refuse(
                        text, f"{shorten(edge)} is not an operation of {', '.join(OPERATIONS)} with ~NODE"
                    )
                if (int(match[2]), target) in found or int(match[2]) >= target:
                    raise self._refuse(text, f"node {target} cannot read node {match[2]}, or reads it twice")
                found[int(match[2]), target] = OPERATIONS.index(match[1])
        missing = [edge for edge in self.cell_space.edges if edge not in found]
        if missing:
            raise self._refuse(text, f"the edge from node {missing[0][0]} to node {missing[0][1]} is missing")
        return tuple(found[edge] for edge in self.cell_space.edges)
