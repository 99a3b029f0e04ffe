"""An architecture as columns of numbers, in groups that a process compares each by itself.

Analytic features come in their own groups (`analytic.GROUPS`), of each kind of cell. Beside them stand two bags of
words, which say what is where in the live part of a cell, with its operations on nodes: "subtrees", the names of
the Weisfeiler-Lehman test (`nasbowl.subtrees`), and "places", the operations by their depth, and what joins which
depths. Isomorphic cells have equal columns.

Everything is scaled by the architectures to learn from, so that two of them have a squared distance of about 2 for
each column of a group.

Legend: N architectures, F columns, C kinds of cells, A analytic features of a cell, W words.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from nge_search.architecture.graph import Graph
from nge_search.predict import analytic
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.nasbowl import subtrees

SUBTREES, PLACES = "subtrees", "places"
ROUNDS = 2
#: Isomorphic graphs have analytic features that are equal up to rounding.
_DECIMALS = 9
#: Architectures whose words and features are remembered: searches come back to the same ones.
_REMEMBERED = 1 << 16

Words = Callable[[Cells], Counter[str]]


def subtree_words(cells: Cells) -> Counter[str]:
    """The names of nodes after each of `ROUNDS` rounds, and how often each occurs."""
    return _subtree_words(tuple(cells.items()))


@functools.lru_cache(_REMEMBERED)
def _subtree_words(cells: tuple[tuple[str, Graph], ...]) -> Counter[str]:
    return Counter({"/".join(map(str, name)): count for name, count in subtrees(dict(cells), ROUNDS).items()})


def place_words(cells: Cells) -> Counter[str]:
    """Operations by the number of edges that lead to them, and edges by those of their ends."""
    return _place_words(tuple(cells.items()))


@functools.lru_cache(_REMEMBERED)
def _place_words(cells: tuple[tuple[str, Graph], ...]) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, cell in cells:
        live = cell.pruned()
        if live is None:
            found[f"{kind}/dead"] += 1
            continue
        graph = live.operations_on_nodes()
        depths = graph.depths
        found.update(f"{kind}/{label}/{depth}" for label, depth in zip(graph.nodes, depths))
        found.update(f"{kind}/{depths[edge.source]}/{depths[edge.target]}" for edge in graph.edges)
    return found


class Bag:
    """Words as columns: how often each occurs, as directions of length 1, so that products are cosines.

    Words that are new have one column together, with which lengths stay 1.
    """

    def __init__(self, words: Words, known: Sequence[str] = (), scale: float = 1.0):
        self.words, self.known, self.scale = words, list(known), scale

    def fit(self, architectures: Sequence[Cells]) -> Tensor:
        """Take words and scale from architectures, and give their columns."""
        self.known, self.scale = sorted(set().union(*map(self.words, architectures))), 1.0
        direction_NW = self(architectures)
        squared = 2 - 2 * float(direction_NW.mean(dim=0).square().sum())  # the mean over all pairs
        self.scale = (2 * direction_NW.shape[1] / squared) ** 0.5 if squared > 1e-9 else 1.0
        return self(architectures)

    def __call__(self, architectures: Sequence[Cells]) -> Tensor:
        place = {word: position for position, word in enumerate(self.known)}
        count_NW = np.zeros((len(architectures), len(place) + 1))
        for row, cells in enumerate(architectures):
            unknown = 0
            for word, count in self.words(cells).items():
                if word in place:
                    count_NW[row, place[word]] = count
                else:
                    unknown += count**2
            count_NW[row, -1] = unknown**0.5
        count_NW *= self.scale / np.sqrt((count_NW**2).sum(axis=1, keepdims=True))
        return torch.from_numpy(count_NW)


class Quantiles:
    """Columns by the place of their numbers among those to learn from, as quantiles of a normal distribution.

    Columns in which all numbers are equal are left out.
    """

    def __init__(self, sorted_NF: Tensor | None = None, kept: Sequence[int] = ()):
        self.sorted_NF, self.kept = sorted_NF, list(kept)

    def fit(self, x_NF: np.ndarray) -> Tensor:
        """Take the known numbers, and give their columns."""
        self.kept = np.flatnonzero(x_NF.min(axis=0) < x_NF.max(axis=0)).tolist()
        self.sorted_NF = torch.from_numpy(np.sort(x_NF[:, self.kept], axis=0))
        return self(x_NF)

    def __call__(self, x_NF: np.ndarray) -> Tensor:
        assert self.sorted_NF is not None, "fit comes first"
        known_NF = self.sorted_NF.numpy()
        columns = []
        for known_N, x_N in zip(known_NF.T, x_NF[:, self.kept].T):
            below_N, upto_N = (np.searchsorted(known_N, x_N, side=side) for side in ("left", "right"))
            columns.append(special.ndtri(((below_N + upto_N) / 2 + 0.5) / (len(known_N) + 1)))
        return torch.from_numpy(np.stack(columns, axis=1) if columns else np.zeros((len(x_NF), 0)))


def analytic_features(architectures: Sequence[Cells], kinds: Sequence[str]) -> np.ndarray:
    """The analytic features of all kinds of cells, kind by kind: float64 [N, C A]."""
    graphs = dict.fromkeys(cells[kind] for kind in kinds for cells in architectures)
    new = [graph for graph in graphs if graph not in _FEATURES]
    if len(_FEATURES) + len(new) > _REMEMBERED:
        new = list(graphs)
        _FEATURES.clear()
    if new:
        _FEATURES.update(zip(new, analytic.features(new).round(_DECIMALS)))
    found = [_FEATURES[cells[kind]] for cells in architectures for kind in kinds]
    return np.array(found).reshape(len(architectures), len(kinds) * len(analytic.NAMES))


#: Of graphs, as `analytic_features` found them.
_FEATURES: dict[Graph, np.ndarray] = {}


class Columns:
    """All columns of an architecture.

    Args:
        form: of the space's cells.
        features: whether analytic features are among them.
        bags: which bags are: of "subtrees" and "places".

    Attributes:
        groups: the columns of each group, by name; a group of which no column is left is not there.
    """

    def __init__(self, form: Form, features: bool = True, bags: Sequence[str] = (SUBTREES, PLACES)):
        words = {SUBTREES: subtree_words, PLACES: place_words}
        self.form, self.features = form, features
        self.quantiles, self.bags = Quantiles(), {name: Bag(words[name]) for name in bags}
        self.groups: dict[str, list[int]] = {}

    @property
    def analytic(self) -> list[list[int]]:
        """The groups of analytic features."""
        return [columns for name, columns in self.groups.items() if name not in self.bags]

    def fit(self, architectures: Sequence[Cells]) -> Tensor:
        """Take scales from architectures, and give their columns: [N, F]."""
        parts = [self.quantiles.fit(self._raw(architectures))]
        parts += [bag.fit(architectures) for bag in self.bags.values()]
        self._count()
        return self._joined(parts)

    def __call__(self, architectures: Sequence[Cells]) -> Tensor:
        """The columns of architectures: [N, F]; each is computed once, however often it is there."""
        distinct = {tuple(cells[kind] for kind in self.form.kinds): cells for cells in architectures}
        row = {key: position for position, key in enumerate(distinct)}
        parts = [self.quantiles(self._raw(list(distinct.values())))]
        parts += [bag(list(distinct.values())) for bag in self.bags.values()]
        rows_N = [row[tuple(cells[kind] for kind in self.form.kinds)] for cells in architectures]
        return self._joined(parts)[rows_N]

    def permuted(self, x_NF: Tensor, group: str, order_N: Tensor) -> Tensor:
        """Columns, of which those of a group, if it is there, are taken from the architectures at `order_N`."""
        found_NF, own = x_NF.clone(), self.groups.get(group, [])
        found_NF[:, own] = x_NF[order_N][:, own]
        return found_NF

    def _raw(self, architectures: Sequence[Cells]) -> np.ndarray:
        if not self.features:
            return np.zeros((len(architectures), 0))
        return analytic_features(architectures, self.form.kinds)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Never without a column, where architectures cannot be told apart."""
        joined_NF = torch.cat(parts, dim=1)
        return joined_NF if joined_NF.shape[1] else joined_NF.new_zeros(len(joined_NF), 1)

    def _count(self) -> None:
        """Number the columns, group by group."""
        names = [
            f"{group} of {kind}" for kind in self.form.kinds for group, own in analytic.GROUPS.items() for _ in own
        ]
        self.groups = {}
        for position, column in enumerate(self.quantiles.kept):
            self.groups.setdefault(names[column], []).append(position)
        start = len(self.quantiles.kept)
        for name, bag in self.bags.items():
            self.groups[name] = list(range(start, start + len(bag.known) + 1))
            start += len(bag.known) + 1
        if not self.groups:
            self.groups["nothing"] = [0]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scales as tensors, and a document of names."""
        assert self.quantiles.sorted_NF is not None, "fit comes first"
        bags = {name: {"words": bag.known, "scale": bag.scale} for name, bag in self.bags.items()}
        return {"quantiles": self.quantiles.sorted_NF}, {"kept": self.quantiles.kept, "bags": bags}

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.quantiles = Quantiles(tensors["quantiles"], document["kept"])
        for name, bag in self.bags.items():
            bag.known, bag.scale = list(document["bags"][name]["words"]), float(document["bags"][name]["scale"])
        self._count()
