"""Many graphs in one file: what is written is read, and damage is refused."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.graph import Graph, Label
from nge_search.errors import UserError
from nge_search.retrieve.graph_archive import GraphArchive, archive_bytes, archive_of, read_archive, write_archive

FORM = "nge-test/1"


def random_graph(random: np.random.Generator, nodes: int) -> Graph:
    """Edges by target and source, as they are after reading."""
    labels = [Label.of("Convolution", kernel=int(side), stride="1x2") for side in random.integers(1, 4, nodes)]
    pairs = [(s, t) for t in range(nodes) for s in range(t) if random.random() < 0.3]
    edges = [(s, t, Label("stand-in")) if random.random() < 0.2 else (s, t) for s, t in pairs for _ in range(2)]
    return Graph.build(labels, edges, [1, 0], [nodes - 1])


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    random = np.random.default_rng(0)
    return [random_graph(random, 2 + 7 * n) for n in range(6)] + [Graph((), (), (), ())]


@pytest.fixture(scope="module")
def content(graphs: list[Graph]) -> bytes:
    return archive_bytes(FORM, GraphArchive.of(graphs), {"more": [1, "two"]})


def test_what_is_written_is_read(graphs: list[Graph], tmp_path: Path) -> None:
    path = tmp_path / "graphs"
    write_archive(path, FORM, GraphArchive.of(graphs), {"more": [1, "two"]})
    archive, document = read_archive(path, FORM)
    assert document == {"more": [1, "two"]}
    assert len(archive) == len(graphs)
    assert [archive[g] for g in range(len(graphs))] == graphs
    with pytest.raises(IndexError):
        archive[len(graphs)]


def test_nodes_are_brought_into_order() -> None:
    graph = Graph.build(["c", "a", "b"], [(1, 2), (2, 0)], [1], [0])
    read = GraphArchive.of([graph])[0]
    assert [label.name for label in read.nodes] == ["a", "b", "c"]
    assert read.is_isomorphic(graph)
    cell = PUBLISHED["darts_v2"].normal.graph()
    assert GraphArchive.of([cell])[0].is_isomorphic(cell)


def test_repetition_takes_no_space() -> None:
    block = [("Convolution", 1), ("Relu", 1), ("Add", 3)]
    nodes = ["input", "input", *(name for _ in range(3000) for name, _ in block)]
    edges = [(v - 1, v) for v in range(1, len(nodes))] + [(v - 3, v) for v in range(4, len(nodes), 3)]
    archive = GraphArchive.of([Graph.build(nodes, edges, [0], [len(nodes) - 1])] * 20)
    assert len(archive_bytes(FORM, archive, {})) < 20_000


def test_every_damaged_byte_is_noticed(content: bytes) -> None:
    random = np.random.default_rng(1)
    for position in random.choice(len(content), 200, replace=False).tolist():
        damaged = bytearray(content)
        damaged[position] ^= int(random.integers(1, 256))
        with pytest.raises(UserError, match=r"^f (is damaged|is not a file)"):
            archive_of(bytes(damaged), FORM, "f")
    for size in (0, 1, 100, len(content) - 1):
        with pytest.raises(UserError, match=r"^f "):
            archive_of(content[:size], FORM, "f")
    with pytest.raises(UserError, match=r"^f is damaged: its check sum"):
        archive_of(content + b"x", FORM, "f")


def test_another_format_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'format' must be one of nge-other/1, not 'nge-test/1'"):
        archive_of(content, "nge-other/1", "f")
    with pytest.raises(UserError, match="is not a file of the format"):
        archive_of(b"PK\x03\x04" + content, FORM, "f")
    with pytest.raises(UserError, match="does not exist"):
        read_archive(tmp_path / "nothing", FORM)


def rewritten(content: bytes, **changed: tuple[int, bytes]) -> bytes:
    """The file with some sections replaced, by what they say their size is and what they hold; the sum fits."""
    line, _, body = content.partition(b"\n")
    header, sections, parts, start = json.loads(line), [], [], 0
    for name, count, size in header["sections"]:
        given = changed.get(name)
        parts.append(body[start : start + size] if given is None else zlib.compress(given[1]))
        sections.append([name, count if given is None else given[0], len(parts[-1])])
        start += size
    body = b"".join(parts)
    header |= {"sections": sections, "check": hashlib.blake2b(body, digest_size=16).hexdigest()}
    return json.dumps(header).encode() + b"\n" + body


def test_forged_contents_are_refused(content: bytes) -> None:
    archive, _ = archive_of(rewritten(content), FORM, "f")
    nodes, edges, graphs = len(archive.label_N), len(archive.back_E), len(archive)
    forged = {
        "a label that is not there": {"label_N": (nodes, b"\xff" * 2 * nodes)},
        "an edge from before the first node": {"back_E": (edges, b"\x7f" * 4 * edges)},
        "an edge that leads nowhere": {"back_E": (edges, bytes(4 * edges))},
        "an output that is not there": {"output_O": (graphs - 1, b"\x7f" * 4 * (graphs - 1))},
        "more edges than it has": {"incoming_N": (nodes, b"\xff" * 4 * nodes)},
        "more than it says": {"label_N": (nodes, bytes(2 * nodes + 2))},
        "less than it says": {"label_N": (nodes, bytes(2 * nodes - 2))},
        "a bomb": {"label_N": (nodes, bytes(1 << 24))},
        "more numbers than allowed": {"label_N": (1 << 40, bytes(8))},
        "no document": {"document": (4, b"null")},
        "no labels": {"document": (2, b"{}")},
        "labels of another kind": {"document": (18, b'{"labels":[[1,[]]]}'[:18])},
        "attributes of another kind": {"document": (28, b'{"labels":[["a",[["k",[]]]]]}')},
    }
    assert refused(rewritten(content)) is None
    for what, sections in forged.items():
        assert str(refused(rewritten(content, **sections))).startswith("f is damaged"), what


def refused(content: bytes) -> UserError | None:
    try:
        archive_of(content, FORM, "f")
    except UserError as error:
        return error
    return None
