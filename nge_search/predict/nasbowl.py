"""NASBOWL: a Gaussian process on the Weisfeiler-Lehman subtree kernel (Ru et al., 2021; Shervashidze et al., 2011).

Cells are compared by their operations on nodes (`Graph.operations_on_nodes`), what leads nowhere left out. A node
is named by its operation; in each of h rounds it takes up the names of those that it hears. A cell's features are
how often each name occurs, in all rounds; cells of several kinds have features of their own. With phi the features,

    k(x, x') = phi(x) . phi(x') / sqrt(phi(x)^2 phi(x')^2),     y = s (f(x) + noise of variance r)

where s has its best value in closed form, and h and r are those of largest likelihood.

Legend: N labels, M cells to be predicted, W names.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.predict.base import Predictor, State, standardised
from nge_search.predict.encoding import Cells
from nge_search.spaces.base import Space

ROUNDS = (0, 1, 2, 3)
#: Of log r, the noise's share of the variance.
_RANGE = (math.log(1e-5), math.log(10.0))

Name = tuple[object, ...]
#: What names are joined by in a file.
_JOINT = " "


def subtrees(cells: Cells, rounds: int) -> Counter[Name]:
    """How often each name occurs in the cells, in rounds 0 to `rounds`; a name says its kind and its round."""
    found: Counter[Name] = Counter()
    for kind, cell in cells.items():
        live = cell.pruned()
        if live is None:
            found[kind, "dead"] += 1
            continue
        graph = live.operations_on_nodes()
        names = [_short(_role(graph, node)) for node in range(len(graph.nodes))]
        for done in range(rounds + 1):
            found.update((kind, done, name) for name in names)
            names = [
                _short((own, *sorted(names[source] for source in graph.sources(node))))
                for node, own in enumerate(names)
            ]
    return found


def _role(graph: Graph, node: int) -> Name:
    """An operation's name; of inputs also which one it is."""
    place = graph.inputs.index(node) if node in graph.inputs else -1
    return str(graph.nodes[node]), place


def _short(name: Name) -> str:
    """What stands for a name: names that take up names would grow without end."""
    return hashlib.blake2b(repr(name).encode(), digest_size=16).hexdigest()


class Features:
    """Numbers for the names that occur in some cells; more are added as cells are asked for.

    `names` are those of an earlier one, to go on with.
    """

    def __init__(self, rounds: int, names: Sequence[Name] = ()):
        self.rounds = rounds
        self._numbers = {name: number for number, name in enumerate(names)}

    @property
    def names(self) -> list[Name]:
        """In the order of their numbers."""
        return list(self._numbers)

    def matrix(self, architectures: Sequence[Cells]) -> sparse.csr_array:
        """Each architecture's features, scaled to length 1: [N, W]."""
        rows, columns, values = [], [], []
        for row, cells in enumerate(architectures):
            counts = subtrees(cells, self.rounds)
            length = math.sqrt(sum(count**2 for count in counts.values()))
            for name, count in counts.items():
                rows.append(row)
                columns.append(self._numbers.setdefault(name, len(self._numbers)))
                values.append(count / length)
        return sparse.csr_array((values, (rows, columns)), shape=(len(architectures), len(self._numbers)))


@dataclass(frozen=True)
class Fitted:
    """A process on labels: y_N ~ N(0, s^2 (K + r I)).

    Attributes:
        noise: r.
        scale: s.
        log_likelihood: of the labels.
        weight_N: (K + r I)^-1 y.
    """

    noise: float
    scale: float
    log_likelihood: float
    weight_N: np.ndarray


def fitted(k_NN: np.ndarray, y_N: np.ndarray) -> Fitted:
    """The r and s of largest likelihood; one decomposition of K serves all r."""
    value_N, vector_NN = np.linalg.eigh(k_NN)
    value_N = value_N.clip(min=0)
    seen_N = vector_NN.T @ y_N

    def at(log_noise: float) -> tuple[float, float]:
        variance_N = value_N + math.exp(log_noise)
        square = max(float(np.mean(seen_N**2 / variance_N)), 1e-300)
        half = len(y_N) / 2
        return -half * (math.log(2 * math.pi * square) + 1) - float(np.log(variance_N).sum()) / 2, square

    grid = np.linspace(*_RANGE, 25)
    best = int(np.argmax([at(log_noise)[0] for log_noise in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    log_noise = float(optimize.minimize_scalar(lambda r: -at(r)[0], bounds=around, method="bounded").x)
    likelihood, square = at(log_noise)
    weight_N = vector_NN @ (seen_N / (value_N + math.exp(log_noise)))
    return Fitted(math.exp(log_noise), math.sqrt(square), likelihood, weight_N)


class Nasbowl(Predictor):
    """The process of largest likelihood over h in `ROUNDS`; `space` is not needed, as graphs say all."""

    def __init__(self, space: Space | None = None):
        self.space = space

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        y_N = standardised(label_N).numpy()
        trials = []
        for rounds in ROUNDS:
            features = Features(rounds)
            phi_NW = features.matrix(known)
            trials.append((fitted((phi_NW @ phi_NW.T).toarray(), y_N), features, phi_NW))
        self.process, self.features, phi_NW = max(trials, key=lambda trial: trial[0].log_likelihood)
        self._weight_W = phi_NW.T @ self.process.weight_N

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        phi_MW = self.features.matrix(asked)
        return torch.from_numpy(phi_MW[:, : len(self._weight_W)] @ self._weight_W)

    def state(self) -> State:
        names = self.features.names[: len(self._weight_W)]
        document = {"rounds": self.features.rounds, "names": [_JOINT.join(map(str, name)) for name in names]}
        return {"weight": torch.from_numpy(self._weight_W)}, document

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """As of `Predictor`; raises UserError where the weights of names are none."""
        rounds, texts, weight_W = document["rounds"], document["names"], tensors["weight"]
        if type(rounds) is not int or rounds not in ROUNDS:
            raise UserError(f"'rounds' must be one of {', '.join(map(str, ROUNDS))}")
        if not isinstance(texts, list) or len(set(texts)) < len(texts):
            raise UserError("'names' must be a list of distinct names")
        if weight_W.dtype != torch.float64 or weight_W.shape != (len(texts),):
            raise UserError("'weight' is not one number for each of 'names'")
        self.features = Features(rounds, [_name(text) for text in texts])
        self._weight_W = weight_W.numpy()


def _name(text: str) -> Name:
    """The name of a subtree, as it was joined: its kind of cell, its round, and what is short for it."""
    kind, *rest = text.split(_JOINT)
    return (kind, int(rest[0]), rest[1]) if len(rest) == 2 else (kind, *rest)
