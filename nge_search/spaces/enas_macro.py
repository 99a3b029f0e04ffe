"""ENAS' macro search space (Pham et al., 2018, Section 2.3): whole networks of six layers with skip connections.

Legend: N codes, L decisions of a code.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.graph import INPUT, OUTPUT, Graph
from nge_search.errors import UserError, shorten
from nge_search.json_reader import parse_json
from nge_search.spaces.base import Code, Space, draw_tables, log_probability_of_tables

#: In the order in which ENAS' code, and the structures published with D-VAE, number them. A separable convolution
#: is a depthwise and a pointwise one, once (DARTS' `sep_conv` does this twice).
OPERATIONS = (
    "conv_3x3",
    "dw_sep_conv_3x3",
    "conv_5x5",
    "dw_sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
LAYERS = 6
KIND = "network"


class EnasMacroSpace(Space):
    """Networks of six layers: 6^6 x 2^15 = 1,528,823,808, all of them allowed, no two of them isomorphic.

    Vertex 0 is the stem. A layer has an operation, and reads the layer before it; it may read each earlier vertex,
    too. What it reads is concatenated, as in the paper; in the authors' code, skips join behind the operation. The
    last layer alone feeds the output.

    A code says of each skip, by layer and then by source, whether it is there, and then names the operation of each
    layer as a position in `OPERATIONS`. The notation is that of the published structures, a JSON list with a list
    for each layer: its operation, then zeros and ones for the vertices from the stem on, but for the one before it,
    as in `[[1],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]`.
    """

    name = "enas_macro"
    networks = "nge_search.networks.enas_macro:EnasMacroNetwork"
    cell_space = CellSpace(
        nodes=LAYERS + 1, operations=OPERATIONS, inputs=1, kinds=(KIND,), operations_on="vertices", chain=True
    )
    length = len(cell_space.chosen_edges) + LAYERS
    size = len(OPERATIONS) ** LAYERS * 2 ** len(cell_space.chosen_edges)

    def draw(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        return draw_tables(matrices, random)

    def log_probability(self, codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        return log_probability_of_tables(codes_NL, matrices)

    def neighbours(self, code: Code) -> list[Code]:
        skips = len(self.cell_space.chosen_edges)
        return [
            (*code[:position], other, *code[position + 1 :])
            for position, choice in enumerate(code)
            for other in range(2 if position < skips else len(OPERATIONS))
            if other != choice
        ]

    def graphs(self, code: Code) -> dict[str, Graph]:
        """The network: operations on nodes, behind the stem and before the output."""
        skips = self.cell_space.chosen_edges
        chosen = set(itertools.compress(skips, code))
        edges = [edge for edge in self.cell_space.edges if edge in chosen or edge not in skips]
        operations = [OPERATIONS[choice] for choice in code[len(skips) :]]
        return {KIND: Graph.build([INPUT, *operations, OUTPUT], edges, [0], [LAYERS + 1])}

    def code(self, graphs: Mapping[str, Graph]) -> Code:
        graph = graphs.get(KIND)
        if graph is None or len(graph.nodes) != self.cell_space.vertices:
            raise UserError(f"a network of {self.name} has {LAYERS} layers between its input and its output")
        edges = [(edge.source, edge.target) for edge in graph.edges]
        skips = self.cell_space.chosen_edges
        always = set(self.cell_space.edges).difference(skips)
        if len(set(edges)) < len(edges) or set(edges) - set(skips) != always:
            raise UserError(
                f"in a network of {self.name} each layer reads the one before it, and earlier ones once"
            )
        names = [label.name for label in graph.nodes[1:-1]]
        if set(names) - set(OPERATIONS):
            raise UserError(f"the operations of {self.name} are {', '.join(OPERATIONS)}")
        return (*(int(edge in edges) for edge in skips), *map(OPERATIONS.index, names))

    def text(self, code: Code) -> str:
        skips, operations = iter(code), code[len(self.cell_space.chosen_edges) :]
        layers = [[operation, *itertools.islice(skips, layer)] for layer, operation in enumerate(operations)]
        return json.dumps(layers, separators=(",", ":"))

    def parse(self, text: str) -> Code:
        layers = parse_json(text, "architecture")
        if not isinstance(layers, list) or len(layers) != LAYERS:
            raise self._refuse(text, f"it is a list of {LAYERS} layers, each with its operation and its skips")
        parts = [list(self._layer(text, layer, given)) for layer, given in enumerate(layers)]
        return (*(skip for _, *skips in parts for skip in skips), *(operation for operation, *_ in parts))

    def _layer(self, text: str, layer: int, given: Any) -> Iterator[int]:
        """The numbers of a layer, counted from 0, as they were given."""
        if not isinstance(given, list) or len(given) != layer + 1:
            raise self._refuse(text, f"layer {layer + 1} is a list of its operation and {layer} zeros and ones")
        for position, number in enumerate(given):
            if type(number) is not int or not 0 <= number < (2 if position else len(OPERATIONS)):
                what = "a skip, 0 or 1" if position else f"an operation, 0 to {len(OPERATIONS) - 1}"
                raise self._refuse(text, f"in layer {layer + 1}, {shorten(number)} is not {what}")
            yield number
