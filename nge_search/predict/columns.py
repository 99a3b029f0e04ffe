"""An architecture as columns of numbers, in groups that a process compares each by itself.

Analytic features come in their own groups (`analytic.GROUPS`), of each kind of cell. Beside them stand two bags of
words, which say what is where in what a cell computes (`operation_facts.essence`): "subtrees", the names of the
Weisfeiler-Lehman test (`nasbowl.subtrees`), and "places", the operations by their depth, and what joins which
depths. Cells that compute the same (`splits.isomorphism_class`) have the same words; isomorphic ones equal columns.

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
from nge_search.predict.operation_facts import essence

SUBTREES, PLACES = "subtrees", "places"
ROUNDS = 2
#: Isomorphic graphs have analytic features that are equal up to rounding.
_DECIMALS = 9
#: Architectures whose words and features are remembered: searches come back to the same ones.
_REMEMBERED = 1 << 16

#: What the cells of an architecture compute, by kind (`operation_facts.essence`); None where no path is.
Essences = Mapping[str, Graph | None]
Words = Callable[[Essences], Counter[str]]


def essences(architectures: Sequence[Cells]) -> list[Essences]:
    """What each architecture computes."""
    return [{kind: _essence(cell) for kind, cell in cells.items()} for cells in architectures]


_essence = functools.lru_cache(_REMEMBERED)(essence)


def subtree_words(cells: Essences) -> Counter[str]:
    """The names of nodes after each of `ROUNDS` rounds, and how often each occurs."""
    return _subtree_words(tuple(cells.items()))


@functools.lru_cache(_REMEMBERED)
def _subtree_words(cells: tuple[tuple[str, Graph | None], ...]) -> Counter[str]:
    live = {kind: cell for kind, cell in cells if cell is not None}
    found = Counter({"/".join(map(str, name)): count for name, count in subtrees(live, ROUNDS).items()})
    found.update(f"{kind}/dead" for kind, cell in cells if cell is None)
    return found


def place_words(cells: Essences) -> Counter[str]:
    """Operations by the number of edges that lead to them, and edges by those of their ends."""
    return _place_words(tuple(cells.items()))


@functools.lru_cache(_REMEMBERED)
def _place_words(cells: tuple[tuple[str, Graph | None], ...]) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, cell in cells:
        if cell is None:
            found[f"{kind}/dead"] += 1
            continue
        depths = cell.depths
        found.update(f"{kind}/{label}/{depth}" for label, depth in zip(cell.nodes, depths))
        found.update(f"{kind}/{depths[edge.source]}/{depths[edge.target]}" for edge in cell.edges)
    return found


class Bag:
    """Words as columns: how often each occurs, as directions of length 1, so that products are cosines.

    Words that are new have one column together, with which lengths stay 1.
    """

    def __init__(self, words: Words, known: Sequence[str] = (), scale: float = 1.0):
        self.words, self.known, self.scale = words, list(known), scale

    def fit(self, architectures: Sequence[Essences]) -> Tensor:
        """Take words and scale from architectures, and give their columns."""
        self.known, self.scale = sorted(set().union(*map(self.words, architectures))), 1.0
        direction_NW = self(architectures)
        squared = 2 - 2 * float(direction_NW.mean(dim=0).square().sum())  # the mean over all pairs
        self.scale = (2 * direction_NW.shape[1] / squared) ** 0.5 if squared > 1e-9 else 1.0
        return self(architectures)

    def __call__(self, architectures: Sequence[Essences]) -> Tensor:
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


class Scales:
    """Columns of numbers in two scales, by those to learn from: their quantiles, and in units of their deviation.

    Quantiles are places among the known numbers, as those of a normal distribution. Columns in which all numbers
    are equal are left out.

    Attributes:
        known_NF: the known numbers, each column sorted.
        kept: the columns that are not left out, F.
    """

    def __init__(self, known_NF: Tensor | None = None, kept: Sequence[int] = ()):
        self.known_NF, self.kept = known_NF, list(kept)

    def fit(self, x_NF: np.ndarray) -> tuple[Tensor, Tensor]:
        """Take the known numbers, and give their columns."""
        self.kept = np.flatnonzero(x_NF.min(axis=0) < x_NF.max(axis=0)).tolist()
        self.known_NF = torch.from_numpy(np.sort(x_NF[:, self.kept], axis=0))
        return self(x_NF)

    def __call__(self, x_NF: np.ndarray) -> tuple[Tensor, Tensor]:
        """Quantiles, and standardised: [N, F] each."""
        assert self.known_NF is not None, "fit comes first"
        known_NF, x_NF = self.known_NF.numpy(), x_NF[:, self.kept]
        quantile_NF = np.zeros(x_NF.shape)
        for column, (known_N, x_N) in enumerate(zip(known_NF.T, x_NF.T)):
            below_N, upto_N = (np.searchsorted(known_N, x_N, side=side) for side in ("left", "right"))
            quantile_NF[:, column] = special.ndtri(((below_N + upto_N) / 2 + 0.5) / (len(known_N) + 1))
        standard_NF = (x_NF - known_NF.mean(axis=0)) / known_NF.std(axis=0)
        return torch.from_numpy(quantile_NF), torch.from_numpy(standard_NF)


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
    """All columns of an architecture: analytic features as quantiles, the same standardised, and bags.

    Args:
        form: of the space's cells.
        features: whether analytic features are among them.
        bags: which bags are: of "subtrees" and "places".

    Attributes:
        quantiles, standard: for each group of analytic features its columns, in both scales; a group of which no
            column is left is not there.
        words: the columns of each bag.
    """

    def __init__(self, form: Form, features: bool = True, bags: Sequence[str] = (SUBTREES, PLACES)):
        words = {SUBTREES: subtree_words, PLACES: place_words}
        self.form, self.features = form, features
        self.scales, self.bags = Scales(), {name: Bag(words[name]) for name in bags}
        self.quantiles: dict[str, list[int]] = {}
        self.standard: dict[str, list[int]] = {}
        self.words: dict[str, list[int]] = {}

    def fit(self, architectures: Sequence[Cells]) -> Tensor:
        """Take scales from architectures, and give their columns: [N, F]."""
        parts = [*self.scales.fit(self._raw(architectures))]
        given = essences(architectures) if self.bags else []
        parts += [bag.fit(given) for bag in self.bags.values()]
        self._count()
        return _joined(parts)

    def __call__(self, architectures: Sequence[Cells]) -> Tensor:
        """The columns of architectures: [N, F]; each is computed once, however often it is there."""
        keys = [tuple(cells[kind] for kind in self.form.kinds) for cells in architectures]
        distinct = dict(zip(keys, architectures))
        parts = [*self.scales(self._raw(list(distinct.values())))]
        given = essences(list(distinct.values())) if self.bags else []
        parts += [bag(given) for bag in self.bags.values()]
        row = {key: position for position, key in enumerate(distinct)}
        return _joined(parts)[[row[key] for key in keys]]

    @property
    def groups(self) -> dict[str, list[int]]:
        """The columns of each group of features, in both scales, and of each bag."""
        both = {name: [*own, *self.standard[name]] for name, own in self.quantiles.items()}
        return both | self.words

    def permuted(self, x_NF: Tensor, group: str, order_N: Tensor) -> Tensor:
        """Columns, of which those of a group, if it is there, are taken from the architectures at `order_N`."""
        found_NF, own = x_NF.clone(), self.groups.get(group, [])
        found_NF[:, own] = x_NF[order_N][:, own]
        return found_NF

    def _raw(self, architectures: Sequence[Cells]) -> np.ndarray:
        if not self.features:
            return np.zeros((len(architectures), 0))
        return analytic_features(architectures, self.form.kinds)

    def _count(self) -> None:
        """Number the columns, group by group."""
        names = [
            f"{group} of {kind}" for kind in self.form.kinds for group, own in analytic.GROUPS.items() for _ in own
        ]
        self.quantiles, self.standard, self.words = {}, {}, {}
        for position, column in enumerate(self.scales.kept):
            self.quantiles.setdefault(names[column], []).append(position)
            self.standard.setdefault(names[column], []).append(position + len(self.scales.kept))
        start = 2 * len(self.scales.kept)
        for name, bag in self.bags.items():
            self.words[name] = list(range(start, start + len(bag.known) + 1))
            start += len(bag.known) + 1

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Scales as tensors, and a document of names."""
        assert self.scales.known_NF is not None, "fit comes first"
        bags = {name: {"words": bag.known, "scale": bag.scale} for name, bag in self.bags.items()}
        return {"known": self.scales.known_NF}, {"kept": self.scales.kept, "bags": bags}

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.scales = Scales(tensors["known"], document["kept"])
        for name, bag in self.bags.items():
            bag.known, bag.scale = list(document["bags"][name]["words"]), float(document["bags"][name]["scale"])
        self._count()


def _joined(parts: list[Tensor]) -> Tensor:
    """Never without a column, where architectures cannot be told apart."""
    joined_NF = torch.cat(parts, dim=1)
    return joined_NF if joined_NF.shape[1] else joined_NF.new_zeros(len(joined_NF), 1)
