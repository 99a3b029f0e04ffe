"""Layers by which nodes of a graph attend to each other (Velickovic et al., 2018), on joined and on padded graphs.

Legend: B graphs, V nodes of the largest, N nodes of all graphs together, E edges of all graphs together, D and F
features, H heads, G features of a head, M layers of one form with weights of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.graph_nn import SparseBatch


class GraphAttention(nn.Module):
    """Nodes hear each other as far as they attend to each other (Velickovic et al., 2018), heads side by side.

    With S = W h, node j hears sum_i a_ji S_i, where a_ji is a softmax over the edges that end at j of
    LeakyReLU(u . S_i + v . S_j). A node that is to hear itself has a loop (`SparseBatch.both_ways`).

    Args:
        inputs, outputs: D and F.
        heads: H, a divisor of F.
        slope: of LeakyReLU where its argument is negative.
    """

    def __init__(self, inputs: int, outputs: int, heads: int = 1, slope: float = 0.2):
        super().__init__()
        self.heads, self.slope = heads, slope
        self.lift = nn.Linear(inputs, outputs, bias=False)
        self.source_HG = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, outputs // heads)))
        self.target_HG = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, outputs // heads)))
        self.bias_F = nn.Parameter(torch.zeros(outputs))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, slope={self.slope}"

    def forward(self, h_ND: Tensor, batch: SparseBatch) -> Tensor:
        """[N, F] from [N, D]."""
        s_NHG = self.lift(h_ND).unflatten(1, (self.heads, -1))
        told_NH, heard_NH = (s_NHG * self.source_HG).sum(dim=2), (s_NHG * self.target_HG).sum(dim=2)
        score_EH = functional.leaky_relu(told_NH[batch.source_E] + heard_NH[batch.target_E], self.slope)
        gate_EF = batch.softmax(score_EH).repeat_interleave(s_NHG.shape[2], dim=1)
        return batch.hear(s_NHG.flatten(1), gate_EF) + self.bias_F


class DenseGraphAttention(nn.Module):
    """Nodes hear of each other and of themselves, as much of each as they attend to it; M layers side by side.

    With s = W h, node i hears W h_j of every j that feeds it, and of j = i, in the shares

        softmax_j LeakyReLU(a_heard . s_j + a_hearing . s_i)

    and adds b (Velickovic et al., 2018, Eq. 1 to 4: one head, slope 0.2, no activation). Without attention all
    shares are equal: the graph convolution that takes the mean.

    Args:
        inputs, outputs: D and F.
        members: M, layers with own weights, each for inputs of its own.
        attention: False: equal shares.
    """

    def __init__(self, inputs: int, outputs: int, members: int = 1, attention: bool = True):
        super().__init__()
        self.attention = attention
        self.weight_MDF = nn.Parameter(_glorot(members, inputs, outputs))
        self.bias_MF = nn.Parameter(torch.zeros(members, outputs))
        if attention:
            self.heard_MF = nn.Parameter(_glorot(members, outputs, 1).squeeze(-1))
            self.hearing_MF = nn.Parameter(_glorot(members, outputs, 1).squeeze(-1))

    def extra_repr(self) -> str:
        members, inputs, outputs = self.weight_MDF.shape
        return f"{inputs}, {outputs}, members={members}, attention={self.attention}"

    def forward(self, h_MBVD: Tensor, hears_MBVV: Tensor) -> Tensor:
        """[M, B, V, F].

        Args:
            h_MBVD: what nodes hold.
            hears_MBVV: which nodes (rows) hear which (columns), bool; themselves they hear in any case.
        """
        s_MBVF = (h_MBVD.flatten(1, 2) @ self.weight_MDF).unflatten(1, h_MBVD.shape[1:3])
        hears_MBVV = hears_MBVV | torch.eye(s_MBVF.shape[2], dtype=torch.bool, device=s_MBVF.device)
        return self.shares(s_MBVF, hears_MBVV) @ s_MBVF + self.bias_MF[:, None, None]

    def shares(self, s_MBVF: Tensor, hears_MBVV: Tensor) -> Tensor:
        """By rows what each node gives to those that it hears; rows add up to 1: [M, B, V, V]."""
        if not self.attention:
            return hears_MBVV / hears_MBVV.sum(dim=-1, keepdim=True).to(s_MBVF.dtype)
        heard_MBV = torch.einsum("mbvf,mf->mbv", s_MBVF, self.heard_MF)
        hearing_MBV = torch.einsum("mbvf,mf->mbv", s_MBVF, self.hearing_MF)
        score_MBVV = functional.leaky_relu(hearing_MBV.unsqueeze(-1) + heard_MBV.unsqueeze(-2), 0.2)
        return score_MBVV.masked_fill(~hears_MBVV, -torch.inf).softmax(dim=-1)


def _glorot(members: int, inputs: int, outputs: int) -> Tensor:
    """Uniform initial weights, for each member by the sizes of its own layer (Glorot and Bengio, 2010)."""
    bound = (6 / (inputs + outputs)) ** 0.5
    return torch.empty(members, inputs, outputs).uniform_(-bound, bound)
