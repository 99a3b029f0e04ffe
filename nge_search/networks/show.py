"""A genotype in words and numbers: its cells and the size of the network they form."""

from __future__ import annotations

from typing import Any

from nge_search.counting import count_parameters, multiply_adds
from nge_search.genotype import INPUT_NODES, Cell, load_genotype
from nge_search.networks.cifar import CifarNetwork


def describe_network(
    reference: str, channels: int, cells: int, classes: int, image_size: int
) -> tuple[list[str], dict[str, Any]]:
    """Lines for people, and the same as a JSON object with `params`, `params_with_aux` and `macs`.

    `params` leaves the auxiliary head out, as papers do; `macs` are mult-adds per image of convolutions and
    matrix products.
    """
    genotype = load_genotype(reference)
    plain = CifarNetwork(genotype, channels, cells, classes)
    with_auxiliary = CifarNetwork(genotype, channels, cells, classes, auxiliary=True)
    document = {
        "genotype": genotype.to_dict(),
        "network": "cifar",
        "channels": channels,
        "cells": cells,
        "classes": classes,
        "image_size": image_size,
        "params": count_parameters(plain),
        "params_with_aux": count_parameters(with_auxiliary),
        "macs": multiply_adds(plain, (1, 3, image_size, image_size)),
    }
    lines = [f"{reference}: {genotype.provenance.get('source', 'derived')}"]
    for kind, cell in genotype.cells():
        lines += [f"{kind} cell", *_cell_lines(cell)]
    lines += [
        f"CIFAR network, C={channels}, {cells} cells, {classes} classes, {image_size}x{image_size}: "
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
