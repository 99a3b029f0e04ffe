"""A genotype in words and numbers: its cells and the size of the network they form."""

from __future__ import annotations

from typing import Any

from nge_search.counting import count_parameters, multiply_adds
from nge_search.genotype import INPUT_NODES, Cell, load_genotype
from nge_search.networks.families import FAMILIES


def describe_network(
    reference: str,
    network: str = "cifar",
    channels: int | None = None,
    cells: int | None = None,
    classes: int | None = None,
    image_size: int | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """Lines for people, and the same as a JSON object with `params`, `params_with_aux` and `macs`.

    `network` is one of `FAMILIES`; sizes that are None are those of the published networks. `params` leaves the
    auxiliary head out, as papers do; `macs` are mult-adds per image of convolutions and matrix products.
    """
    genotype = load_genotype(reference)
    family = FAMILIES[network]
    size = channels or family.channels, cells or family.cells, classes or family.classes
    side = image_size or family.image_size
    plain, with_auxiliary = (family.build(genotype, *size, auxiliary=auxiliary) for auxiliary in (False, True))
    document = {
        "genotype": genotype.to_dict(),
        "network": network,
        **dict(zip(("channels", "cells", "classes"), size)),
        "image_size": side,
        "params": count_parameters(plain),
        "params_with_aux": count_parameters(with_auxiliary),
        "macs": multiply_adds(plain, (1, 3, side, side)),
    }
    lines = [f"{reference}: {genotype.provenance.get('source', 'derived')}"]
    for kind, cell in genotype.cells():
        lines += [f"{kind} cell", *_cell_lines(cell)]
    lines += [
        f"{family.title} network, C={size[0]}, {size[1]} cells, {size[2]} classes, {side}x{side}: "
        f"{document['params']:,} parameters ({document['params_with_aux']:,} with the auxiliary head), "
        f"{document['macs'] / 1e6:.2f}M mult-adds"
    ]
    return lines, document


def _cell_lines(cell: Cell) -> list[str]:
    lines = []
    for node in range(INPUT_NODES, INPUT_NODES + cell.nodes):
        terms = " + ".join(f"{operation}({source})" for operation, source in cell.incoming(node))
        lines.append(f"  {node} = {terms}")
    return [*lines, f"  output = concat({', '.join(map(str, cell.concat))})"]
