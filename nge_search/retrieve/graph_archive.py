"""Many graphs in a few arrays, and arrays in a file that is read without carrying out anything that stands in it.

Nodes stand in topological order, so an edge is its target and how many places its source stands before it: in
networks that repeat blocks the same small numbers over and over, which compress well.

Legend: G graphs, N nodes and E edges of all graphs, I inputs and O outputs of all graphs, L distinct labels.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.architecture.graph import Edge, Graph, Label
from nge_search.errors import UserError
from nge_search.files import read_bytes, write_atomic
from nge_search.json_reader import Reader, parse_json

LARGEST_FILE, _LONGEST_HEADER = 1 << 26, 1 << 16
#: Of one array, and bytes of one document.
_MOST_NUMBERS, _LARGEST_DOCUMENT = 1 << 26, 1 << 26
_DOCUMENT = "document"

_ARRAYS = {
    "nodes_G": "<u4",
    "inputs_G": "<u4",
    "outputs_G": "<u4",
    "label_N": "<u2",
    "incoming_N": "<u4",
    "back_E": "<u4",
    "label_E": "<u2",
    "input_I": "<u4",
    "output_O": "<u4",
}


@dataclass(frozen=True, eq=False)
class GraphArchive:
    """Graphs, decoded when they are asked for.

    Attributes:
        labels: L.
        nodes_G, inputs_G, outputs_G: how many nodes, inputs and outputs each graph has.
        label_N: the number of each node's label.
        incoming_N: how many edges end at each node.
        back_E: by target, how many places before it the source stands: at least 1.
        label_E: the number of each edge's label.
        input_I, output_O: nodes, counted in their graph.

    Raises:
        UserError: arrays that are no graphs.
    """

    labels: tuple[Label, ...]
    nodes_G: np.ndarray
    inputs_G: np.ndarray
    outputs_G: np.ndarray
    label_N: np.ndarray
    incoming_N: np.ndarray
    back_E: np.ndarray
    label_E: np.ndarray
    input_I: np.ndarray
    output_O: np.ndarray

    def __post_init__(self) -> None:
        totals = {
            "label_N": self.nodes_G,
            "incoming_N": self.nodes_G,
            "back_E": self.incoming_N,
            "label_E": self.incoming_N,
            "input_I": self.inputs_G,
            "output_O": self.outputs_G,
        }
        _require(len(self.nodes_G) == len(self.inputs_G) == len(self.outputs_G))
        _require(
            all(len(getattr(self, name)) == int(counts.sum(dtype=np.int64)) for name, counts in totals.items())
        )
        _require(all(bool((x < len(self.labels)).all()) for x in (self.label_N, self.label_E)))
        place_N = _counted(self.nodes_G)  # of each node in its graph
        _require(bool(((self.back_E >= 1) & (self.back_E <= place_N.repeat(self.incoming_N))).all()))
        _require(bool((self.input_I < self.nodes_G.repeat(self.inputs_G)).all()))
        _require(bool((self.output_O < self.nodes_G.repeat(self.outputs_G)).all()))

    @staticmethod
    def of(graphs: Iterable[Graph]) -> GraphArchive:
        """Graphs, one after the other; their nodes are brought into topological order where they are not in it."""
        numbers: dict[Label, int] = {}
        found: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
        for graph in graphs:
            ordered = _in_order(graph)
            edges = [ordered.edges[position] for positions in ordered.incoming for position in positions]
            values = {
                "nodes_G": [len(ordered.nodes)],
                "inputs_G": [len(ordered.inputs)],
                "outputs_G": [len(ordered.outputs)],
                "label_N": [numbers.setdefault(label, len(numbers)) for label in ordered.nodes],
                "incoming_N": [len(positions) for positions in ordered.incoming],
                "back_E": [edge.target - edge.source for edge in edges],
                "label_E": [numbers.setdefault(edge.label, len(numbers)) for edge in edges],
                "input_I": ordered.inputs,
                "output_O": ordered.outputs,
            }
            for name, row in values.items():
                found[name].append(np.array(row, dtype=np.int64))
        _require_labels(len(numbers))
        empty = np.zeros(0, dtype=np.int64)
        arrays = {name: np.concatenate([empty, *found[name]]).astype(kind) for name, kind in _ARRAYS.items()}
        return GraphArchive(tuple(numbers), **arrays)

    def joined(self, other: GraphArchive) -> GraphArchive:
        """The graphs of both, without decoding them.

        Raises:
            UserError: too many labels for one archive.
        """
        numbers = {label: number for number, label in enumerate(self.labels)}
        number_L = np.array([numbers.setdefault(label, len(numbers)) for label in other.labels], np.int64)
        _require_labels(len(numbers))
        arrays = {}
        for name, kind in _ARRAYS.items():
            own, more = getattr(self, name), getattr(other, name)
            if name in ("label_N", "label_E"):
                more = number_L[more]
            arrays[name] = np.concatenate([own, more]).astype(kind)
        return GraphArchive(tuple(numbers), **arrays)

    def __len__(self) -> int:
        return len(self.nodes_G)

    def __getitem__(self, g: int) -> Graph:
        """The graph at a place, edges by target."""
        if not 0 <= g < len(self):
            raise IndexError(g)
        nodes, edges, inputs, outputs = (slice(*starts[g : g + 2]) for starts in self._starts)
        targets = np.arange(self.nodes_G[g]).repeat(self.incoming_N[nodes])
        sources = targets - self.back_E[edges]
        labelled = (self.labels[label] for label in self.label_E[edges].tolist())
        return Graph(
            tuple(self.labels[label] for label in self.label_N[nodes].tolist()),
            tuple(map(Edge, sources.tolist(), targets.tolist(), labelled)),
            tuple(self.input_I[inputs].tolist()),
            tuple(self.output_O[outputs].tolist()),
        )

    @cached_property
    def _starts(self) -> tuple[np.ndarray, ...]:
        """Where the nodes, edges, inputs and outputs of each graph begin, and the last ones end: [G + 1] each."""
        starts_N = _starts(self.nodes_G)
        return (
            starts_N,
            _starts(self.incoming_N)[starts_N],
            _starts(self.inputs_G),
            _starts(self.outputs_G),
        )


def write_archive(path: Path, form: str, archive: GraphArchive, document: Mapping[str, Any]) -> None:
    """Write graphs and a JSON object that belongs to them, atomically; `form` names the format."""
    write_atomic(path, archive_bytes(form, archive, document))


def read_archive(path: Path, form: str) -> tuple[GraphArchive, dict[str, Any]]:
    """What `write_archive` wrote.

    Raises:
        UserError: no such file, another format, or a damaged one; names it.
    """
    return archive_of(read_bytes(path, LARGEST_FILE), form, str(path))


def archive_bytes(form: str, archive: GraphArchive, document: Mapping[str, Any]) -> bytes:
    """A line of JSON that lists the sections behind it, and these, compressed: the arrays, then the document.

    Of numbers of several bytes the first bytes stand together, and so on.
    """
    labels = [[label.name, [list(pair) for pair in label.attributes]] for label in archive.labels]
    text = json.dumps({"labels": labels, **document}, separators=(",", ":")).encode()
    sections, contents = [], []
    for name, kind in _ARRAYS.items():
        values = np.ascontiguousarray(getattr(archive, name), dtype=kind)
        planes = values.view(np.uint8).reshape(len(values), values.itemsize).T
        contents.append(zlib.compress(planes.tobytes(), 9))
        sections.append([name, len(values), len(contents[-1])])
    contents.append(zlib.compress(text, 9))
    sections.append([_DOCUMENT, len(text), len(contents[-1])])
    body = b"".join(contents)
    header = {"format": form, "sections": sections, "check": _check(body)}
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + body


def archive_of(content: bytes, form: str, source: str) -> tuple[GraphArchive, dict[str, Any]]:
    """What `archive_bytes` made; `source` names it in messages. Raises as `read_archive`."""
    line, _, body = content[: _LONGEST_HEADER + 1].partition(b"\n")
    document = parse_json(line, source) if line.startswith(b"{") and len(line) <= _LONGEST_HEADER else None
    if not isinstance(document, dict):
        raise UserError(f"{source} is not a file of the format '{form}'")
    header = Reader(source, document)
    header.text("format", (form,))
    body = content[len(line) + 1 :]
    if header.text("check") != _check(body):
        raise UserError(f"{source} is damaged: its check sum does not fit; copy or build it again")
    try:
        parts = _sections(header.any("sections"), body)
        found = parse_json(parts.pop(_DOCUMENT), source)
        labels = tuple(_label(given) for given in found.pop("labels"))
        return GraphArchive(labels, **_decoded(parts)), found
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error):
        raise UserError(f"{source} is damaged: its sections are not those of '{form}'") from None
    except UserError as error:
        raise UserError(f"{source} is damaged: {error}") from None


def _sections(listed: Any, body: bytes) -> dict[str, bytes]:
    """The contents of the sections by name, none of them larger than it says."""
    names = [*_ARRAYS, _DOCUMENT]
    _require(isinstance(listed, list) and [section[0] for section in listed] == names)
    found, start = {}, 0
    for name, count, size in listed:
        _require(type(count) is int and 0 <= count <= (_LARGEST_DOCUMENT if name == _DOCUMENT else _MOST_NUMBERS))
        _require(type(size) is int and 0 <= size <= len(body) - start)
        expected = count * (1 if name == _DOCUMENT else np.dtype(_ARRAYS[name]).itemsize)
        unpacker = zlib.decompressobj()
        found[name] = unpacker.decompress(body[start : start + size], expected + 1)
        _require(len(found[name]) == expected and unpacker.eof and not unpacker.unused_data)
        start += size
    _require(start == len(body))
    return found


def _decoded(parts: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, kind in _ARRAYS.items():
        planes = np.frombuffer(parts[name], np.uint8).reshape(np.dtype(kind).itemsize, -1)
        arrays[name] = np.ascontiguousarray(planes.T).view(kind).reshape(-1)
    return arrays


def _label(given: Any) -> Label:
    name, attributes = given
    pairs = tuple((key, value) for key, value in attributes)
    _require(isinstance(name, str) and all(type(key) is str and type(value) in (int, str) for key, value in pairs))
    return Label(name, pairs)


def _in_order(graph: Graph) -> Graph:
    if all(edge.source < edge.target for edge in graph.edges):
        return graph
    return graph.renumbered(graph.order)


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], counts.cumsum(dtype=np.int64)])


def _counted(counts_G: np.ndarray) -> np.ndarray:
    """0, 1, ... for each graph anew: int64 [N]."""
    starts = _starts(counts_G)
    return np.arange(starts[-1]) - starts[:-1].repeat(counts_G)


def _check(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _require_labels(count: int) -> None:
    if count > np.iinfo(np.uint16).max:
        raise UserError(f"the graphs have {count} labels; an archive holds {np.iinfo(np.uint16).max}")


def _require(holds: bool) -> None:
    if not holds:
        raise UserError("its arrays are no graphs")
