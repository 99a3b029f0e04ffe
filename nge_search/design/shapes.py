"""What drawn cells look like in numbers, as NAL's Figure 4 speaks of them: operations, width, depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nge_search.architecture.graph import INPUT, OUTPUT
from nge_search.design.growth import LinkGraph, Rules
from nge_search.spaces import Code


@dataclass(frozen=True)
class Shape:
    """Of one cell in node form.

    Attributes:
        operations: how many nodes have each, inputs and outputs not counted.
        links: between all nodes.
        from_inputs: links that leave the inputs.
        depth: links on the longest path.
        width: the most inner nodes that are equally deep.
    """

    operations: dict[str, int]
    links: int
    from_inputs: int
    depth: int
    width: int


def shape_of(rules: Rules, graph: LinkGraph) -> Shape:
    """The shape of a cell."""
    names = [rules.labels[label] for label in graph.labels]
    inner = [node for node, name in enumerate(names) if name not in (INPUT, OUTPUT)]
    depth = [0] * len(names)
    for _ in names:  # no path has more links
        for source, target in graph.links:
            depth[target] = max(depth[target], depth[source] + 1)
    levels = Counter(depth[node] for node in inner)
    return Shape(
        operations=dict(Counter(names[node] for node in inner)),
        links=len(graph.links),
        from_inputs=sum(names[source] == INPUT for source, _ in graph.links),
        depth=max(depth),
        width=max(levels.values(), default=0),
    )


def mean_shape(rules: Rules, codes: Sequence[Code]) -> dict[str, float]:
    """The means over the cells of architectures: each operation by its name, and the other figures."""
    shapes = [shape_of(rules, graph) for code in codes for graph in rules.graphs(code)]
    names = dict.fromkeys(name for shape in shapes for name in shape.operations)
    means = {name: float(np.mean([shape.operations.get(name, 0) for shape in shapes])) for name in names}
    figures = ("links", "from_inputs", "depth", "width")
    return means | {name: float(np.mean([getattr(shape, name) for shape in shapes])) for name in figures}


def frequent(rules: Rules, codes: Sequence[Code], count: int = 10) -> list[tuple[Code, int]]:
    """The cells that were drawn most often, as they were first, and how often; of equals the earlier one first."""
    first: dict[bytes, Code] = {}
    for code in codes:
        first.setdefault(rules.key(code), code)
    return [(first[key], times) for key, times in Counter(map(rules.key, codes)).most_common(count)]
