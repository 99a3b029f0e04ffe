"""How long retrieval takes: the part `speed` of `retrieve.py`.

Seconds are those of one core, so that other work on the machine does not count; each is the median of some runs.
The time of a whole corpus is that of every 25th network of each library, times what they are a share of.

Legend: N embeddings, D features.
"""

from __future__ import annotations

import functools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from predict_tables import markdown

from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.kinds import RETRIEVAL_INDEX
from nge_search.retrieve.asked_network import asked_network
from nge_search.retrieve.catalogue import read_catalogue, shipped_folder
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.corpus_build import build_corpus
from nge_search.retrieve.index import ExactSearch, Index
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.sources import LIBRARIES, open_library

#: Networks that are traced: a usual one, and the one with the most operations of timm and torchvision.
_TRACED = ("timm:resnet50", "timm:sequencer2d_l")
_FEATURES, _QUERIES, _TOP = 64, 20, 10
#: Of a library's networks, one in so many is traced.
_EVERY = 25


def measure(
    out: Path, count: int, traced: Sequence[str] = _TRACED, libraries: Sequence[str] = tuple(LIBRARIES)
) -> None:
    """retrieve_speed.json, and a table; `count` embeddings are searched."""
    listed = {library: open_library(library).names() for library in libraries}
    seconds: dict[str, float] = {}
    figures: dict[str, Any] = {}
    nothing = Corpus.of([], {}, {})
    for name in traced:
        asked = asked_network(name, nothing)
        build = functools.partial(asked_network, name, nothing)
        what = f"{name}, {len(asked.graph.nodes):,} operations, built and traced"
        seconds[what] = timed(build, 1 if len(asked.graph.nodes) > 10_000 else 3)
    folder = shipped_folder()
    seconds["index that ships, loaded"] = timed(lambda: Index.read(folder / RETRIEVAL_INDEX), 5)
    seconds["corpus, encoder and index that ship, loaded"] = timed(lambda: read_catalogue(folder), 3)
    catalogue = read_catalogue(folder)
    graph = catalogue.comparable(catalogue.corpus.find("resnet50").graph)
    query_D = catalogue.embedder.embed([OrderedGraph.of(graph)])[0]
    began = time.process_time()
    catalogue.index.query(query_D)
    seconds["first query, with what later ones need"] = time.process_time() - began
    seconds["a graph of resnet50 embedded"] = timed(lambda: catalogue.embedder.embed([OrderedGraph.of(graph)]), 11)
    seconds[f"query of {len(catalogue.index):,} graphs"] = timed(lambda: catalogue.index.query(query_D), 101)
    what = f"query of {count:,} embeddings of {_FEATURES} features, all compared"
    seconds[what], figures["recall_at_10"] = search(count)
    for library, names in listed.items():
        sample = names[::_EVERY]
        what = f"all {len(names):,} networks of {library} traced, by {len(sample)} of them"
        seconds[what] = tracing(library, sample) * len(names)
    print(markdown(["what", "seconds"], [[name, f"{value:.4f}"] for name, value in seconds.items()]))
    print(f"\nrecall at {_TOP}: {figures['recall_at_10']:.3f}")
    header = results_header("python experiments/retrieve.py speed")
    write_json(out / "retrieve_speed.json", {**header, "cores": 1, **figures, "core_seconds": seconds})


def tracing(library: str, names: Sequence[str]) -> float:
    """Mean core seconds of a network but the first, which is traced alone before, as imports are no network's."""
    spent = []
    for some in (names[:1], names):
        began = children()
        with tempfile.TemporaryDirectory() as folder:
            build_corpus(Path(folder), [library], some, 1)
        spent.append(children() - began)
    return (spent[1] - spent[0]) / max(len(names) - 1, 1)


def children() -> float:
    """Core seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def search(count: int) -> tuple[float, float]:
    """Median seconds of a query, and the share of the nearest ten, by float64, that are found."""
    random = np.random.default_rng(0)
    unit_ND = random.standard_normal((count, _FEATURES), np.float32)
    unit_ND /= np.linalg.norm(unit_ND, axis=1, keepdims=True)
    found = ExactSearch(unit_ND)
    durations, recalls = [], []
    for _ in range(_QUERIES):
        query_1D = random.standard_normal((1, _FEATURES), np.float32)
        query_1D /= np.linalg.norm(query_1D)
        began = time.process_time()
        _, row_1K = found(query_1D, _TOP)
        durations.append(time.process_time() - began)
        recalls.append(len(set(row_1K[0].tolist()) & nearest(unit_ND, query_1D[0])) / min(_TOP, count))
    return statistics.median(durations), float(np.mean(recalls))


def nearest(unit_ND: np.ndarray, query_D: np.ndarray, rows: int = 50_000) -> set[int]:
    """The nearest ten by float64."""
    parts = [unit_ND[i : i + rows].astype(np.float64) @ query_D for i in range(0, len(unit_ND), rows)]
    cosine_N = np.concatenate(parts)
    return set(np.argpartition(-cosine_N, min(_TOP, len(cosine_N)) - 1)[:_TOP].tolist())


def timed(work: Callable[[], Any], times: int) -> float:
    """The median of its seconds."""
    durations = []
    for _ in range(times):
        began = time.process_time()
        work()
        durations.append(time.process_time() - began)
    return statistics.median(durations)
