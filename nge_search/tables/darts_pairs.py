"""Accuracies of single genotypes of DARTS' space, trained or predicted: JSON lists of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nge_search.architecture.genotype import FORMAT, Genotype
from nge_search.errors import UserError
from nge_search.spaces import Code, DartsSpace
from nge_search.tables.table import STUMBLES, Table, build_table


def read_pairs(path: Path, entries: list[Any]) -> Table:
    """The table of a list of objects, each with a `genotype` and figures by name.

    A genotype has its pairs in one list, or node by node; figures within another object take its name before
    theirs. Genotypes that are given several times have their figures as repeats.

    Raises:
        UserError: a genotype that is not of DARTS' space; names its place.
    """
    space = DartsSpace()
    found: dict[bytes, tuple[Code, dict[str, Any]]] = {}
    given_as: dict[str, str] = {}
    for position, entry in enumerate(entries):
        try:
            code = space.code(_genotype(entry["genotype"]).graphs())
            figures = found.setdefault(space.key(code), (code, {}))[1]
            for given, value in _figures(entry, ""):
                name = re.sub(r"\W+", "_", given)  # it becomes a file's name
                if given_as.setdefault(name, given) != given:
                    raise ValueError(f"'{given}' and '{given_as[name]}' would be one column, {name}; rename one")
                figures.setdefault(name, []).append(value)
        except STUMBLES as error:
            raise UserError(f"'{path}' entry {position}: {error}") from None
    return build_table(space, found.values(), path.name, "genotype of DARTS' space")


def _genotype(given: dict[str, Any]) -> Genotype:
    document: dict[str, Any] = {"format": FORMAT, "space": "darts"}
    for kind in ("normal", "reduce"):
        genes = given[kind]
        if genes and isinstance(genes[0][0], list):
            genes = [gene for node in genes for gene in node]
        document[kind] = genes
        document[f"{kind}_concat"] = given.get(f"{kind}_concat", given.get("concat"))
    return Genotype.from_dict(document)


def _figures(given: dict[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in given.items():
        if isinstance(value, dict) and name != "genotype":
            yield from _figures(value, f"{prefix}{name}_")
        elif isinstance(value, (int, float)) and name != "id":
            yield prefix + name, float(value)
