"""What an operation does to a signal, told from its label: the same rule for all spaces.

Names are those in use in the field: `sep_conv_5x5`, `nor_conv_1x1`, `conv3x3-bn-relu`, `dil_conv_3x3`,
`conv_7x1_1x7`, `avg_pool_3x3`, `maxpool3x3`, `skip_connect`, `none`. Attributes of a label (kernel, dilation,
groups) come before its name.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from nge_search.architecture.graph import PLAIN, Graph, Label

#: Channels for which the weights of depthwise convolutions are counted.
CHANNELS = 32

_KERNEL = re.compile(r"(\d+)x(\d+)")
_DILATION = 2
_SEPARABLE, _DILATED, _DEPTHWISE = ("sep", "dws"), ("dil",), ("depthwise", "dw_")


@dataclass(frozen=True)
class OperationFacts:
    """One operation, seen from the path of a signal.

    Attributes:
        convolutions: layers with weights that mix channels, one behind the other.
        spatial: layers with weights whose kernel is larger than one pixel.
        pools: 1 for pooling, else 0.
        reach: pixels that it adds to the receptive field.
        weights: in units of channels squared; depthwise ones for `CHANNELS` channels.
    """

    convolutions: int = 0
    spatial: int = 0
    pools: int = 0
    reach: int = 0
    weights: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether the signal passes as it is."""
        return not self.convolutions and not self.pools


@functools.lru_cache(1 << 12)
def facts_of(label: Label) -> OperationFacts:
    """The facts of a label; one that names neither a convolution nor a pool only hands on."""
    name, attributes = label.name.lower(), dict(label.attributes)
    kernels = [tuple(map(int, pair)) for pair in _KERNEL.findall(name)]
    if "kernel" in attributes:
        kernels = [(int(attributes["kernel"]),) * 2]
    if "pool" in name:
        return OperationFacts(pools=1, reach=max((max(sides) for sides in kernels), default=3) - 1)
    if "conv" not in name and "linear" not in name:
        return OperationFacts()
    kernels = kernels or [(1, 1)]
    dilation = int(attributes.get("dilation", _DILATION if name.startswith(_DILATED) else 1))
    if name.startswith(_SEPARABLE):
        kernels = kernels * 2  # a depthwise and a pointwise convolution, twice (DARTS)
    depthwise = name.startswith((*_SEPARABLE, *_DILATED, *_DEPTHWISE)) or int(attributes.get("groups", 1)) > 1
    areas = [sides[0] * sides[1] for sides in kernels]
    return OperationFacts(
        convolutions=len(kernels),
        spatial=sum(area > 1 for area in areas),
        reach=sum((max(sides) - 1) * dilation for sides in kernels),
        weights=sum(1 + area / CHANNELS if depthwise and area > 1 else area for area in areas),
    )


def essence(graph: Graph) -> Graph | None:
    """What a cell computes, as operations on nodes: its live part, in which what only hands on is no operation.

    None where no path leads to an output.
    """
    edges = tuple(
        edge._replace(label=PLAIN) if facts_of(edge.label).is_identity else edge
        for edge in graph.without(("none",)).edges
    )
    live = Graph(graph.nodes, edges, graph.inputs, graph.outputs).pruned()
    return None if live is None else live.operations_on_nodes()
