"""A map of networks: a point for each in the plane, those that are alike near each other (t-SNE).

Legend: N networks, D features.
"""

from __future__ import annotations

import warnings

import numpy as np

from nge_search.metrics.retrieval import cosines

#: Neighbours that count, about; fewer in a small corpus.
_PERPLEXITY = 15.0


def layout(embedding_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """Points [N, 2] by t-SNE on 1 - cosine (van der Maaten and Hinton, 2008), from -1 to 1.

    Fewer than four networks are put on a line.
    """
    count = len(embedding_ND)
    if count < 4:
        return np.stack([np.linspace(-1, 1, count), np.zeros(count)], axis=1)
    from sklearn.manifold import TSNE  # takes a second to import

    distance_NN = np.clip(1 - cosines(embedding_ND, embedding_ND), 0, None)
    np.fill_diagonal(distance_NN, 0)
    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    start_N2 = _principal(embedding_ND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found_N2 = TSNE(
            2, perplexity=perplexity, metric="precomputed", init=start_N2, random_state=seed, max_iter=500
        ).fit_transform(distance_NN)
    found_N2 = found_N2 - found_N2.mean(axis=0)
    return found_N2 / max(float(np.abs(found_N2).max()), 1e-30)


def _principal(embedding_ND: np.ndarray) -> np.ndarray:
    """The two directions of largest variance, small, as t-SNE is best begun: [N, 2]."""
    unit_ND = embedding_ND / np.maximum(np.linalg.norm(embedding_ND, axis=1, keepdims=True), 1e-30)
    left, value, _ = np.linalg.svd(unit_ND - unit_ND.mean(axis=0), full_matrices=False)
    found_N2 = np.zeros((len(unit_ND), 2))
    kept = min(2, len(value))
    found_N2[:, :kept] = left[:, :kept] * value[:kept] * np.sign(left[:, :kept].sum(axis=0) + 1e-30)
    return (1e-4 * found_N2 / max(float(found_N2[:, 0].std()), 1e-30)).astype(np.float32)
