"""Zero-cost saliencies of operations in the form in which they break symmetries (TA-GATES, Section 3.2, Eq. 1).

Saliencies span decades, and have a sign: z becomes sign(z) log(1 + |z| / median |z|), which is then standardised
over the operations of the training architectures. What TA-GATES did to them is not published; this is our choice.

Legend: R operations of a graph, S saliencies, as `zero_cost_metrics.SALIENCIES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nge_search.architecture.graph import Graph
from nge_search.graph_nn import pad_rows
from nge_search.predict.zero_cost_metrics import SALIENCIES

#: Of snip, which bounds it: where plain is no more it is what rounding and epsilon leave of zero.
_PLAIN_NOISE = 1e-2

_SNIP, _PLAIN = SALIENCIES.index("snip"), SALIENCIES.index("plain")


@dataclass(frozen=True)
class SaliencyScale:
    """What makes saliencies comparable, taken from training architectures alone.

    Attributes:
        median_S: of |z| over operations that have any saliency; 1 where that is 0.
        mean_S, std_S: of the logarithms; a deviation is 1 where all are equal.
    """

    median_S: np.ndarray
    mean_S: np.ndarray
    std_S: np.ndarray

    @staticmethod
    def fit(training: Sequence[Mapping[str, np.ndarray]]) -> SaliencyScale:
        """From what `zero_cost_operations` gives for the training architectures."""
        rows = [rows_RS for kinds in training for rows_RS in kinds.values()]
        all_RS = _without_noise(np.concatenate([np.zeros((0, len(SALIENCIES))), *rows]))
        all_RS = all_RS[all_RS.any(axis=1)]
        if not len(all_RS):
            return SaliencyScale(np.ones(len(SALIENCIES)), np.zeros(len(SALIENCIES)), np.ones(len(SALIENCIES)))
        median_S = np.median(np.abs(all_RS), axis=0)
        median_S = np.where(median_S > 0, median_S, 1)
        logarithm_RS = _logarithm(all_RS, median_S)
        std_S = logarithm_RS.std(axis=0)
        return SaliencyScale(median_S, logarithm_RS.mean(axis=0), np.where(std_S > 0, std_S, 1))

    def __call__(self, rows_RS: np.ndarray) -> np.ndarray:
        """Standardised rows, float64 [R, S]; operations without any saliency stay zero."""
        kept_RS = _without_noise(rows_RS)
        scaled_RS = (_logarithm(kept_RS, self.median_S) - self.mean_S) / self.std_S
        return np.where(kept_RS.any(axis=1, keepdims=True), scaled_RS, 0)


def breaking_numbers(
    graphs: Sequence[Mapping[str, Graph]],
    saliencies: Sequence[Mapping[str, np.ndarray]],
    scale: SaliencyScale,
    on_edges: bool,
    width: int = 0,
) -> Tensor:
    """What `FlowEncoder` takes as metrics: of the operations' form in the padded batch, kind by kind of cells.

    Args:
        graphs: of each architecture.
        saliencies: what `zero_cost_operations` gives for them.
        on_edges: whether operations are on edges.
        width: nodes to which graphs are padded, if none has more.
    """
    kinds = list(graphs[0]) if graphs else []
    return pad_rows(
        [own[kind] for kind in kinds for own in graphs],
        [scale(own[kind]) for kind in kinds for own in saliencies],
        on_edges,
        width,
    )


def _without_noise(rows_RS: np.ndarray) -> np.ndarray:
    """The rows with plain zero where a normalisation makes it zero but for rounding and its epsilon."""
    kept_RS = np.array(rows_RS, dtype=np.float64)
    kept_RS[np.abs(kept_RS[:, _PLAIN]) <= _PLAIN_NOISE * kept_RS[:, _SNIP], _PLAIN] = 0
    return kept_RS


def _logarithm(rows_RS: np.ndarray, median_S: np.ndarray) -> np.ndarray:
    return np.sign(rows_RS) * np.log1p(np.abs(rows_RS) / median_S)
