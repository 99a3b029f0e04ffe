"""An architecture in words and numbers: its cells and the size of the network they form."""

from __future__ import annotations

from typing import Any

from nge_search.architecture.genotype import SPACE, Cell
from nge_search.architecture.load import Architecture, load_architecture
from nge_search.counting import count_parameters, multiply_adds
from nge_search.errors import UserError
from nge_search.networks.families import FAMILIES, require_fits
from nge_search.settings.names import INPUT_NODES

_STAGES = 3  # of the networks of benchmarks


def describe_network(
    reference: str,
    network: str | None = None,
    channels: int | None = None,
    cells: int | None = None,
    classes: int | None = None,
    image_size: int | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """Lines for people, and the same as a JSON object with `params`, `params_with_aux` and `macs`.

    `network` is one of `FAMILIES`, by default the first of the architecture's space; sizes that are None are those
    of the published networks. `params` leaves the auxiliary head out, as papers do; `macs` are mult-adds per image
    of convolutions and matrix products.

    Raises:
        UserError: no architecture, a network of another space, or a size that the network cannot have.
    """
    architecture = load_architecture(reference)
    kind = network or next(name for name, family in FAMILIES.items() if family.space == architecture.space)
    require_fits(architecture, kind, "--network")
    family = FAMILIES[kind]
    size = channels or family.channels, cells or family.cells, classes or family.classes
    side = image_size or family.image_size
    if family.space != SPACE and size[1] % _STAGES:
        raise UserError(f"--cells={size[1]}: networks of {family.title} have three stages; give a multiple of 3")
    plain = family.build(architecture.cells, *size)
    document = {
        "genotype": architecture.document,
        "network": kind,
        **dict(zip(("channels", "cells", "classes"), size)),
        "image_size": side,
        "params": count_parameters(plain),
        "macs": multiply_adds(plain, (1, 3, side, side)),
    }
    lines, aside = [f"{reference}: {_origin(architecture)}"], ""
    if architecture.genotype is None:
        lines.append(architecture.text)
    else:
        document["params_with_aux"] = count_parameters(family.build(architecture.genotype, *size, auxiliary=True))
        aside = f" ({document['params_with_aux']:,} with the auxiliary head)"
        for name, cell in architecture.genotype.cells():
            lines += [f"{name} cell", *_cell_lines(cell)]
    lines += [
        f"{family.title} network, C={size[0]}, {size[1]} cells, {size[2]} classes, {side}x{side}: "
        f"{document['params']:,} parameters{aside}, {document['macs'] / 1e6:.2f}M mult-adds"
    ]
    return lines, document


def _origin(architecture: Architecture) -> str:
    """Where an architecture comes from, as far as its JSON object tells."""
    provenance = architecture.document.get("provenance")
    source = provenance.get("source", "") if isinstance(provenance, dict) else ""
    return source if isinstance(source, str) and source else f"a cell of {architecture.space}"


def _cell_lines(cell: Cell) -> list[str]:
    lines = []
    for node in range(INPUT_NODES, INPUT_NODES + cell.nodes):
        terms = " + ".join(f"{operation}({source})" for operation, source in cell.incoming(node))
        lines.append(f"  {node} = {terms}")
    return [*lines, f"  output = concat({', '.join(map(str, cell.concat))})"]
