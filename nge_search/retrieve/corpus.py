"""The corpus: published networks as graphs, those that share a graph as one entry, in one small file.

Widths and resolutions leave no trace in a graph, so networks of one entry may differ in parameters and mult-adds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError, nearest, plain
from nge_search.json_reader import Reader
from nge_search.retrieve.graph_archive import GraphArchive, read_archive, write_archive
from nge_search.retrieve.operation_labels import VIEWS

FORMAT = "nge-corpus/1"

#: Coarse labels; see `coarse_label`.
CNN, ATTENTION, OTHER = COARSE_LABELS = ("cnn", "attention", "other")

_MOST_PARAMETERS, _MOST_MULTIPLY_ADDS = 1 << 50, 1 << 60


@dataclass(frozen=True)
class Network:
    """What is known of a published network besides its graph.

    Attributes:
        name: in its library.
        library: timm, torchvision or transformers.
        family: timm's module that defines it, or the module of its library where timm has none such.
        task: what it is made for, such as classification.
        parameters: their number.
        multiply_adds: of one example of the usual size.
    """

    name: str
    library: str
    family: str
    task: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, eq=False)
class Entry:
    """A graph, and the networks that have it; the first one stands for them.

    Attributes:
        networks: at least one, in the order of the libraries and of their names.
        digest: the graph's.
        label: one of `COARSE_LABELS`.
    """

    networks: tuple[Network, ...]
    digest: str
    label: str
    _graphs: GraphArchive = field(repr=False)
    _place: int = field(repr=False)

    @property
    def name(self) -> str:
        return self.networks[0].name

    @property
    def library(self) -> str:
        return self.networks[0].library

    @property
    def family(self) -> str:
        return self.networks[0].family

    @property
    def task(self) -> str:
        return self.networks[0].task

    @cached_property
    def graph(self) -> Graph:
        """Decoded when it is first asked for."""
        return self._graphs[self._place]

    def of_library(self, library: str) -> Network | None:
        """The first of its networks that a library has."""
        return next((network for network in self.networks if network.library == library), None)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Entries, no two of which share a graph.

    Attributes:
        entries: in the order of the libraries and of their names.
        versions: of the libraries, of torch, and of what extracts graphs.
        skipped: networks ("library:name") that have no graph here, and why.
    """

    entries: tuple[Entry, ...]
    versions: Mapping[str, str]
    skipped: Mapping[str, str]
    _graphs: GraphArchive = field(repr=False)

    @staticmethod
    def of(
        items: Iterable[tuple[tuple[Network, ...], str, Graph]],
        versions: Mapping[str, str],
        skipped: Mapping[str, str],
    ) -> Corpus:
        """A corpus from the networks, the digest and the graph of each entry; graphs are packed one by one."""
        rows: list[tuple[tuple[Network, ...], str, str]] = []

        def graphs() -> Iterator[Graph]:
            for networks, digest, graph in items:
                rows.append((networks, digest, coarse_label(graph)))
                yield graph

        archive = GraphArchive.of(graphs())
        entries = tuple(Entry(*row, archive, place) for place, row in enumerate(rows))
        return Corpus(entries, dict(versions), dict(skipped), archive)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        """Entries by "library:name", and by the name alone, where the first library that has it counts."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            for network in entry.networks:
                found[f"{network.library}:{network.name}"] = entry
        for key, entry in list(found.items()):
            found.setdefault(key.partition(":")[2], entry)
        return found

    def find(self, name: str) -> Entry:
        """The entry of a network, by its name or as "library:name".

        Raises:
            UserError: it is not there.
        """
        if name not in self.by_name:
            raise UserError(
                f"network '{plain(name)}' is not among the {sum(len(entry.networks) for entry in self.entries)} "
                f"of the corpus{nearest(name, self.by_name)}"
            )
        return self.by_name[name]

    def families(self, least: int = 1) -> dict[str, int]:
        """How many entries each family has, those with fewer than `least` left out."""
        counts = Counter(entry.family for entry in self.entries)
        return {family: count for family, count in sorted(counts.items()) if count >= least}

    def added(self, networks: Sequence[Network], graphs: Sequence[Graph]) -> Corpus:
        """The corpus with more networks, an entry for each, behind those that it has.

        Raises:
            UserError: a network that is there already.
        """
        for network in networks:
            if f"{network.library}:{network.name}" in self.by_name:
                raise UserError(f"network '{network.library}:{plain(network.name)}' is in the corpus already")
        archive = self._graphs.joined(GraphArchive.of(graphs))
        rows = [(entry.networks, entry.digest, entry.label) for entry in self.entries]
        rows += [((network,), graph.digest, coarse_label(graph)) for network, graph in zip(networks, graphs)]
        entries = tuple(Entry(*row, archive, place) for place, row in enumerate(rows))
        return Corpus(entries, self.versions, self.skipped, archive)

    def of_libraries(self, libraries: Collection[str]) -> Corpus:
        """The entries that have networks of some libraries, without their networks of others."""
        kept = []
        for entry in self.entries:
            networks = tuple(network for network in entry.networks if network.library in libraries)
            if networks:
                kept.append(replace(entry, networks=networks))
        skipped = {name: why for name, why in self.skipped.items() if name.partition(":")[0] in libraries}
        return Corpus(tuple(kept), self.versions, skipped, self._graphs)

    def write(self, path: Path) -> None:
        """Write the corpus to a file, atomically."""
        document = {
            "versions": dict(self.versions),
            "skipped": dict(self.skipped),
            "entries": [
                [entry.digest, entry.label, [_row(network) for network in entry.networks]] for entry in self.entries
            ],
        }
        places = [entry._place for entry in self.entries]
        archive = self._graphs
        if places != list(range(len(archive))):  # some of its graphs are of entries that were left out
            archive = GraphArchive.of(entry.graph for entry in self.entries)
        write_archive(path, FORMAT, archive, document)


def read_corpus(path: Path) -> Corpus:
    """A corpus from a file, without decoding its graphs.

    Raises:
        UserError: no such file, or a damaged one; names it.
    """
    archive, document = read_archive(path, FORMAT)
    reader = Reader(str(path), document)
    versions, skipped, rows = reader.texts("versions"), reader.texts("skipped"), reader.any("entries")
    if not isinstance(rows, list) or len(rows) != len(archive):
        raise UserError(f"{path} is damaged: 'entries' must be a list of {len(archive)}, one for each graph")
    try:
        entries = tuple(_entry(row, archive, place) for place, row in enumerate(rows))
    except (TypeError, ValueError):
        raise UserError(f"{path} is damaged: an entry is not a digest, a label and networks") from None
    return Corpus(entries, versions, skipped, archive)


def _row(network: Network) -> list[str | int]:
    return [
        *(network.name, network.library, network.family, network.task),
        *(network.parameters, network.multiply_adds),
    ]


def _entry(row: Any, archive: GraphArchive, place: int) -> Entry:
    digest, label, networks = row
    if not isinstance(digest, str) or label not in COARSE_LABELS or not isinstance(networks, list) or not networks:
        raise ValueError
    return Entry(tuple(map(_network, networks)), digest, label, archive, place)


def _network(row: Any) -> Network:
    name, library, family, task, parameters, multiply_adds = row
    if not all(isinstance(text, str) for text in (name, library, family, task)):
        raise ValueError
    for value, most in ((parameters, _MOST_PARAMETERS), (multiply_adds, _MOST_MULTIPLY_ADDS)):
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError
    return Network(name, library, family, task, parameters, multiply_adds)


def coarse_label(graph: Graph) -> str:
    """What a network mixes places by.

    attention: the result of a softmax, perhaps reshaped or masked out, is a factor of a matrix product; cnn: none
    is, but a convolution of more than one pixel moves on by one; other: neither, as in perceptrons on patches.
    """
    weighs = [False] * len(graph.nodes)  # whether it is the result of a softmax, seen through views
    for node in graph.order:
        name = graph.nodes[node].name
        heard = any(weighs[source] for source in graph.sources(node))
        if heard and name in _PRODUCTS:
            return ATTENTION
        weighs[node] = "Softmax" in name or (heard and name in _SEEN_THROUGH)
    return CNN if any(_mixes_neighbours(dict(label.attributes)) for label in graph.nodes) else OTHER


_PRODUCTS = frozenset({"Bmm", "Mm", "Baddbmm"})
_SEEN_THROUGH = VIEWS | {"Where", "MaskedFill", "NativeDropout", "Mul", "Div"}


def _mixes_neighbours(attributes: Mapping[str, int | str]) -> bool:
    return "groups" in attributes and attributes["kernel"] != 1 and attributes["stride"] == 1
