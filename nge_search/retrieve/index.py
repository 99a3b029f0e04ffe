"""The index: embeddings of known networks, and which of them are nearest to a query's.

Search is exact, by cosines, up to a size at which a library of approximate search pays, where one is installed
(faiss; else search stays exact). A network that is added needs no retraining: its embedding is a row more.

Legend: N networks, Q queries, D features, K answers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nge_search.errors import UserError, nearest
from nge_search.metrics.retrieval import auroc
from nge_search.retrieve.saved import read_saved, write_saved
from nge_search.retrieve.smoothing import Smoothing

KIND = "retrieval index"
#: From how many embeddings on faiss is asked, if it is installed: by exact search, and by navigable small worlds.
FAISS_FROM, HNSW_FROM = 100_000, 1_000_000

#: Of the graph by which small worlds are searched (Malkov and Yashunin, 2018): neighbours, and how widely it is
#: built and searched.
_NEIGHBOURS, _BUILDING, _SEARCHING = 32, 200, 128


class Search(Protocol):
    """Finds the rows nearest to queries."""

    def __call__(self, query_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and numbers of the nearest rows, the nearest first: [Q, K] each."""
        ...


class ExactSearch:
    """All cosines, by one product of matrices. Of equals the first."""

    def __init__(self, unit_ND: np.ndarray):
        self.unit_ND = unit_ND

    def __call__(self, query_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        cosine_QN = query_QD @ self.unit_ND.T
        count = min(count, cosine_QN.shape[1])
        found = [_largest(cosine_N, count) for cosine_N in cosine_QN]
        row_QK = np.array(found, np.int64).reshape(len(cosine_QN), count)
        return np.take_along_axis(cosine_QN, row_QK, axis=1), row_QK


def _largest(value_N: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest values stand, the largest first, of equals the first."""
    if count == 0:
        return np.zeros(0, np.int64)
    least = np.partition(value_N, len(value_N) - count)[len(value_N) - count]
    reaching = np.flatnonzero(value_N >= least)
    return reaching[np.argsort(-value_N[reaching], kind="stable")][:count]


class FaissSearch:
    """Search by faiss: exact, or in small worlds."""

    def __init__(self, unit_ND: np.ndarray, small_world: bool):
        import faiss  # an optional package, which takes a while

        if small_world:
            self._index = faiss.IndexHNSWFlat(unit_ND.shape[1], _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = _BUILDING
            self._index.hnsw.efSearch = _SEARCHING
        else:
            self._index = faiss.IndexFlatIP(unit_ND.shape[1])
        self._index.add(np.ascontiguousarray(unit_ND, np.float32))
        self._count = len(unit_ND)

    def __call__(self, query_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        return self._index.search(np.ascontiguousarray(query_QD, np.float32), min(count, self._count))


def search_of(unit_ND: np.ndarray) -> Search:
    """The search that suits so many embeddings, all of length 1, and what is installed."""
    if len(unit_ND) < FAISS_FROM or importlib.util.find_spec("faiss") is None:
        return ExactSearch(unit_ND)
    return FaissSearch(unit_ND, small_world=len(unit_ND) >= HNSW_FROM)


@dataclass(frozen=True)
class Novelty:
    """When a query counts as new: when its nearest network is no nearer than a threshold.

    Attributes:
        threshold: a cosine.
        false_alarms: the share of networks of known families that count as new.
        detections: the share of networks of families that were left out that do; NaN if none were.
        area: the area under the curve of the two (AUROC); NaN if none were.
    """

    threshold: float
    false_alarms: float
    detections: float = float("nan")
    area: float = float("nan")

    @staticmethod
    def calibrated(known_N: np.ndarray, left_out_N: np.ndarray, false_alarms: float = 0.05) -> Novelty:
        """From cosines to the nearest network: of networks whose family is there, and of those whose is not.

        Args:
            false_alarms: the largest share of `known_N` below the threshold.

        Raises:
            UserError: no known network.
        """
        if not len(known_N):
            raise UserError("a threshold for what is new needs known networks with others of their family")
        ordered = np.sort(known_N)
        threshold = float(ordered[int(false_alarms * len(ordered))])
        found = float((left_out_N < threshold).mean()) if len(left_out_N) else float("nan")
        return Novelty(threshold, float((known_N < threshold).mean()), found, auroc(-left_out_N, -known_N))

    def is_new(self, cosine: float) -> bool:
        return cosine < self.threshold


@dataclass(frozen=True)
class Answer:
    """One of the networks nearest to a query."""

    name: str
    similarity: float
    about: dict[str, Any]


@dataclass(frozen=True)
class Index:
    """Known networks with their embeddings.

    Attributes:
        names: of the networks, all different.
        embedding_ND: float32.
        about: for each what is known of it, as JSON: family, library, task, parameters, ...
        novelty: when a query is new; None: not calibrated.
        encoder: a name of the encoder that made the embeddings; only its own can be compared with them.
        smoothing: of embeddings and queries; for databases of thousands.
    """

    names: tuple[str, ...]
    embedding_ND: np.ndarray
    about: tuple[dict[str, Any], ...]
    novelty: Novelty | None = None
    encoder: str = ""
    smoothing: Smoothing = Smoothing()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.embedding_ND) == len(self.about):
            raise UserError("an index needs one embedding and one description for each name")
        if len(set(self.names)) < len(self.names):
            raise UserError("the names of an index are not all different")
        if self.embedding_ND.ndim != 2 or not np.isfinite(self.embedding_ND).all():
            raise UserError("the embeddings of an index must be finite rows")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def row(self, name: str) -> np.ndarray:
        """A network's embedding [D]; UserError, with the nearest name, for one that is not there."""
        if name not in self._place:
            raise UserError(f"no network '{name}' in the index{nearest(name, self.names)}")
        return self.embedding_ND[self._place[name]]

    def query(
        self, query_D: np.ndarray, top: int = 10, without: Sequence[str] = (), where: dict[str, Any] | None = None
    ) -> list[Answer]:
        """The networks nearest to an embedding, the nearest first.

        Args:
            query_D: an embedding of the index's encoder.
            without: names that are no answers, such as the query's own.
            where: what answers must have in `about`, such as {"task": "classification"}.

        Raises:
            UserError: an embedding of another size.
        """
        if query_D.shape != self.embedding_ND.shape[1:]:
            raise UserError(
                f"the query has {query_D.size} features, the index {self.embedding_ND.shape[1]}; they are not of "
                "one encoder"
            )
        kept = self._kept(where)
        query_QD = self.smoothing.queries(_unit(query_D[None]), self._unit_ND)
        search, rows = self._searches(kept)
        cosine_QK, row_QK = search(query_QD, top + len(without))
        found = [
            Answer(self.names[rows[row]], float(cosine), self.about[rows[row]])
            for cosine, row in zip(cosine_QK[0], row_QK[0])
            if row >= 0 and self.names[rows[row]] not in without
        ]
        return found[:top]

    def _kept(self, where: dict[str, Any] | None) -> np.ndarray | None:
        """The rows that a query asks for; None: all."""
        if not where:
            return None
        return np.array(
            [i for i, own in enumerate(self.about) if all(own.get(k) == v for k, v in where.items())], np.int64
        )

    def _searches(self, kept: np.ndarray | None) -> tuple[Search, np.ndarray]:
        if kept is not None:
            return ExactSearch(self._smoothed_ND[kept]), kept
        return self._search, np.arange(len(self))

    @cached_property
    def _unit_ND(self) -> np.ndarray:
        return _unit(self.embedding_ND)

    @cached_property
    def _smoothed_ND(self) -> np.ndarray:
        return self.smoothing.rows(self._unit_ND)

    @cached_property
    def _search(self) -> Search:
        return search_of(self._smoothed_ND)

    def added(self, names: Sequence[str], embedding_ND: np.ndarray, about: Sequence[dict[str, Any]]) -> Index:
        """The index with more networks; the encoder that made all others has made their embeddings."""
        joined = np.concatenate([self.embedding_ND, embedding_ND.astype(np.float32)])
        return Index(
            (*self.names, *names), joined, (*self.about, *about), self.novelty, self.encoder, self.smoothing
        )

    def write(self, path: Path) -> None:
        """OSError where it cannot be written."""
        novelty = None if self.novelty is None else [float(x) for x in vars(self.novelty).values()]
        document = {
            "names": self.names,
            "about": self.about,
            "encoder": self.encoder,
            "smoothing": asdict(self.smoothing),
        }
        arrays = {"embedding": self.embedding_ND.astype(np.float32)}
        if novelty is not None:
            arrays["novelty"] = np.array(novelty)
        write_saved(path, KIND, arrays, document)

    @staticmethod
    def read(path: Path) -> Index:
        """What `write` wrote.

        Raises:
            UserError: no such file, a damaged one, or one of another kind.
        """
        arrays, document = read_saved(path, KIND)
        try:
            names, about = tuple(document["names"]), tuple(document["about"])
            novelty = Novelty(*map(float, arrays["novelty"])) if "novelty" in arrays else None
            if not all(isinstance(name, str) for name in names) or not all(isinstance(a, dict) for a in about):
                raise TypeError("names and descriptions of other kinds")
            smoothing = Smoothing(**document["smoothing"])
            return Index(names, arrays["embedding"], about, novelty, str(document["encoder"]), smoothing)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"'{path}' is damaged ({error})") from None


def _unit(x_ND: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; rows of zeros stay."""
    length_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return (x_ND / np.where(length_N1 > 0, length_N1, 1)).astype(np.float32)
