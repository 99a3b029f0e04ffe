"""What turns a cell graph into P, the operation probabilities of every edge.

Every embedding is a module whose `forward()` takes nothing and returns the matrices of `CellSpace.tables` (p_normal
and p_reduce in DARTS' space), each [rows x options] with rows that sum to one; `logits()` are what they are the
softmax of, `node_vectors()` its X matrices, and `dead_share()` is the share of hidden units that never fire.
"""

from __future__ import annotations

from collections.abc import Callable

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding.base import Embedding, Initialise, Layers, NodeEmbedding, normal_initialiser
from nge_search.embedding.baselines import DirectParameters, PlainLayers, RecurrentLayers
from nge_search.embedding.edge_weights import EdgeWeights
from nge_search.embedding.nge import GraphLayers, propagation_matrix
from nge_search.settings import names
from nge_search.settings.embedding import EmbeddingSection

__all__ = ["EMBEDDINGS", "EdgeWeights", "Embedding", "NodeEmbedding", "build_embedding", "propagation_matrix"]


def _of_vertices(
    layers: Callable[[CellSpace, EmbeddingSection, Initialise], Layers],
) -> Callable[[EmbeddingSection, CellSpace], Embedding]:
    """A builder of embeddings that start from vectors of the vertices, and run these layers."""

    def build(config: EmbeddingSection, space: CellSpace) -> Embedding:
        initialise = normal_initialiser(config.initialisation, config.init_std)
        return NodeEmbedding(space, lambda: layers(space, config, initialise), config.input_dim, config.shared)

    return build


#: From settings and the cell graph to the embedding.
EMBEDDINGS: dict[str, Callable[[EmbeddingSection, CellSpace], Embedding]] = {
    "nge": _of_vertices(GraphLayers),
    "rnn": _of_vertices(RecurrentLayers),
    "plain": _of_vertices(PlainLayers),
    "direct": lambda config, space: DirectParameters(space, config.uniform_start),
}
names.require_names(EMBEDDINGS, names.EMBEDDINGS)


def build_embedding(config: EmbeddingSection, space: CellSpace) -> Embedding:
    """The embedding that `config.kind` names; initial values come from torch's global generator."""
    return EMBEDDINGS[config.kind](config, space)
