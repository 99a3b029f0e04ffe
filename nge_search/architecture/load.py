"""Whatever names an architecture: a published name, a notation, a JSON file, a run folder; of any space."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError, nearest, plain, shorten
from nge_search.genotype import PUBLISHED, SPACE, Genotype
from nge_search.json_reader import read_json

#: Where the spaces are defined, by their names in JSON.
SPACES = {
    SPACE: "nge_search.spaces.darts:DartsSpace",
    "nasbench101": "nge_search.spaces.nasbench101:NasBench101Space",
    "nasbench201": "nge_search.spaces.nasbench201:NasBench201Space",
}

_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Architecture:
    """An architecture that was read.

    Attributes:
        space: the name of its space.
        graphs: its cells, by kind.
        text: its notation, on one line; of a cell in DARTS' notation the JSON object.
        document: its JSON object.
        genotype: the two cells in DARTS' notation, where it has it.
    """

    space: str
    graphs: dict[str, Graph]
    text: str
    document: dict[str, Any]
    genotype: Genotype | None = None


def load_architecture(reference: str | Path) -> Architecture:
    """The architecture that a published name (`darts_v2`), a JSON file, or a run folder stands for.

    Raises:
        UserError: neither, or a malformed one.
    """
    text = str(reference)
    if not text.isprintable():
        raise UserError(f"architecture {shorten(text)}: control characters are not allowed in a name or path")
    name = text.lower().replace("-", "_")
    if name in PUBLISHED:
        return of_genotype(PUBLISHED[name])
    path = Path(text)
    path = path / "genotype.json" if path.is_dir() else path
    if not path.exists():
        raise UserError(
            f"'{plain(text)}' is neither a file, a run folder with a genotype.json, nor one of "
            f"{', '.join(PUBLISHED)}{nearest(name, PUBLISHED)}"
        )
    return read_architecture(read_json(path, _LARGEST_BYTES), str(path))


def read_architecture(document: Any, source: str = "architecture") -> Architecture:
    """The architecture of a decoded JSON object; `source` names it in messages.

    Raises:
        UserError: no architecture, or one of a space that is unknown.
    """
    space = document.get("space") if isinstance(document, dict) else None
    if not isinstance(space, str) or space == SPACE:
        return of_genotype(Genotype.from_dict(document, source))
    if space not in SPACES:
        raise UserError(f"{source}: space {shorten(space)} is unknown; known are {', '.join(SPACES)}")
    module, _, name = SPACES[space].partition(":")
    found = getattr(importlib.import_module(module), name)()
    try:
        code = found.parse(found.notation(document))
        return Architecture(space, found.graphs(code), found.text(code), document)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def of_genotype(genotype: Genotype) -> Architecture:
    """The architecture whose cells are in DARTS' notation."""
    document = genotype.to_dict()
    return Architecture(SPACE, genotype.graphs(), genotype.to_json(), document, genotype)
