"""Encoders that TA-GATES is compared with: graph convolutions, an LSTM, and plain numbers (Section 4.2).

Each takes the cells as its space writes them (`Form`): with operations on nodes, an operation on every edge, or
nodes that read a fixed number of edges.

Legend: C kinds of cells, N architectures, R = C N cells, V nodes, P nodes of what is convolved, L tokens, D
features of a node or token, F of an encoding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.graph_nn import DenseBatch, GraphConvolution
from nge_search.predict.encoders import Encoder
from nge_search.predict.encoding import Form


class Decisions(Encoder):
    """An architecture's decisions as numbers, for an MLP that is the head behind it.

    Args:
        one_hot: a feature for each option of a decision; else the decisions' integers as they are, as published.
    """

    def __init__(self, form: Form, one_hot: bool = False):
        super().__init__()
        self.form, self.one_hot = form, one_hot
        self.width = sum(form.options) if one_hot else len(form.options)

    def forward(self, batch: DenseBatch) -> list[Tensor]:
        codes_NL = self.form.decisions(batch)
        return [(one_hot(codes_NL, self.form.options) if self.one_hot else codes_NL).to(batch.a_BVV.dtype)]


def one_hot(codes_NL: Tensor, options: tuple[int, ...]) -> Tensor:
    """A feature for each option of each decision: int64 [N, sum of options]."""
    parts = [functional.one_hot(code_N, count) for code_N, count in zip(codes_NL.unbind(dim=1), options)]
    return torch.cat(parts, dim=1)


class GraphEncoder(Encoder):
    """Kipf and Welling's graph convolutions on the graph of operations, averaged over them.

    What is convolved: the nodes, where operations are on them; the line graph, whose nodes are all possible edges,
    `none` included, where every edge has an operation; the nodes, each with the operations on the edges that it
    reads side by side, where they read a fixed number.

    Nodes hear themselves, and messages are scaled by 1 / sqrt(heard by the target * told by the source).

    Args:
        layers, width: of the convolutions; the encoding has `width` features for each kind of cell.
        operation_dim, hidden_dim: of the operations' embeddings, and of what they are lifted to.
        self_loops, normalised: whether nodes hear themselves, and whether messages are scaled.
        global_node: a node more, which hears all others.
    """

    def __init__(
        self,
        form: Form,
        layers: int = 2,
        width: int = 128,
        operation_dim: int = 48,
        hidden_dim: int = 48,
        self_loops: bool = True,
        normalised: bool = True,
        global_node: bool = False,
    ):
        super().__init__()
        self.form, self.self_loops, self.normalised = form, self_loops, normalised
        self.width = width * len(form.kinds)
        self.operation_OD = nn.Parameter(torch.randn(len(form.labels), operation_dim))
        parts = max(form.reads, 1)
        self.global_D = nn.Parameter(torch.randn(parts * operation_dim)) if global_node else None
        self.lift = nn.Linear(parts * operation_dim, hidden_dim)
        self.convolutions = nn.ModuleList(
            GraphConvolution(hidden_dim if not layer else width, width) for layer in range(layers)
        )

    def forward(self, batch: DenseBatch) -> list[Tensor]:
        x_RPD, a_RPP, counted_RP = self._graph(batch)
        if self.global_D is not None:
            x_RPD, a_RPP, counted_RP = self._with_global(self.global_D, x_RPD, a_RPP, counted_RP)
        if self.self_loops:
            a_RPP = a_RPP + torch.eye(a_RPP.shape[-1])
        if self.normalised:
            heard_RP1, told_R1P = a_RPP.sum(dim=2, keepdim=True), a_RPP.sum(dim=1, keepdim=True)
            a_RPP = a_RPP / (heard_RP1 * told_R1P).clamp(min=1).sqrt()
        x_RPD = self.lift(x_RPD)
        for position, convolution in enumerate(self.convolutions):
            x_RPD = convolution(torch.relu(x_RPD) if position else x_RPD, a_RPP)
        counted_RP1 = counted_RP.unsqueeze(-1)
        mean_RF = torch.where(counted_RP1, x_RPD, 0).sum(dim=1) / counted_RP1.sum(dim=1).clamp(min=1)
        return [torch.cat(mean_RF.chunk(len(self.form.kinds)), dim=1)]

    def _graph(self, batch: DenseBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Features [R, P, D], who hears whom [R, P, P], and over which nodes is averaged [R, P]."""
        form = self.form
        inner_V = torch.arange(form.width) >= form.inputs
        if not form.on_edges:
            return self.operation_OD[batch.node_BV], batch.a_BVV, batch.present_BV & inner_V
        if form.reads:
            _, number_RIr = form.read(batch)
            read_RID = self.operation_OD[number_RIr].flatten(start_dim=2)
            inner_V = inner_V & (torch.arange(form.width) < form.width - 1)
            return functional.pad(read_RID, (0, 0, form.inputs, 1)), batch.a_BVV, batch.present_BV & inner_V
        pairs = form.pairs
        line_PP = torch.tensor([[float(heard[1] == hears[0]) for heard in pairs] for hears in pairs])
        source_P, target_P = torch.tensor(pairs).unbind(dim=1)
        number_RP = batch.edge_BKVV[:, 0, target_P, source_P]
        a_RPP = line_PP.to(batch.a_BVV.dtype).expand(len(number_RP), -1, -1)
        return self.operation_OD[number_RP], a_RPP, torch.ones_like(number_RP, dtype=torch.bool)

    @staticmethod
    def _with_global(own_D: Tensor, x_RPD: Tensor, a_RPP: Tensor, counted_RP: Tensor) -> tuple[Tensor, ...]:
        """The graph with a node behind the others that hears all with a feature, and counts in the mean."""
        x_RPD = torch.cat([x_RPD, own_D.expand(len(x_RPD), 1, -1)], dim=1)
        there_RP = counted_RP.to(a_RPP.dtype)
        a_RPP = torch.cat([functional.pad(a_RPP, (0, 1)), functional.pad(there_RP, (0, 1))[:, None]], dim=1)
        return x_RPD, a_RPP, functional.pad(counted_RP, (0, 1), value=True)


