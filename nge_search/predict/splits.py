"""Which labelled architectures a predictor learns from, and which judge it: all by one seed, or by published lists.

Orders come from `keyed_random`, so that they depend on the seed and the number of architectures alone: not on the
machine, the versions of libraries, or what was drawn before.

Legend: N architectures, in the order in which their table or file has them; positions count from 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError, shorten
from nge_search.keyed_random import Stream, permutation
from nge_search.predict.operation_facts import essence
from nge_search.tables.csv_rows import convert_rows

_HASH = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Split:
    """Positions of two disjoint sets of architectures, int64.

    Attributes:
        pool: from which labels are taken, in order: those of a smaller budget are the first of those of a larger.
        test: which judge.
    """

    pool: np.ndarray
    test: np.ndarray

    def train(self, labels: int) -> np.ndarray:
        """The first so many positions of the pool.

        Raises:
            UserError: fewer than two, or more than there are.
        """
        if not 2 <= labels <= len(self.pool):
            raise UserError(f"{labels} labels: this split has 2 to {len(self.pool)} to train on")
        return self.pool[:labels]


def order(count: int, seed: int) -> np.ndarray:
    """A random order of 0 .. count - 1: int64 [count]."""
    return permutation(count, seed=seed, epoch=0, stream=Stream.SPLIT).numpy()


def halves(count: int, seed: int, classes: Sequence[Hashable] | None = None) -> Split:
    """A random half to train on, with the odd one of an odd number, and the other half to test.

    Args:
        classes: of each architecture, none of which is to stand on both sides; None: each is a class of its own.

    Raises:
        UserError: too few architectures, or classes, for two sides.
    """
    pool, test = _parts(count, 2, seed, classes)
    return Split(pool, test)


def folds(count: int, parts: int, seed: int, classes: Sequence[Hashable] | None = None) -> list[Split]:
    """`parts` splits, each of which tests another part of the architectures and trains on all others.

    Without classes the parts differ in size by one at most; with them, by the size of the largest class at most.

    Raises:
        UserError: as of `halves`, and fewer than two parts.
    """
    if parts < 2:
        raise UserError(f"{parts} folds: give at least 2")
    tests, shuffled_N = _parts(count, parts, seed, classes), order(count, seed)
    return [Split(shuffled_N[~np.isin(shuffled_N, test)], test) for test in tests]


def _parts(count: int, parts: int, seed: int, classes: Sequence[Hashable] | None) -> list[np.ndarray]:
    """Disjoint parts of all positions, in random order: every class in turn goes to the part with the fewest."""
    own: Sequence[Hashable] = range(count) if classes is None else classes
    if len(own) != count:
        raise UserError(f"{len(own)} classes for {count} architectures")
    shuffled_N = order(count, seed)
    sizes = Counter(own)
    if len(sizes) < parts:
        kind = "architectures" if classes is None else "classes of architectures"
        raise UserError(f"{len(sizes)} {kind} cannot be divided into {parts} parts")
    filled, part_of = [0] * parts, {}
    for name in dict.fromkeys(own[position] for position in shuffled_N.tolist()):
        part_of[name] = min(range(parts), key=filled.__getitem__)
        filled[part_of[name]] += sizes[name]
    part_N = np.array([part_of[own[position]] for position in shuffled_N.tolist()])
    return [shuffled_N[part_N == part] for part in range(parts)]


def by_names(names: Sequence[str], pool: Iterable[str], test: Iterable[str]) -> Split:
    """The split of two lists of names, in their order; names of architectures that are not at hand are passed over.

    Args:
        names: of each architecture, as the hashes of NAS-Bench-101 (the hexadecimal `Space.key`).

    Raises:
        UserError: a name in both lists, or twice in one, or a list of which nothing is at hand.
    """
    place = {name: position for position, name in enumerate(names)}
    listed: set[str] = set()
    sides = []
    for side, given in (("to train on", pool), ("to test", test)):
        found = []
        for name in given:
            if name in listed:
                raise UserError(f"{shorten(name)} is listed twice in a split")
            listed.add(name)
            if name in place:
                found.append(place[name])
        if not found:
            raise UserError(f"none of the architectures {side} is among the {len(names)} at hand")
        sides.append(np.array(found, dtype=np.int64))
    return Split(*sides)


def read_hashes(path: Path) -> list[str]:
    """The column `hash` of a CSV, hashes of NAS-Bench-101 (32 hexadecimal digits), in its order.

    Raises:
        UserError: no such column, or something else in it; names the line.
    """

    def convert(row: Mapping[str, str]) -> str:
        if not _HASH.fullmatch(row["hash"]):
            raise ValueError(f"{shorten(row['hash'])} is no hash of 32 hexadecimal digits")
        return row["hash"]

    return list(convert_rows(path, convert))


def isomorphism_class(graphs: Mapping[str, Graph]) -> tuple[tuple[str, str], ...]:
    """What architectures share that compute the same: the digests of their graphs, of every kind of cell.

    Only the live part counts, and what hands on unchanged (a skip connection) is no operation. NAS-Bench-201 has
    5,425 classes; the 6,466 of its paper tell a sum of something and nothing from the thing alone.
    """
    return tuple((kind, _digest(graph)) for kind, graph in sorted(graphs.items()))


def _digest(graph: Graph) -> str:
    live = essence(graph)
    return "" if live is None else live.digest
