"""Whatever names an architecture: a published name, a notation, a JSON file, a run folder; of any space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.architecture.genotype import LARGEST_FILE, PUBLISHED, SPACE, Genotype
from nge_search.architecture.graph import Graph
from nge_search.errors import UserError, nearest, plain, shorten
from nge_search.files import read_text, user_path
from nge_search.json_reader import parse_json
from nge_search.registry import resolve

#: Where the spaces are defined, by their names in JSON.
SPACES = {
    SPACE: "nge_search.spaces.darts:DartsSpace",
    "nasbench101": "nge_search.spaces.nasbench101:NasBench101Space",
    "nasbench201": "nge_search.spaces.nasbench201:NasBench201Space",
}


#: What tells the notation of a space from a path.
_NOTATIONS = {"nasbench201": "~0|", "nasbench101": " input,"}


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

    @property
    def cells(self) -> Genotype | dict[str, Graph]:
        """What a network is stacked from."""
        return self.graphs if self.genotype is None else self.genotype


def load_architecture(reference: str | Path) -> Architecture:
    """The architecture that a published name (`darts_v2`), a notation, a JSON file, or a run folder stands for.

    Raises:
        UserError: none of them, or a malformed one.
    """
    text = str(reference)
    if not text.isprintable():
        raise UserError(f"architecture {shorten(text)}: control characters are not allowed in a name or path")
    name = text.lower().replace("-", "_")
    if name in PUBLISHED:
        return of_genotype(PUBLISHED[name])
    space = next((space for space, mark in _NOTATIONS.items() if mark in text), None)
    if space is not None:
        return _in_space(space, text, None)
    path = user_path(text)
    path = path / "genotype.json" if path.is_dir() else path
    if not path.exists():
        raise UserError(
            f"architecture '{plain(text)}' is neither a file, a run folder with a genotype.json, nor one of "
            f"{', '.join(PUBLISHED)}{nearest(name, PUBLISHED)}"
        )
    return read_architecture(parse_json(read_text(path, LARGEST_FILE), str(path)), str(path))


def read_architecture(document: Any, source: str = "architecture") -> Architecture:
    """The architecture of a decoded JSON object; `source` names it in messages.

    Raises:
        UserError: no architecture, or one of a space that is unknown.
    """
    space = document.get("space") if isinstance(document, dict) else None
    if not isinstance(space, str) or space == SPACE:
        return of_genotype(Genotype.from_dict(document, source))
    if space not in SPACES:
        known = ", ".join(f"'{name}'" for name in SPACES)
        raise UserError(f"{source}: space {shorten(space)} is unknown; known are {known}")
    try:
        return _in_space(space, None, document)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _in_space(name: str, text: str | None, document: dict[str, Any] | None) -> Architecture:
    """An architecture in the notation of a space, or in its JSON object."""
    space = resolve(SPACES[name])()
    code = space.parse(space.notation(document) if text is None else text)
    return Architecture(name, space.graphs(code), space.text(code), document or space.to_dict(code))


def of_genotype(genotype: Genotype) -> Architecture:
    """The architecture whose cells are in DARTS' notation."""
    document = genotype.to_dict()
    return Architecture(SPACE, genotype.graphs(), genotype.to_json(), document, genotype)