class Recurrence(nn.Module):
    """One layer of an LSTM (Hochreiter and Schmidhuber, 1997), written out so that several run as one tensor."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.heard, self.kept = nn.Linear(inputs, 4 * hidden), nn.Linear(hidden, 4 * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x_NLD: Tensor) -> Tensor:
        """The outputs at all tokens, [N, L, F]."""
        heard_NLG = self.heard(x_NLD)
        h_NF = torch.zeros_like(heard_NLG[:, 0, : self.kept.in_features])
        c_NF, outputs = h_NF, []
        for heard_NG in heard_NLG.unbind(dim=1):
            enter_NF, keep_NF, new_NF, leave_NF = (heard_NG + self.kept(h_NF)).chunk(4, dim=1)
            c_NF = torch.sigmoid(keep_NF) * c_NF + torch.sigmoid(enter_NF) * torch.tanh(new_NF)
            h_NF = torch.sigmoid(leave_NF) * torch.tanh(c_NF)
            outputs.append(h_NF)
        return torch.stack(outputs, dim=1)


class SequenceEncoder(Encoder):
    """An LSTM over an architecture's decisions.

    A token is a decision, and the last output the encoding; or, where nodes read a fixed number of edges, a source
    and the operation on the edge from it, and the encoding is the mean of the normalised outputs, normalised (NAO:
    Luo et al., 2018).
    """

    def __init__(self, form: Form):
        super().__init__()
        self.form = form
        dim = 48 if form.reads else 100
        self.width = 2 * dim if form.reads else dim
        sizes = (form.width, len(form.edges)) if form.reads else tuple(sorted(set(form.options)))
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(size, dim)) for size in sizes)
        self._table_L = [sizes.index(count) for count in form.options] if not form.reads else []
        self.recurrence = Recurrence(self.width, self.width)

    def forward(self, batch: DenseBatch) -> list[Tensor]:
        codes_NL = self.form.decisions(batch)
        if self.form.reads:
            source_NLD, operation_NLD = self.tables[0][codes_NL[:, ::2]], self.tables[1][codes_NL[:, 1::2]]
            outputs_NLF = self.recurrence(torch.cat([source_NLD, operation_NLD], dim=-1))
            mean_NF = functional.normalize(outputs_NLF, dim=-1).mean(dim=1)
            return [functional.normalize(mean_NF, dim=-1)]
        tokens = [self.tables[table][code_N] for table, code_N in zip(self._table_L, codes_NL.unbind(dim=1))]
        return [self.recurrence(torch.stack(tokens, dim=1))[:, -1]]
