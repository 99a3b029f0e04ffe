"""What turns a cell graph into P, the operation probabilities of every edge.

Every embedding is a module whose `forward()` takes nothing and returns the matrices of `CellSpace.tables` (p_normal
and p_reduce in DARTS' space), each [rows x options] with rows that sum to one; `node_vectors()` are its X matrices
and `dead_share()` the share of hidden units that never fire.
"""

from __future__ import annotations

from torch import nn

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding.base import NodeEmbedding, normal_initialiser
from nge_search.embedding.baselines import DirectParameters, PlainLayers, RecurrentLayers
from nge_search.embedding.nge import GraphLayers, propagation_matrix
from nge_search.settings.embedding import EmbeddingSection

__all__ = ["NodeEmbedding", "build_embedding", "propagation_matrix"]


def build_embedding(config: EmbeddingSection, space: CellSpace) -> nn.Module:
    """The embedding that `config.kind` names; initial values come from torch's global generator."""
    if config.kind == "direct":
        return DirectParameters(space)
    initialise = normal_initialiser(config.initialisation, config.init_std)

    def build() -> nn.Module:
        if config.kind == "plain":
            return PlainLayers(space, config.input_dim, config.edge_dim, initialise)
        if config.kind == "rnn":
            return RecurrentLayers(
                space, config.input_dim, config.output_dim, config.recurrent_layers, config.edge_dim, initialise
            )
        hidden = [config.hidden_dim] * (config.layers - 1)
        widths = [config.input_dim, *hidden, config.output_dim]
        return GraphLayers(space, config.adjacency, widths, config.edge_dim, initialise)

    return NodeEmbedding(space, build, config.input_dim, config.shared)
