"""What queries are answered from, in one folder: the corpus, the encoder, and the index of its embeddings.

The package ships one; a run of `nge retrieve train` leaves one; `nge retrieve add` writes one with more networks.
All three files are read without carrying out anything that stands in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from nge_search.architecture.graph import PLAIN, Graph
from nge_search.errors import UserError, plain
from nge_search.kinds import CORPUS, RETRIEVAL_ENCODER, RETRIEVAL_INDEX
from nge_search.retrieve.corpus import Corpus, Entry, Network, read_corpus
from nge_search.retrieve.embedders import Embedder
from nge_search.retrieve.encoder_file import read_embedder, write_embedder
from nge_search.retrieve.extraction import without_views
from nge_search.retrieve.index import Index
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.retriever import Retriever
from nge_search.settings.retrieve import CorpusSection

FILES = (CORPUS, RETRIEVAL_ENCODER, RETRIEVAL_INDEX)


@dataclass(frozen=True)
class Catalogue:
    """Known networks, and what embeds others.

    Attributes:
        corpus: the networks' graphs.
        embedder: that made the index.
        index: of all entries of the corpus, in its order; named as `key` says.
        about: what the encoder's file says of itself: versions, the command that made it, ...
    """

    corpus: Corpus
    embedder: Embedder
    index: Index
    about: dict[str, Any]

    @property
    def views(self) -> bool:
        """Whether graphs keep what only looks at numbers in another way."""
        return self.about.get("views") is not False

    def comparable(self, graph: Graph) -> Graph:
        """A traced graph as the embedder takes it."""
        return comparable(graph, self.views)

    @cached_property
    def retriever(self) -> Retriever:
        return Retriever(self.embedder, self.index, lambda name: self.comparable(self.corpus.find(name).graph))

    def write(self, folder: Path) -> None:
        """Write the three files; OSError where they cannot be written."""
        self.corpus.write(folder / CORPUS)
        write_embedder(folder / RETRIEVAL_ENCODER, self.embedder, self.about)
        encoder = file_digest(folder / RETRIEVAL_ENCODER)
        index = self.index
        Index(index.names, index.embedding_ND, index.about, index.novelty, encoder, index.smoothing).write(
            folder / RETRIEVAL_INDEX
        )

    def added(self, networks: Sequence[Network], graphs: Sequence[Graph]) -> Catalogue:
        """The catalogue with more networks, without any training.

        Raises:
            UserError: a network that is there already.
        """
        corpus = self.corpus.added(networks, graphs)
        new = corpus.entries[len(self.corpus) :]
        embedding_ND = self.embedder.embed([OrderedGraph.of(self.comparable(graph)) for graph in graphs])
        index = self.index.added([key(entry) for entry in new], embedding_ND, [about(entry) for entry in new])
        return Catalogue(corpus, self.embedder, index, self.about)


def key(entry: Entry) -> str:
    """What the index calls an entry."""
    return f"{entry.library}:{entry.name}"


def about(entry: Entry) -> dict[str, Any]:
    """What the index knows of an entry."""
    first = entry.networks[0]
    return {
        "library": first.library,
        "family": first.family,
        "task": first.task,
        "label": entry.label,
        "parameters": first.parameters,
        "multiply_adds": first.multiply_adds,
        "also": [f"{other.library}:{other.name}" for other in entry.networks[1:]],
    }


def comparable(graph: Graph, views: bool = True) -> Graph:
    """A traced graph as embedders take it: a stand-in for a step that cannot be traced is an edge like any other.

    Args:
        views: keep what only looks at numbers in another way; otherwise it is contracted.
    """
    if not views:
        graph = without_views(graph)
    if all(edge.label == PLAIN for edge in graph.edges):
        return graph
    edges = tuple(edge._replace(label=PLAIN) for edge in graph.edges)
    return Graph(graph.nodes, edges, graph.inputs, graph.outputs)


def read_catalogue(folder: Path) -> Catalogue:
    """The catalogue in a folder.

    Raises:
        UserError: files that are missing, damaged, or do not belong together.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"'{plain(str(folder), 250)}' holds no {missing[0]}; give a folder that `nge retrieve train` or "
            "`nge retrieve add` wrote"
        )
    corpus = read_corpus(folder / CORPUS)
    embedder, said = read_embedder(folder / RETRIEVAL_ENCODER)
    index = Index.read(folder / RETRIEVAL_INDEX)
    if index.encoder != file_digest(folder / RETRIEVAL_ENCODER):
        raise UserError(
            f"{folder / RETRIEVAL_INDEX} was made by another encoder than {RETRIEVAL_ENCODER} beside it"
        )
    if list(index.names) != [key(entry) for entry in corpus.entries]:
        raise UserError(f"{folder / RETRIEVAL_INDEX} is of other networks than {CORPUS} beside it")
    return Catalogue(corpus, embedder, index, said)


def shipped_folder() -> Path:
    """Where the package keeps its own catalogue."""
    return Path(str(resources.files("nge_search.retrieve").joinpath("shipped")))


def open_catalogue(folder: str | Path | None = None) -> Catalogue:
    """The catalogue of a folder; None, or empty: the one that ships."""
    return read_catalogue(Path(folder)) if folder else _shipped()


@cache
def _shipped() -> Catalogue:
    return read_catalogue(shipped_folder())


def file_digest(path: Path) -> str:
    """What an index names its encoder by."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def known_corpus(section: CorpusSection) -> Corpus:
    """The corpus that settings name, or the one that ships.

    Raises:
        UserError: no such file, a damaged one, or one without any network of the libraries that are asked for.
    """
    path = Path(section.file) if section.file else shipped_folder() / CORPUS
    corpus = read_corpus(path / CORPUS if path.is_dir() else path)
    if section.libraries:
        corpus = corpus.of_libraries(section.libraries)
    if not len(corpus):
        of = f" of {', '.join(section.libraries)}" if section.libraries else ""
        raise UserError(f"corpus.file={path}: it holds no network{of}; build one with `nge retrieve build`")
    return corpus


def graphs_of(corpus: Corpus, views: bool = True) -> list[OrderedGraph]:
    """All graphs of a corpus, as embedders take them."""
    return [OrderedGraph.of(comparable(entry.graph, views)) for entry in corpus.entries]
