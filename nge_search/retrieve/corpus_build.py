"""Building a corpus: every network of some libraries is traced once, by several processes, and kept at once.

A build that was interrupted goes on where it stopped: the folder holds a file of JSON lines for each library, in
which each network that has a graph has its line. The versions of all that the lines depend on are in its name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import queue
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from nge_search.architecture.graph import Graph
from nge_search.architecture.isomorphism import isomorphic
from nge_search.errors import UserError
from nge_search.files import new_folder, read_bytes, refuse_odd_target
from nge_search.json_reader import Reader, parse_json
from nge_search.retrieve.corpus import Corpus, Network
from nge_search.retrieve.graph_archive import archive_of
from nge_search.retrieve.sources import Library, open_library
from nge_search.retrieve.worker import GRAPH_FORMAT, Worker

#: Goes up when extraction changes, so that no folder hands out former graphs.
EXTRACTION_VERSION = "1"

_LARGEST_JOURNAL = 1 << 28
_MOST_NUMBER = 1 << 60


@dataclass(frozen=True)
class Limits:
    """What one network may take: seconds, and megabytes of memory besides what the libraries take."""

    seconds: float = 120.0
    megabytes: int = 4096

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.megabytes > 0):
            raise UserError(f"limits must be above 0, not {self.seconds} seconds and {self.megabytes} megabytes")


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        done, total: numbers of networks.
        network: the one that was dealt with last, as "library:name".
        reason: why it has no graph; empty if it has one.
    """

    done: int
    total: int
    network: str
    reason: str


def build_corpus(
    folder: Path,
    libraries: Sequence[str] = ("timm", "torchvision"),
    names: Collection[str] | None = None,
    processes: int = 2,
    limits: Limits = Limits(),
    progress: Callable[[Progress], None] = lambda state: None,
) -> Corpus:
    """Trace all networks of some libraries that the folder does not hold yet, and put all of them together.

    Args:
        folder: what is traced is kept there; made where there is none.
        libraries: as `open_library` takes them.
        names: of networks, those that are wanted; None: all.
        processes: that trace at a time.
        progress: is called after each network; what the folder holds already counts as done from the start.

    Raises:
        UserError: a library that is not there, or a folder that is something else.
    """
    if processes < 1:
        raise UserError(f"processes must be at least 1, not {processes}")
    opened = {place: open_library(place) for place in libraries}
    wanted = {
        place: [name for name in library.names() if names is None or name in names]
        for place, library in opened.items()
    }
    total, done = sum(map(len, wanted.values())), 0
    skipped: dict[str, str] = {}
    try:
        with new_folder(folder):
            journals = {place: _Journal(folder, library) for place, library in opened.items()}
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"'{folder}' is no folder; choose another path") from None
    for place, library in opened.items():
        known = journals[place].known
        done += sum(name in known for name in wanted[place])
        missing = [name for name in wanted[place] if name not in known]
        for name, found in _traced(place, missing, processes, limits):
            done += 1
            reason = str(found.get("reason", ""))
            if reason:
                skipped[f"{library.name}:{name}"] = reason
            else:
                journals[place].add(name, found)
            progress(Progress(done, total, f"{library.name}:{name}", reason))
    versions = {"torch": torch.__version__, "extraction": EXTRACTION_VERSION}
    versions |= {library.name: library.version() for library in opened.values()}
    items = [
        _Item(library, name, journals[place].known[name])
        for place, library in opened.items()
        for name in wanted[place]
        if name in journals[place].known
    ]
    return Corpus.of(_merged(items), versions, dict(sorted(skipped.items())))


def _traced(
    library: str, names: Sequence[str], processes: int, limits: Limits
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each network's name and what is known of it, as they are done."""
    workers = [Worker(library, limits.seconds, limits.megabytes) for _ in range(min(processes, len(names)))]
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def trace(name: str) -> dict[str, Any]:
        worker = idle.get()
        try:
            return worker.trace(name)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(max(1, len(workers)))
    futures: dict[Future[dict[str, Any]], str] = {pool.submit(trace, name): name for name in names}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()
        for worker in workers:
            worker.close()
        pool.shutdown()


class _Journal:
    """The file of a library: a line for each network that was traced. What is no such line is left out.

    Attributes:
        known: what is known of each network, by its name, with "parameters", "multiply_adds", "digest", "graph".
    """

    def __init__(self, folder: Path, library: Library):
        versions = (EXTRACTION_VERSION, torch.__version__, library.name, library.version())
        digest = hashlib.blake2b(repr(versions).encode(), digest_size=8).hexdigest()
        self.path = folder / f"traced-{library.name}-{digest}.jsonl"
        refuse_odd_target(self.path)
        self.known: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in read_bytes(self.path, _LARGEST_JOURNAL).splitlines():
                try:
                    document = parse_json(line, str(self.path))
                except UserError:
                    continue
                if isinstance(document, dict) and document.get("check") == _check(document):
                    self.known[str(document.get("name"))] = document

    def add(self, name: str, found: Mapping[str, Any]) -> None:
        """Keep what is known of a network."""
        document = {"name": name, **found}
        document["check"] = _check(document)
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        file: BinaryIO
        with open(self.path, "ab+") as file:
            end = file.seek(0, 2)
            if end:  # a crash, or a full disk, may have cut the last line short
                file.seek(end - 1)
                line = b"\n" * (file.read(1) != b"\n") + line
            file.write(line)
        self.known[name] = document


def _check(document: Mapping[str, Any]) -> str:
    text = json.dumps([document.get(key) for key in ("name", "parameters", "multiply_adds", "digest", "graph")])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class _Item:
    """A network, and its graph as it is packed."""

    def __init__(self, library: Library, name: str, known: dict[str, Any]):
        reader = Reader(f"what is known of {name}", known)
        self.digest, self._packed = reader.text("digest"), reader.text("graph")
        self.network = Network(
            name,
            library.name,
            *library.origin(name),
            reader.integer("parameters", 0, _MOST_NUMBER),
            reader.integer("multiply_adds", 0, _MOST_NUMBER),
        )

    def graph(self) -> Graph:
        try:
            content = base64.b64decode(self._packed, validate=True)
        except binascii.Error:
            content = b""
        return archive_of(content, GRAPH_FORMAT, f"the graph of {self.network.name}")[0][0]

    def has_graph_of(self, other: _Item) -> bool:
        """Whether the two share one; equal hashes are not believed."""
        if self.digest != other.digest:
            return False
        return self._packed == other._packed or isomorphic(self.graph(), other.graph())


def _merged(items: Sequence[_Item]) -> Iterator[tuple[tuple[Network, ...], str, Graph]]:
    """Networks that share a graph together, in the order of the first of each."""
    groups: list[list[_Item]] = []
    alike: dict[str, list[list[_Item]]] = {}
    for item in items:
        same = next((group for group in alike.get(item.digest, ()) if item.has_graph_of(group[0])), None)
        if same is None:
            groups.append([item])
            alike.setdefault(item.digest, []).append(groups[-1])
        else:
            same.append(item)
    for group in groups:
        yield tuple(item.network for item in group), group[0].digest, group[0].graph()
