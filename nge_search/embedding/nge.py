"""Neural graph embedding: graph convolutions over the cell graph, Eq. 5-8 of the NGE paper."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding.base import Initialise, Layers
from nge_search.graph_nn import GraphConvolution
from nge_search.settings.embedding import EmbeddingSection


def propagation_matrix(space: CellSpace, adjacency: str) -> Tensor:
    """A_hat [V, V] of Eq. 7 in float64: row v holds the weights with which vertex v hears every vertex.

    The paper's Eq. 6 prints 1/(i+1) for i < j and i > 1, by which messages run from later to earlier nodes,
    against its text and figure; hence the choice (0-based vertices k, inputs 0 and 1):

    - "predecessors": inner vertex k hears each earlier one with weight 1/(k+1), and itself with 1.
    - "printed": A[i, j] = 1/(i+1) for i < j and i >= 2, plus the identity.
    - "symmetric": D^-1/2 (A' + I) D^-1/2 with A' the undirected graph (Kipf and Welling, 2017).
    """
    count = space.vertices
    a_VV = torch.zeros(count, count, dtype=torch.float64)
    if adjacency == "predecessors":
        for source, target in space.edges:
            a_VV[target, source] = 1 / (target + 1)
    elif adjacency == "printed":
        for row in space.inner:
            a_VV[row, row + 1 :] = 1 / (row + 1)
    else:
        for source, target in space.edges:
            a_VV[source, target] = a_VV[target, source] = 1
    a_VV += torch.eye(count, dtype=torch.float64)
    if adjacency == "symmetric":
        scale_V = a_VV.sum(dim=1).rsqrt()
        a_VV = scale_V[:, None] * a_VV * scale_V
    return a_VV


class GraphLayers(Layers):
    """X to logits by L graph convolutions H(l+1) = ReLU(A_hat H(l) W(l)) (Eq. 8) and the edge head (Eq. 9-10)."""

    a_VV: Tensor

    def __init__(self, space: CellSpace, config: EmbeddingSection, initialise: Initialise):
        super().__init__()
        self.register_buffer("a_VV", propagation_matrix(space, config.adjacency).float(), persistent=False)
        self.space, self.adjacency = space, config.adjacency
        widths = [config.input_dim, *[config.hidden_dim] * (config.layers - 1), config.output_dim]
        self.convolutions = nn.ModuleList()
        for fan_in, fan_out in itertools.pairwise(widths):
            convolution = GraphConvolution(fan_in, fan_out, bias=False)
            initialise(convolution.weight.data)
            self.convolutions.append(convolution)
        self.add_heads(space, config.output_dim, config, initialise, config.jumping)

    def extra_repr(self) -> str:
        return f"vertices={self.space.vertices}, adjacency={self.adjacency}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GraphLayers:
        """Re-derive A_hat after a change of type: rounding it through fp32 would cost fp64 its digits."""
        super()._apply(fn, recurse)
        exact = propagation_matrix(self.space, self.adjacency)
        self.a_VV = exact.to(device=self.a_VV.device, dtype=self.a_VV.dtype)
        return self

    def propagate(self, x_VD: Tensor) -> tuple[Tensor, list[Tensor]]:
        h_VF, activations = x_VD, []
        for convolution in self.convolutions:
            h_VF = functional.relu(convolution(h_VF, self.a_VV))
            activations.append(h_VF)
        return h_VF, activations
