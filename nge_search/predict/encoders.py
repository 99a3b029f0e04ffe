"""TA-GATES and GATES: an architecture is encoded by what flows through its graph (Ning et al., 2022 and 2020).

An encoding imitates training. Operations have embeddings; information flows forward from the inputs, gated by the
operations it passes, and backward from the output; what an operation has seen of both updates its embedding; after
several such steps the information at the output is the encoding (TA-GATES, Algorithm 1). GATES is one forward pass.

Legend: C kinds of cells, B architectures (cells are batched kind by kind: R = C B graphs), V nodes, P places of
edges, O labels, D width of nodes, F of information, G of operations, M numbers for each operation that break
symmetries. "Operations" are [R, V, G] where they are on nodes and [R, P, G] where they are on edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.graph import INPUT, PLAIN, Label
from nge_search.graph_nn import DenseBatch, EdgeBatch, GatedConvolution, Vocabulary
from nge_search.predict.operation_facts import facts_of

#: Operations through which everything passes, where `FlowSettings.open_skips` says so.
_OPEN = (PLAIN.name, "skip_connect")
#: Deviation of the noise of symmetry breaking by chance.
_NOISE = 0.1


@dataclass(frozen=True)
class FlowSettings:
    """Sizes and options of `FlowEncoder`; the defaults are those of TA-GATES on NAS-Bench-201.

    Attributes:
        steps: T; 1 is GATES.
        layers: graph convolutions of a pass.
        operation_dim, node_dim, hidden_dim, width: G, D of a node's own vector, of what it is lifted to, and F.
        update_dim: hidden units of the update.
        step_size: s, by which updates are scaled.
        residual: nodes that hear themselves, too: forward the first so many, or all (None); backward the output.
        self_loops: every node hears itself through its own gate (operations on nodes).
        open_skips: skip connections, and edges without an operation, let everything pass, and have no embedding.
        train_other: whether the vector of nodes that are no inputs is trained (from zero), or stays zero.
        update_parameter_free: update the embeddings of operations without weights too.
        update_from: "nodes": from what their nodes hold; "messages": from what passed their edges.
        update_inputs: what an update is told: o, the embedding, f and b, what was seen forward and backward.
        stop_gradients: which of these gradients do not pass.
        readout: "output", or "mean" over all nodes but the inputs.
        mean_of: by which the sum of that mean is divided, however many nodes there are; None: by their number.
        breaking: how operations of one type are told apart at the start: one of the names in settings.
        breaking_scale: beta.
    """

    steps: int = 4
    layers: int = 3
    operation_dim: int = 48
    node_dim: int = 48
    hidden_dim: int = 96
    width: int = 128
    update_dim: int = 128
    step_size: float = 0.1
    residual: int | None = 1
    self_loops: bool = False
    open_skips: bool = True
    train_other: bool = False
    update_parameter_free: bool = False
    update_from: str = "messages"
    update_inputs: str = "ofb"
    stop_gradients: str = "of"
    readout: str = "output"
    mean_of: int | None = None
    breaking: str = "none"
    breaking_scale: float = 0.1


class Encoder(nn.Module):
    """From cells to what stands for an architecture.

    `forward` takes a `DenseBatch`, kind by kind of cells, and gives encodings [B, width] in a list: one for each
    step, of which the last counts.

    Attributes:
        width: features of an encoding.
    """

    width: int


class FlowEncoder(Encoder):
    """From graphs to the information at their outputs, after each step.

    Args:
        labels: the vocabulary of the operations, on nodes or on edges.
        inputs: nodes of a cell that are given.
        kinds: C.
        on_edges: whether operations are on edges.
        metrics: M.
    """

    opened_O: Tensor
    moves_O: Tensor
    trained_O: Tensor

    def __init__(
        self,
        settings: FlowSettings,
        labels: Vocabulary,
        inputs: int = 1,
        kinds: int = 1,
        on_edges: bool = True,
        metrics: int = 0,
    ):
        super().__init__()
        self.settings, self.inputs, self.kinds, self.on_edges = settings, inputs, kinds, on_edges
        self.width = kinds * settings.width
        facts = [facts_of(Label(name)) for name in labels.names]
        opened = [name in _OPEN for name in labels.names]
        self.register_buffer("opened_O", torch.tensor([False, *opened]), persistent=False)
        moves = [settings.update_parameter_free or fact.convolutions > 0 for fact in facts]
        self.register_buffer("moves_O", torch.tensor([False, *moves]), persistent=False)
        size = settings.operation_dim
        self.operation_OG = nn.Parameter(torch.randn(len(labels), size))
        self.register_buffer("trained_O", torch.tensor(self._trained(labels)), persistent=False)
        self.input_CID = nn.Parameter(torch.randn(kinds, inputs, settings.node_dim))
        self.other_CD = nn.Parameter(torch.zeros(kinds, settings.node_dim), requires_grad=settings.train_other)
        self.lift = nn.Linear(settings.node_dim, settings.hidden_dim)
        self.forward_layers = _convolutions(settings, settings.hidden_dim, not on_edges)
        if settings.steps > 1:
            width = kinds * settings.width
            self.convert = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            self.backward_layers = _convolutions(settings, settings.width, not on_edges)
            told = sum(size if seen == "o" else settings.width for seen in settings.update_inputs)
            self.update = nn.Sequential(
                nn.Linear(told, settings.update_dim),
                nn.ReLU(),
                nn.Linear(settings.update_dim, size),
            )
        self.metrics = metrics
        if settings.breaking == "add":
            self.metric_layers = nn.Sequential(
                *(nn.Linear(metrics, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, size))
            )
        if settings.breaking == "concat":
            self.project = nn.Linear(size + metrics, size)

    def extra_repr(self) -> str:
        place = "edges" if self.on_edges else "nodes"
        return f"steps={self.settings.steps}, operations on {place}, breaking={self.settings.breaking}"

    def forward(self, batch: DenseBatch, metrics: Tensor | None = None) -> list[Tensor]:
        """The encoding after each of the T steps: [B, C F] each.

        Args:
            batch: R graphs, padded, outputs last.
            metrics: numbers for each operation, where they break symmetry: [R, V, M], on edges [R, K, V, V, M].
        """
        settings = self.settings
        if settings.self_loops:
            batch = _with_loops(batch)
        edges = EdgeBatch.of(batch)
        if self.on_edges and metrics is not None:
            metrics = metrics[:, edges.slot_P, edges.target_P, edges.source_P]
        numbers = edges.edge_BP if self.on_edges else batch.node_BV
        operations = self.broken(self._embedded(numbers), metrics)
        start = self.lift(self._start(batch))
        way = edges if self.on_edges else batch
        encodings = []
        for step in range(settings.steps):
            found = self._pass(self.forward_layers, start, way, operations, numbers, forward=True)
            encodings.append(self._read(found[0], batch))
            if step + 1 < settings.steps:
                given = self._converted(found[0])
                back = self._pass(self.backward_layers, given, way.reversed(), operations, numbers, forward=False)
                seen = self._seen(found, edges.target_P), self._seen(back, edges.source_P)
                operations = self._updated(operations, *seen, numbers)
        return encodings

    def _trained(self, labels: Vocabulary) -> list[bool]:
        """Which embeddings are trained, the others staying zero: not that of nothing, an input, or what is open."""
        on_edges = _OPEN if self.settings.open_skips else ()
        fixed = on_edges if self.on_edges else (INPUT,)
        return [False, *(name not in fixed for name in labels.names)]

    def _embedded(self, numbers: Tensor) -> Tensor:
        """Embeddings of operations by their types; those that are not trained are zero."""
        return (self.operation_OG * self.trained_O[:, None])[numbers]

    def broken(self, operations: Tensor, metrics: Tensor | None) -> Tensor:
        """The operations' embeddings at the start, told apart (Section 3.2, Eq. 1).

        "concat" joins the metrics to an embedding once, before the first pass, and projects both back to G numbers.
        """
        settings = self.settings
        if settings.breaking == "random":
            return operations + _NOISE * torch.randn_like(operations)
        if settings.breaking == "none":
            return operations
        if metrics is None:
            raise ValueError(f"breaking='{settings.breaking}' needs metrics of the operations")
        if settings.breaking == "add":
            return operations + settings.breaking_scale * self.metric_layers(metrics)
        return self.project(torch.cat([operations, metrics], dim=-1))

    def _start(self, batch: DenseBatch) -> Tensor:
        """The nodes' own vectors, [R, V, D]."""
        graphs, nodes = batch.node_BV.shape
        own_CVD = torch.cat([self.input_CID, self.other_CD[:, None].expand(-1, nodes - self.inputs, -1)], dim=1)
        return own_CVD.repeat_interleave(graphs // self.kinds, dim=0)

    def _pass(
        self,
        layers: nn.ModuleList,
        x_RVD: Tensor,
        way: DenseBatch | EdgeBatch,
        operations: Tensor,
        numbers: Tensor,
        forward: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """What nodes know after all layers, and the messages of the last one, [R, P, F], where updates see them."""
        settings, (graphs, nodes, _) = self.settings, x_RVD.shape
        itself_V = torch.zeros(nodes, dtype=x_RVD.dtype)
        itself_V[slice(settings.residual) if forward else -1] = 1
        itself_RV = itself_V.to(x_RVD.device).expand(graphs, -1)
        opened = self.opened_O[numbers] if settings.open_skips and self.on_edges else None
        for position, layer in enumerate(layers):
            assert isinstance(layer, GatedConvolution)
            last = position + 1 == len(layers)
            if last and isinstance(way, EdgeBatch) and settings.update_from == "messages":
                said_RVF = x_RVD @ layer.weight_DF
                messages = way.messages(said_RVF, layer.gates(operations, opened))
                return way.arriving(messages, nodes) + itself_RV.unsqueeze(-1) * said_RVF, messages
            x_RVD = layer(x_RVD, way, operations, self.on_edges, itself_RV, opened)
            x_RVD = x_RVD if last else torch.relu(x_RVD)
        return x_RVD, None

    def _read(self, information_RVF: Tensor, batch: DenseBatch) -> Tensor:
        """The encoding, [B, C F]."""
        if self.settings.readout == "mean":
            present_RV = batch.present_BV[:, self.inputs :]
            sum_RF = torch.where(present_RV.unsqueeze(-1), information_RVF[:, self.inputs :], 0).sum(dim=1)
            read_RF = sum_RF / (self.settings.mean_of or present_RV.sum(dim=1, keepdim=True))
        else:
            read_RF = information_RVF[:, -1]
        return self._joined(read_RF)

    def _joined(self, x_RF: Tensor) -> Tensor:
        """Kinds of cells side by side: [B, C F] from [R, F]."""
        return torch.cat(x_RF.chunk(self.kinds), dim=1)

    def _converted(self, information_RVF: Tensor) -> Tensor:
        """What the backward pass starts from, [R, V, F]: at the outputs what has come there, converted."""
        converted = self.convert(self._joined(information_RVF[:, -1]))
        at_output_RF = torch.cat(converted.chunk(self.kinds, dim=1))
        return functional.pad(at_output_RF.unsqueeze(1), (0, 0, information_RVF.shape[1] - 1, 0))

    def _updated(self, operations: Tensor, f: Tensor, b: Tensor, numbers: Tensor) -> Tensor:
        """The embeddings after an update: o + s mask MLP([o | f | b]), without gradients into some of the MLP's."""
        settings, seen = self.settings, {"o": operations, "f": f, "b": b}
        told = [
            seen[name].detach() if name in settings.stop_gradients else seen[name]
            for name in settings.update_inputs
        ]
        change = self.update(torch.cat(told, dim=-1))
        return operations + settings.step_size * self.moves_O[numbers].unsqueeze(-1) * change

    def _seen(self, found: tuple[Tensor, Tensor | None], end_P: Tensor) -> Tensor:
        """What each operation has seen of a pass: its node, its edge's message, or one end of its edge."""
        information_RVF, messages = found
        if messages is not None:
            return messages
        return information_RVF.index_select(1, end_P) if self.on_edges else information_RVF


def _convolutions(settings: FlowSettings, inputs: int, bias: bool) -> nn.ModuleList:
    widths = [inputs, *[settings.width] * settings.layers]
    return nn.ModuleList(
        GatedConvolution(before, after, settings.operation_dim, bias)
        for before, after in itertools.pairwise(widths)
    )


def _with_loops(batch: DenseBatch) -> DenseBatch:
    """Every node that is there hears itself, too."""
    loops_RVV = torch.diag_embed(batch.present_BV.to(batch.a_BVV.dtype))
    return DenseBatch(batch.node_BV, batch.edge_BKVV, batch.a_BVV + loops_RVV)


def head(width: int, hidden: Sequence[int], dropout: float, outputs: int = 1) -> nn.Sequential:
    """The MLP from an encoding to scores: [..., width] to [..., outputs]; ReLU and dropout behind hidden layers."""
    layers: list[nn.Module] = []
    for before, after in zip([width, *hidden], hidden):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear([width, *hidden][-1], outputs))
