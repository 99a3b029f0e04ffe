"""An architecture as data: what a cell-based network is, its JSON form, and the published ones by name.

A cell has two input nodes (0 and 1: the outputs of the two cells before it) and inner nodes numbered
from 2. Every inner node adds up two operations, each applied to an earlier node; the cell's output
concatenates some of the inner nodes. This is the notation of DARTS (Liu et al., 2019), which also
expresses NASNet-A and AmoebaNet-A.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nge_search import operation_registry
from nge_search.architecture.graph import CONCAT, INPUT, SUM, Graph
from nge_search.errors import UserError, nearest, shorten
from nge_search.json_reader import parse_json
from nge_search.registry import resolve
from nge_search.settings.names import INPUT_NODES, OPERATIONS

FORMAT = "nge-genotype/1"
SPACE = "darts"
EDGES_PER_NODE = 2

#: The package's own operations without a convolution.
PARAMETER_FREE = frozenset({"skip_connect", "max_pool_3x3", "avg_pool_3x3"})

#: Of a genotype's file, in bytes.
LARGEST_FILE = 1 << 20
#: Of a cell, inner ones.
MAXIMUM_NODES = 64
_REQUIRED_KEYS = ("format", "space", "normal", "normal_concat", "reduce", "reduce_concat")
_KEYS = (*_REQUIRED_KEYS, "plugins", "provenance")

Gene = tuple[str, int]


@dataclass(frozen=True)
class Cell:
    """One cell: `genes` holds two (operation, input node) pairs per inner node, in node order;
    `concat` the inner nodes whose outputs form the cell's output, in that order."""

    genes: tuple[Gene, ...]
    concat: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """The number of inner nodes."""
        return len(self.genes) // EDGES_PER_NODE

    def incoming(self, node: int) -> tuple[Gene, ...]:
        """The (operation, input node) pairs that inner node `node` (numbered from 2) adds up."""
        first = EDGES_PER_NODE * (node - INPUT_NODES)
        return self.genes[first : first + EDGES_PER_NODE]

    def graph(self) -> Graph:
        """Two inputs, a sum for each inner node with its genes as incoming edges, and the output."""
        output = INPUT_NODES + self.nodes
        genes = [
            (source, node, operation)
            for node in range(INPUT_NODES, output)
            for operation, source in self.incoming(node)
        ]
        nodes = [INPUT] * INPUT_NODES + [SUM] * self.nodes + [CONCAT]
        return Graph.build(nodes, [*genes, *((node, output) for node in self.concat)], range(INPUT_NODES), [output])

    def _repr_svg_(self) -> str:
        """What notebooks show."""
        return resolve("nge_search.report.notebook:cells_svg")({"cell": self.graph()})

    @classmethod
    def from_graph(cls, graph: Graph) -> Cell:
        """The cell whose `graph` this is; edges count in the order in which they stand."""
        output = len(graph.nodes) - 1
        genes = [
            (graph.edges[position].label.name, graph.edges[position].source)
            for node in range(INPUT_NODES, output)
            for position in graph.incoming[node]
        ]
        return cls(tuple(genes), tuple(graph.sources(output)))


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell. `provenance` says where they come from and is not compared."""

    normal: Cell
    reduce: Cell
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for kind in ("normal", "reduce"):
            _check_cell(kind, getattr(self, kind))

    @property
    def plugins(self) -> dict[str, str]:
        """The plugin of each operation that is not of the package, by the operation's name."""
        return operation_registry.plugins_of(name for _, cell in self.cells() for name, _ in cell.genes)

    def cells(self) -> tuple[tuple[str, Cell], ...]:
        """("normal", cell), ("reduce", cell)."""
        return ("normal", self.normal), ("reduce", self.reduce)

    def graphs(self) -> dict[str, Graph]:
        """The cells as graphs: operations on edges, inner nodes that add up, and an output that concatenates."""
        return {kind: cell.graph() for kind, cell in self.cells()}

    def _repr_svg_(self) -> str:
        """What notebooks show."""
        return resolve("nge_search.report.notebook:cells_svg")(self.graphs())

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, Graph]) -> Genotype:
        """The genotype whose `graphs` these are.

        Raises:
            UserError: graphs that are no cells in DARTS' notation.
        """
        return cls(Cell.from_graph(graphs["normal"]), Cell.from_graph(graphs["reduce"]))

    @classmethod
    def of(cls, cells: Cells) -> Genotype:
        """The genotype itself, or the one whose graphs are given."""
        return cells if isinstance(cells, Genotype) else cls.from_graphs(cells)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `genotype.json` holds (README, "From Python")."""
        document: dict[str, Any] = {"format": FORMAT, "space": SPACE}
        for kind, cell in self.cells():
            document[kind] = [list(gene) for gene in cell.genes]
            document[f"{kind}_concat"] = list(cell.concat)
        if self.plugins:
            document["plugins"] = self.plugins
        document["provenance"] = dict(self.provenance)
        return document

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, document: Any, source: str = "genotype") -> Genotype:
        """Build from a decoded JSON object; `source` names it in messages.

        Raises:
            UserError: anything that is not a complete, well-formed genotype.
        """
        try:
            return cls._from_dict(document)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    @classmethod
    def _from_dict(cls, document: Any) -> Genotype:
        if not isinstance(document, dict):
            raise UserError(f"a genotype is a JSON object, not {type(document).__name__}")
        if isinstance(document.get("space"), str) and document["space"] != SPACE:
            raise UserError(f"space {shorten(document['space'])} is unknown; allowed is '{SPACE}'")
        for key in document:
            if key not in _KEYS:
                hint = nearest(str(key), _KEYS)
                raise UserError(f"unknown key {shorten(key)}; allowed are {', '.join(_KEYS)}{hint}")
        for key in _REQUIRED_KEYS:
            if key not in document:
                raise UserError(f"key '{key}' is missing")
        if document["format"] != FORMAT:
            raise UserError(f"format {shorten(document['format'])} is not supported; this version reads '{FORMAT}'")
        if document["space"] != SPACE:
            raise UserError(f"space {shorten(document['space'])} is unknown; allowed is '{SPACE}'")
        provenance = document.get("provenance", {})
        if not isinstance(provenance, dict):
            raise UserError(f"provenance must be a JSON object, not {shorten(provenance)}")
        plugins = _read_plugins(document.get("plugins", {}))
        cells = {}
        for kind in ("normal", "reduce"):
            genes, concat = document[kind], document[f"{kind}_concat"]
            if not isinstance(genes, list) or not all(isinstance(gene, list) and len(gene) == 2 for gene in genes):
                raise UserError(f"{kind} must be a list of [operation, input node] pairs, not {shorten(genes)}")
            if not isinstance(concat, list):
                raise UserError(f"{kind}_concat must be a list of inner nodes, not {shorten(concat)}")
            for operation, _ in genes:
                if isinstance(operation, str):
                    operation_registry.require_operation(operation, plugins)
            cells[kind] = Cell(tuple((gene[0], gene[1]) for gene in genes), tuple(concat))
        return cls(**cells, provenance=provenance)

    @classmethod
    def from_json(cls, text: str, source: str = "genotype") -> Genotype:
        """Parse the JSON form; raises UserError naming `source` when it is malformed."""
        if len(text) > LARGEST_FILE:
            raise UserError(f"{source}: larger than {LARGEST_FILE} bytes; a genotype is a small JSON file")
        return cls.from_dict(parse_json(text, source), source)


#: What networks are stacked from: a genotype, or a space's graphs by the kind of cell.
Cells = Genotype | Mapping[str, Graph]


def _read_plugins(given: Any) -> dict[str, str]:
    """The plugin of each operation that is not of the package, by name, as `Genotype.to_dict` writes them."""
    if not isinstance(given, dict) or not all(isinstance(plugin, str) for plugin in given.values()):
        raise UserError(f"plugins must be an object of operations and their modules, not {shorten(given)}")
    return given


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_cell(kind: str, cell: Cell) -> None:
    """Raise UserError unless every gene reads an earlier node and the output uses inner nodes only."""
    count = len(cell.genes)
    if count == 0 or count % EDGES_PER_NODE:
        raise UserError(f"{kind} has {count} pairs; every inner node needs exactly {EDGES_PER_NODE}")
    if cell.nodes > MAXIMUM_NODES:
        raise UserError(f"{kind} has {cell.nodes} inner nodes; at most {MAXIMUM_NODES} are supported")
    for position, (operation, source) in enumerate(cell.genes):
        node = INPUT_NODES + position // EDGES_PER_NODE
        if operation not in operation_registry.names():
            raise UserError(f"{kind} pair {position}: {operation_registry.unknown_operation(operation)}")
        if not _is_integer(source) or source < 0:
            raise UserError(f"{kind} pair {position}: input node {shorten(source)} is not a node number")
        if source >= node:
            raise UserError(
                f"{kind} pair {position}: node {node} cannot read node {source}, which does not come before it"
            )
    inner = range(INPUT_NODES, INPUT_NODES + cell.nodes)
    if not cell.concat:
        raise UserError(f"{kind}_concat is empty; name the inner nodes that form the output")
    for node in cell.concat:
        if not _is_integer(node) or node not in inner:
            raise UserError(f"{kind}_concat: {shorten(node)} is not an inner node ({inner[0]} to {inner[-1]})")
    if len(set(cell.concat)) != len(cell.concat):
        raise UserError(f"{kind}_concat names a node twice: {list(cell.concat)}")


_SKIP, _MAX, _AVG, _SEP3, _SEP5, _DIL3, _DIL5, _SEP7, _CONV7 = OPERATIONS


def _published(
    source: str,
    normal: tuple[Gene, ...],
    reduce: tuple[Gene, ...],
    normal_concat: tuple[int, ...] = (2, 3, 4, 5),
    reduce_concat: tuple[int, ...] = (2, 3, 4, 5),
) -> Genotype:
    return Genotype(Cell(normal, normal_concat), Cell(reduce, reduce_concat), {"source": source})


# fmt: off
#: The published architectures, in the notation of their authors' (for NASNet-A and AmoebaNet-A: DARTS') code.
PUBLISHED: dict[str, Genotype] = {
    "darts_v1": _published(
        "DARTS, first order (Liu, Simonyan and Yang, 2019)",
        ((_SEP3, 1), (_SEP3, 0), (_SKIP, 0), (_SEP3, 1), (_SKIP, 0), (_SEP3, 1), (_SEP3, 0), (_SKIP, 2)),
        ((_MAX, 0), (_MAX, 1), (_SKIP, 2), (_MAX, 0), (_MAX, 0), (_SKIP, 2), (_SKIP, 2), (_AVG, 0)),
    ),
    "darts_v2": _published(
        "DARTS, second order (Liu, Simonyan and Yang, 2019)",
        ((_SEP3, 0), (_SEP3, 1), (_SEP3, 0), (_SEP3, 1), (_SEP3, 1), (_SKIP, 0), (_SKIP, 0), (_DIL3, 2)),
        ((_MAX, 0), (_MAX, 1), (_SKIP, 2), (_MAX, 1), (_MAX, 0), (_SKIP, 2), (_SKIP, 2), (_MAX, 1)),
    ),
    "pc_darts_cifar": _published(
        "PC-DARTS, searched on CIFAR-10 (Xu et al., 2020)",
        ((_SEP3, 1), (_SKIP, 0), (_SEP3, 0), (_DIL3, 1), (_SEP5, 0), (_SEP3, 1), (_AVG, 0), (_DIL3, 1)),
        ((_SEP5, 1), (_MAX, 0), (_SEP5, 1), (_SEP5, 2), (_SEP3, 0), (_SEP3, 3), (_SEP3, 1), (_SEP3, 2)),
    ),
    "pc_darts_imagenet": _published(
        "PC-DARTS, searched on ImageNet (Xu et al., 2020)",
        ((_SKIP, 1), (_SEP3, 0), (_SEP3, 0), (_SKIP, 1), (_SEP3, 1), (_SEP3, 3), (_SEP3, 1), (_DIL5, 4)),
        ((_SEP3, 0), (_SKIP, 1), (_DIL5, 2), (_MAX, 1), (_SEP3, 2), (_SEP3, 1), (_SEP5, 0), (_SEP3, 3)),
    ),
    "p_darts": _published(
        "P-DARTS (Chen et al., 2019)",
        ((_SKIP, 0), (_DIL3, 1), (_SKIP, 0), (_SEP3, 1), (_SEP3, 1), (_SEP3, 3), (_SEP3, 0), (_DIL5, 4)),
        ((_AVG, 0), (_SEP5, 1), (_SEP3, 0), (_DIL5, 2), (_MAX, 0), (_DIL3, 1), (_DIL3, 1), (_DIL5, 3)),
    ),
    "nasnet_a": _published(
        "NASNet-A (Zoph et al., 2018)",
        ((_SEP5, 1), (_SEP3, 0), (_SEP5, 0), (_SEP3, 0), (_AVG, 1),
         (_SKIP, 0), (_AVG, 0), (_AVG, 0), (_SEP3, 1), (_SKIP, 1)),
        ((_SEP5, 1), (_SEP7, 0), (_MAX, 1), (_SEP7, 0), (_AVG, 1),
         (_SEP5, 0), (_SKIP, 3), (_AVG, 2), (_SEP3, 2), (_MAX, 1)),
        (2, 3, 4, 5, 6), (4, 5, 6),
    ),
    "amoebanet_a": _published(
        "AmoebaNet-A (Real et al., 2019)",
        ((_AVG, 0), (_MAX, 1), (_SEP3, 0), (_SEP5, 2), (_SEP3, 0),
         (_AVG, 3), (_SEP3, 1), (_SKIP, 1), (_SKIP, 0), (_AVG, 1)),
        ((_AVG, 0), (_SEP3, 1), (_MAX, 0), (_SEP7, 2), (_SEP7, 0),
         (_AVG, 1), (_MAX, 0), (_MAX, 1), (_CONV7, 0), (_SEP3, 5)),
        (4, 5, 6), (3, 4, 6),
    ),
}
# fmt: on
