"""NAS-Bench-201's networks: one architecture's cells in three stages (Dong and Yang, 2020, Section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nge_search.architecture.graph import Graph
from nge_search.supernet.nasbench201 import ThreeStages, build_operation

#: Of the published networks: channels of the first stage, and five cells in each of three stages.
CHANNELS, CELLS = 16, 15


class NasBench201Cell(nn.Module):
    """A cell with an operation on each edge of its graph; nodes add up, and the last one is the output."""

    def __init__(self, graph: Graph, channels: int):
        super().__init__()
        self.graph = graph
        self.operations = nn.ModuleList(build_operation(edge.label.name, channels, True) for edge in graph.edges)

    def extra_repr(self) -> str:
        return f"edges=({', '.join(f'{edge.source}-{edge.target}' for edge in self.graph.edges)})"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        states: dict[int, Tensor] = {self.graph.inputs[0]: x_BCHW}
        for node in self.graph.order:
            arriving = [
                self.operations[position](states[self.graph.edges[position].source])
                for position in self.graph.incoming[node]
                if self.graph.edges[position].source in states
            ]
            if arriving:
                states[node] = sum(arriving[1:], arriving[0])
        output = states.get(self.graph.outputs[0])
        return torch.zeros_like(x_BCHW) if output is None else output


class NasBench201Network(ThreeStages[NasBench201Cell]):
    """The network that NAS-Bench-201 trained.

    Args:
        graphs: of the space's one kind of cell, operations on edges; an edge that is not there is `none`.
        channels, cells, classes, image_channels: as of `ThreeStages`.
    """

    drop_slots, compiled = 0, False

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        channels: int = CHANNELS,
        cells: int = CELLS,
        classes: int = 10,
        image_channels: int = 3,
    ):
        graph = graphs["cell"]
        super().__init__(lambda width: NasBench201Cell(graph, width), channels, cells, classes, image_channels)

    @property
    def cells(self) -> list[NasBench201Cell]:
        """All cells, in order."""
        return [cell for stage in self.stages for cell in stage]

    def forward(self, x_BCHW: Tensor, keep_BD: Tensor | None = None) -> tuple[Tensor, None]:
        """Logits [B, classes]; there is no auxiliary head, and no operation that drop-path may drop."""
        return self.run(x_BCHW), None
