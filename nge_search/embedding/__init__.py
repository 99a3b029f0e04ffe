"""What turns a cell graph into P, the operation probabilities of every edge.

Every embedding is a module whose `forward()` takes nothing and returns the matrices of `CellSpace.tables` (p_normal
and p_reduce in DARTS' space), each [rows x options] with rows that sum to one; `node_vectors()` are its X matrices
and `dead_share()` the share of hidden units that never fire.
"""

from __future__ import annotations

from collections.abc import Callable

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding.base import Embedding, Initialise, Layers, NodeEmbedding, normal_initialiser
from nge_search.embedding.baselines import DirectParameters, PlainLayers, RecurrentLayers
from nge_search.embedding.nge import GraphLayers, propagation_matrix
from nge_search.settings import names
from nge_search.settings.embedding import EmbeddingSection

__all__ = ["EMBEDDINGS", "Embedding", "NodeEmbedding", "build_embedding", "propagation_matrix"]


def _nge(config: EmbeddingSection, space: CellSpace, initialise: Initialise) -> Layers:
    hidden = [config.hidden_dim] * (config.layers - 1)
    widths = [config.input_dim, *hidden, config.output_dim]
    return GraphLayers(space, config.adjacency, widths, config.edge_dim, initialise)


def _plain(config: EmbeddingSection, space: CellSpace, initialise: Initialise) -> Layers:
    return PlainLayers(space, config.input_dim, config.edge_dim, initialise)


def _rnn(config: EmbeddingSection, space: CellSpace, initialise: Initialise) -> Layers:
    return RecurrentLayers(
        space, config.input_dim, config.output_dim, config.recurrent_layers, config.edge_dim, initialise
    )


def _of_vertices(
    layers: Callable[[EmbeddingSection, CellSpace, Initialise], Layers],
) -> Callable[[EmbeddingSection, CellSpace], Embedding]:
    """A builder of embeddings that start from vectors of the vertices, and run these layers."""

    def build(config: EmbeddingSection, space: CellSpace) -> Embedding:
        initialise = normal_initialiser(config.initialisation, config.init_std)
        return NodeEmbedding(space, lambda: layers(config, space, initialise), config.input_dim, config.shared)

    return build


#: From settings and the cell graph to the embedding.
EMBEDDINGS: dict[str, Callable[[EmbeddingSection, CellSpace], Embedding]] = {
    "nge": _of_vertices(_nge),
    "rnn": _of_vertices(_rnn),
    "plain": _of_vertices(_plain),
    "direct": lambda config, space: DirectParameters(space),
}
names.require_names(EMBEDDINGS, names.EMBEDDINGS)


def build_embedding(config: EmbeddingSection, space: CellSpace) -> Embedding:
    """The embedding that `config.kind` names; initial values come from torch's global generator."""
    return EMBEDDINGS[config.kind](config, space)
