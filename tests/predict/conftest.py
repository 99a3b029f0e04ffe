"""TA-GATES written as loops over nodes and edges, for one architecture at a time, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from nge_search.architecture.graph import Graph
from nge_search.graph_nn import GatedConvolution, Vocabulary
from nge_search.predict.encoders import FlowEncoder

#: Embeddings and information that updates take in place of those computed, by step, kind and operation.
Held = dict[tuple[int, int, int], dict[str, Tensor]]


class Oracle:
    """What `encoder` makes of one architecture, with loops over nodes and edges.

    Args:
        names: whether an operation has an embedding of its own, lets everything pass, and is updated.

    Attributes:
        operations: after each step the embeddings, by kind and operation: of nodes or of edges by their position.
        seen: the o, f and b of every update.
    """

    def __init__(self, encoder: FlowEncoder, labels: Vocabulary, names: Mapping[str, tuple[bool, bool, bool]]):
        self.encoder, self.labels, self.names = encoder, labels, names
        self.operations: list[list[dict[int, Tensor]]] = []
        self.seen: Held = {}

    def __call__(
        self, cells: list[Graph], metrics: list[dict[int, Tensor]] | None = None, held: Held | None = None
    ) -> list[Tensor]:
        """The encoding after each step, [C F]."""
        encoder, settings = self.encoder, self.encoder.settings
        self.operations, self.seen = [[self._start(cell) for cell in cells]], {}
        if metrics is not None:
            self.operations[0] = [self._broken(*pair) for pair in zip(self.operations[0], metrics)]
        encodings = []
        for step in range(settings.steps):
            now, flows = self.operations[-1], []
            for kind, cell in enumerate(cells):
                own = [
                    encoder.input_CID[kind, node] if node < encoder.inputs else encoder.other_CD[kind]
                    for node in range(len(cell.nodes))
                ]
                start = [encoder.lift.weight @ x + encoder.lift.bias for x in own]
                flows.append(self._flow(list(encoder.forward_layers), start, cell, now[kind], False))
            encodings.append(torch.cat([self._read(x, cell) for (x, _), cell in zip(flows, cells)]))
            if step + 1 == settings.steps:
                return encodings
            information = torch.cat([x[cell.outputs[0]] for (x, _), cell in zip(flows, cells)])
            first, _, second = encoder.convert
            hidden = torch.relu(first.weight @ information + first.bias)
            given = (second.weight @ hidden + second.bias).chunk(len(cells))
            updated = []
            for kind, cell in enumerate(cells):
                start = [torch.zeros_like(given[kind]) for _ in cell.nodes]
                start[cell.outputs[0]] = given[kind]
                back = self._flow(list(encoder.backward_layers), start, cell, now[kind], True)
                updated.append(self._updated(cell, now[kind], flows[kind], back, (step, kind), held))
            self.operations.append(updated)
        raise AssertionError("no step")

    def _label(self, cell: Graph, operation: int) -> str:
        return (cell.edges[operation].label if self.encoder.on_edges else cell.nodes[operation]).name

    def _start(self, cell: Graph) -> dict[int, Tensor]:
        count, found = len(cell.edges if self.encoder.on_edges else cell.nodes), {}
        for operation in range(count):
            name = self._label(cell, operation)
            row = self.encoder.operation_OG[self.labels.number(name)]
            found[operation] = row if self.names[name][0] else torch.zeros_like(row)
        return found

    def _broken(self, operations: dict[int, Tensor], metrics: dict[int, Tensor]) -> dict[int, Tensor]:
        settings, found = self.encoder.settings, {}
        for operation, o in operations.items():
            if settings.breaking == "concat":
                layer = self.encoder.project
                found[operation] = layer.weight @ torch.cat([o, metrics[operation]]) + layer.bias
            else:
                first, _, second, _, third = self.encoder.metric_layers
                hidden = torch.relu(first.weight @ metrics[operation] + first.bias)
                hidden = torch.relu(second.weight @ hidden + second.bias)
                found[operation] = o + settings.breaking_scale * (third.weight @ hidden + third.bias)
        return found

    def _gate(self, layer: GatedConvolution, cell: Graph, operation: int, o: Tensor) -> Tensor:
        gate = 1 / (1 + torch.exp(-(layer.gate.weight @ o + layer.gate.bias)))
        if (
            self.encoder.on_edges
            and self.encoder.settings.open_skips
            and self.names[self._label(cell, operation)][1]
        ):
            return torch.ones_like(gate)
        return gate

    def _flow(
        self,
        layers: list[GatedConvolution],
        x: list[Tensor],
        cell: Graph,
        operations: dict[int, Tensor],
        back: bool,
    ) -> tuple[list[Tensor], dict[int, Tensor]]:
        """What nodes hold after all layers, and the last layer's messages by edge."""
        settings, on_edges = self.encoder.settings, self.encoder.on_edges
        messages: dict[int, Tensor] = {}
        for position, layer in enumerate(layers):
            said, heard = [row @ layer.weight_DF for row in x], []
            for node in range(len(cell.nodes)):
                total = torch.zeros_like(said[0])
                for number, edge in enumerate(cell.edges):
                    source, target = (edge.target, edge.source) if back else (edge.source, edge.target)
                    if target == node and on_edges:
                        messages[number] = self._gate(layer, cell, number, operations[number]) * said[source]
                        total = total + messages[number]
                    elif target == node:
                        total = total + said[source]
                if not on_edges:
                    total = total + said[node] if settings.self_loops else total
                    total = self._gate(layer, cell, node, operations[node]) * total
                residual = settings.residual is None or node < settings.residual
                if node == cell.outputs[0] if back else residual:
                    total = total + said[node]
                heard.append(total if layer.bias_F is None else total + layer.bias_F)
            x = heard if position + 1 == len(layers) else [row.clamp(min=0) for row in heard]
        return x, messages

    def _read(self, x: list[Tensor], cell: Graph) -> Tensor:
        settings = self.encoder.settings
        if settings.readout == "output":
            return x[cell.outputs[0]]
        others = x[self.encoder.inputs :]
        return torch.stack(others).sum(dim=0) / (settings.mean_of or len(others))

    def _updated(
        self,
        cell: Graph,
        operations: dict[int, Tensor],
        forward: tuple[list[Tensor], dict[int, Tensor]],
        back: tuple[list[Tensor], dict[int, Tensor]],
        place: tuple[int, int],
        held: Held | None,
    ) -> dict[int, Tensor]:
        settings, found = self.encoder.settings, {}
        for operation, o in operations.items():
            if not self.encoder.on_edges:
                f, b = forward[0][operation], back[0][operation]
            elif settings.update_from == "messages":
                f, b = forward[1][operation], back[1][operation]
            else:
                edge = cell.edges[operation]
                f, b = forward[0][edge.target], back[0][edge.source]
            seen = {"o": o, "f": f, "b": b}
            self.seen[(*place, operation)] = {name: value.detach() for name, value in seen.items()}
            if held is not None:
                seen |= {name: held[(*place, operation)][name] for name in settings.stop_gradients}
            first, _, second = self.encoder.update
            told = torch.cat([seen[name] for name in settings.update_inputs])
            hidden = torch.relu(first.weight @ told + first.bias)
            change = settings.step_size * (second.weight @ hidden + second.bias)
            moves = settings.update_parameter_free or self.names[self._label(cell, operation)][2]
            found[operation] = o + change if moves else o
        return found


@pytest.fixture
def oracle_class() -> type[Oracle]:
    return Oracle
