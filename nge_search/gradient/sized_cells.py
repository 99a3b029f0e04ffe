"""The likeliest cells whose network has a wanted size: DARTS' rule under a condition.

DARTS' rule keeps, of each node, the two edges with the largest probabilities and the operation of each: no other
cells have a larger product of the kept probabilities. Sizes of networks add up over the kept operations, too, so
that the cells with the largest product within bounds on the size are found node by node (dynamic programming).

Legend: E edges, O operations, S states, M options of a node.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nge_search.spaces.base import Code
from nge_search.spaces.darts import DartsSpace

#: Of partial sums of sizes that fall into one bin only the likeliest is kept. The range of sizes has so many bins,
#: or more, up to the second number, where those of all nodes could be off by half of the tolerance together.
_BINS, _MOST_BINS = 2000, 100_000


@dataclass(frozen=True)
class NodeOptions:
    """What a node may be made of: sizes and scores [M], and the node's part of a code [M, 4]."""

    sizes_M: np.ndarray
    scores_M: np.ndarray
    parts_M4: np.ndarray


def node_options(scores: Sequence[np.ndarray], sizes: Sequence[np.ndarray], space: DartsSpace) -> list[NodeOptions]:
    """For each kind of cell and each inner node pairs of edges with their operations; of one size the likeliest.

    Args:
        scores: [E, O] for each kind: larger is likelier; logarithms of probabilities.
        sizes: [E, O] for each kind: what an operation adds.
    """
    found = []
    for score_EO, size_EO in zip(scores, sizes):
        for node in space.cell_space.inner:
            incoming = space.cell_space.incoming(node)
            parts, of_sizes, of_scores = [], [], []
            for pair in itertools.combinations(range(node), 2):
                edges = [incoming[source] for source in pair]
                choices = np.indices((size_EO.shape[1],) * 2).reshape(2, -1).T
                of_sizes.append(size_EO[edges, choices].sum(axis=1))
                of_scores.append(score_EO[edges, choices].sum(axis=1))
                parts.append(np.hstack([np.tile(pair, (len(choices), 1)), choices]))
            sizes_M, scores_M = np.concatenate(of_sizes), np.concatenate(of_scores)
            kept = _best_of_each(sizes_M, scores_M)
            found.append(NodeOptions(sizes_M[kept], scores_M[kept], np.concatenate(parts)[kept]))
    return found


def size_range(options: Sequence[NodeOptions]) -> tuple[float, float]:
    """The smallest and the largest size that the kept operations can have together."""
    ends = [(float(node.sizes_M.min()), float(node.sizes_M.max())) for node in options]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def likeliest(options: Sequence[NodeOptions], wanted: float, tolerance: float) -> Code:
    """The architecture with the largest sum of scores whose size is within `tolerance` of the one wanted.

    Where no size that is kept is within it, the one that is nearest to what is wanted.
    """
    low, high = size_range(options)
    width = min((high - low) / _BINS, tolerance / (2 * len(options)))
    width = max(width, (high - low) / _MOST_BINS, 1e-9)
    sizes_S, scores_S = np.zeros(1), np.zeros(1)
    came: list[tuple[np.ndarray, np.ndarray]] = []
    for node in options:
        sizes_S = (sizes_S[:, None] + node.sizes_M).ravel()
        scores_S = (scores_S[:, None] + node.scores_M).ravel()
        kept = _best_of_each(np.floor(sizes_S / width), scores_S)
        sizes_S, scores_S = sizes_S[kept], scores_S[kept]
        came.append((kept // len(node.sizes_M), kept % len(node.sizes_M)))
    off_S = np.abs(sizes_S - wanted)
    within = off_S <= tolerance
    state = int(np.where(within, scores_S, -np.inf).argmax() if within.any() else off_S.argmin())
    parts = []
    for node, (before_S, option_S) in zip(reversed(options), reversed(came)):
        parts.append(node.parts_M4[option_S[state]].tolist())
        state = int(before_S[state])
    return tuple(itertools.chain(*reversed(parts)))


def _best_of_each(groups_S: np.ndarray, scores_S: np.ndarray) -> np.ndarray:
    """For each group the position of its largest score, of equals the first; groups in ascending order."""
    order = np.lexsort((-scores_S, groups_S))
    first = np.concatenate([[True], np.diff(groups_S[order]) != 0])
    return order[first]
