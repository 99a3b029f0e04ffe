"""An architecture in words and numbers: its cells and the size of the network they form."""

from __future__ import annotations

import functools
from typing import Any

import torch

from nge_search.architecture.graph import CONCAT, OUTPUT, SUM, Graph
from nge_search.architecture.load import Architecture, load_architecture
from nge_search.counting import count_parameters, sizes_of
from nge_search.errors import UserError
from nge_search.networks.families import FAMILIES, Family, Trainable, require_fits
from nge_search.networks.latency import measure_latency
from nge_search.networks.sizes import SIZES, nearest_channels
from nge_search.predict.shipped import expected
from nge_search.settings.amounts import write_amount

#: Of which network, sizes and images it is told what to expect: DARTS' own.
_EXPECTED_OF = ("cifar", (36, 20, 10), 32, 3)


def describe_network(
    reference: str,
    network: str | None = None,
    channels: int | None = None,
    cells: int | None = None,
    classes: int | None = None,
    image_size: int | None = None,
    target: tuple[str, float] | None = None,
    latency: tuple[torch.device, int] | None = None,
    image_channels: int = 3,
) -> tuple[list[str], dict[str, Any]]:
    """Lines for people, and the same as a JSON object with `params`, `params_with_aux` and `macs`.

    `network` is one of `FAMILIES`, by default the first of the architecture's space; sizes that are None are those
    of the published networks. `params` leaves the auxiliary head out, as papers do; `macs` are mult-adds per image
    of convolutions and matrix products. `target`, a size ("macs" or "params") and how much of it, chooses the
    channels. With `latency`, a device and the images of a batch, the network is timed there. Of cells of DARTS'
    space in their published network, for images of three channels, there is `expected`, too: what they are expected
    to reach.

    Raises UserError for no architecture, a network of another space, or a size that the network cannot have.
    """
    architecture = load_architecture(reference)
    kind = network or next(name for name, family in FAMILIES.items() if family.space == architecture.space)
    require_fits(architecture, kind, "--network")
    family = FAMILIES[kind]
    side = image_size or family.image_size
    size = channels or family.channels, cells or family.cells, classes or family.classes
    if size[1] % family.stages:
        raise UserError(f"--cells={size[1]}: networks of {family.title} have three stages; give a multiple of 3")
    if target is not None:
        size = _nearest(family, architecture, size[1:], side, image_channels, target), *size[1:]
    plain = family.build(architecture.graphs, *size, image_channels)
    document: dict[str, Any] = {
        "genotype": architecture.document,
        "network": kind,
        **dict(zip(("channels", "cells", "classes"), size)),
        "image_size": side,
        "image_channels": image_channels,
        **sizes_of(plain, (1, image_channels, side, side)),
    }
    lines, aside = _architecture_lines(reference, architecture), ""
    if "auxiliary" in family.own:
        whole = family.build(architecture.graphs, *size, image_channels, auxiliary=True)
        document["params_with_aux"] = count_parameters(whole)
        aside = f" ({document['params_with_aux']:,} with the auxiliary head)"
    lines.append(_size_line(family.title, document, aside))
    if target is not None:
        document["target"] = dict([target])
        lines.append(_nearest_line(document, *target))
    if latency is not None:
        measured = measure_latency(plain, side, *latency, image_channels=image_channels)
        document["latency"] = measured.to_dict()
        lines.append(measured.line())
    expectation = expected(architecture.genotype) if (kind, size, side, image_channels) == _EXPECTED_OF else None
    if expectation is not None:
        lines += expectation.lines()
        document["expected"] = expectation.to_dict()
    return lines, document


def _nearest(
    family: Family,
    architecture: Architecture,
    others: tuple[int, int],
    side: int,
    image_channels: int,
    target: tuple[str, float],
) -> int:
    """The channels that come nearest to a target; `others`: cells and classes."""
    build = functools.partial(_of_channels, family, architecture, others, image_channels)
    key, least = f"--target-{target[0]}", family.least_channels
    return nearest_channels(build, target[0], side, target[1], key, image_channels, least)[0]


def _size_line(title: str, document: dict[str, Any], aside: str) -> str:
    """A network's sizes."""
    cells, side = document["cells"], document["image_size"]
    return (
        f"{title} network, C={document['channels']}, {cells} {'cell' if cells == 1 else 'cells'}, "
        f"{document['classes']} classes, {side}x{side}{_of_image_channels(document['image_channels'])}: "
        f"{document['params']:,} parameters{aside}, {document['macs'] / 1e6:.2f}M mult-adds"
    )


def _of_image_channels(count: int) -> str:
    """Of images that are not those of the published networks."""
    return "" if count == 3 else f" of {count} {'channel' if count == 1 else 'channels'}"


def _nearest_line(document: dict[str, Any], of: str, wanted: float) -> str:
    """How far the network is from a target."""
    off = 100 * (document[of] / wanted - 1)
    return f"C={document['channels']} comes nearest to {write_amount(wanted)} {SIZES[of]}: {off:+.1f} %"


def _architecture_lines(reference: str, architecture: Architecture) -> list[str]:
    """Where an architecture comes from, its notation, and what each node of its cells computes."""
    lines = [f"{reference}: {_origin(architecture)}"]
    if architecture.text:
        lines.append(architecture.text)
    for name, graph in architecture.graphs.items():
        lines += [f"{name} cell" if len(architecture.graphs) > 1 else name, *_cell_lines(graph)]
    return lines


def _of_channels(
    family: Family, architecture: Architecture, sizes: tuple[int, int], image_channels: int, channels: int
) -> Trainable:
    """The network of so many channels; `sizes` are its cells and classes."""
    return family.build(architecture.graphs, channels, *sizes, image_channels)


def _origin(architecture: Architecture) -> str:
    """Where an architecture comes from, as far as its JSON object tells."""
    provenance = architecture.document.get("provenance")
    source = provenance.get("source", "") if isinstance(provenance, dict) else ""
    return source if isinstance(source, str) and source else f"a cell of {architecture.space}"


def _cell_lines(graph: Graph) -> list[str]:
    """What each node computes of which others, in their order."""
    inner = [node for node in graph.order if node not in graph.inputs]
    return [f"  {_name(graph, node)} = {_term(graph, node)}" for node in inner]


def _name(graph: Graph, node: int) -> str:
    return "output" if graph.nodes[node].name in (CONCAT, OUTPUT) else str(node)


def _term(graph: Graph, node: int) -> str:
    label, edges = graph.nodes[node], [graph.edges[position] for position in graph.incoming[node]]
    if label.name == SUM:
        return " + ".join(f"{edge.label}({edge.source})" for edge in edges) or "0"
    between = ", " if label.name in (CONCAT, OUTPUT) else " + "
    return f"{label}({between.join(str(edge.source) for edge in edges)})"
