"""Whatever names an architecture: a published name, a notation, a file, a run folder; of any space."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nge_search.architecture import foreign
from nge_search.architecture.genotype import LARGEST_FILE, PUBLISHED, SPACE, Genotype
from nge_search.architecture.graph import Graph
from nge_search.errors import UserError, nearest, plain, shorten
from nge_search.files import read_text, user_path
from nge_search.kinds import GENOTYPE
from nge_search.registry import resolve
from nge_search.settings import names

#: Names of files that are compared with one that is not there.
_MOST_BESIDE = 1000


class KnownSpace(NamedTuple):
    """Where a space is defined, as "module:class", and what its notation begins with, which no path does."""

    place: str
    notation: re.Pattern[str]


#: By their names in JSON.
SPACES = {
    SPACE: KnownSpace(
        "nge_search.spaces.darts:DartsSpace", re.compile(rf"\s*(?:(?:\[\s*)?\{{|{foreign.NOTATION})")
    ),
    "nasbench101": KnownSpace("nge_search.spaces.nasbench101:NasBench101Space", re.compile(r"\s*[01]+ input\b")),
    "nasbench201": KnownSpace("nge_search.spaces.nasbench201:NasBench201Space", re.compile(r"\s*\|")),
    "enas_macro": KnownSpace("nge_search.spaces.enas_macro:EnasMacroSpace", re.compile(r"\s*\[\s*\[")),
}
names.require_names(SPACES, names.SPACES)


@dataclass(frozen=True)
class Architecture:
    """An architecture that was read or derived.

    Attributes:
        space: the name of its space.
        graphs: its cells, by kind.
        document: its JSON object.
        text: its notation, on one line; empty in DARTS' space, whose notation is the JSON object.
        genotype: the two cells in DARTS' notation, where it has it.
        source: what it was read from, for messages.
    """

    space: str
    graphs: dict[str, Graph]
    document: dict[str, Any]
    text: str = ""
    genotype: Genotype | None = None
    source: str = field(default="the architecture", compare=False)

    def _repr_svg_(self) -> str:
        """What notebooks show."""
        return resolve("nge_search.report.notebook:cells_svg")(self.graphs)


#: What may stand for an architecture; tuples are of DARTS' own class of genotypes, which has names.
Reference = str | Path | Mapping[str, Any] | tuple[Any, ...]


def load_architecture(reference: Reference) -> Architecture:
    """The architecture that a published name (`darts_v2`), a notation, a file, or a run folder stands for.

    A file, or the notation of DARTS' space, is our JSON or what `nge_search.architecture.foreign` reads. From
    Python it may also be the object or the dictionary itself.

    Raises:
        UserError: none of them, or a malformed one.
    """
    if isinstance(reference, tuple):
        reference = _named_parts(reference)
    if isinstance(reference, Mapping):
        return read_architecture(dict(reference))
    text = str(reference)
    space = next((name for name, known in SPACES.items() if known.notation.match(text)), None)
    if space == SPACE:
        return parse_architecture(text)
    if space is not None:
        return _of_space(space, text, plain(text))
    if not text.isprintable():
        raise UserError(
            f"architecture {shorten(text)}: control characters are not allowed in a name or path; of a text of "
            "several lines, give the file"
        )
    name = text.lower().replace("-", "_")
    if name in PUBLISHED:
        return of_genotype(PUBLISHED[name], name)
    path = user_path(text)
    path = path / GENOTYPE if path.is_dir() else path
    if not path.exists():
        hint = nearest(name, PUBLISHED) or nearest(path.name, _beside(path))
        raise UserError(
            f"architecture '{plain(text, 250)}' does not exist: it is neither a file, a run folder with a "
            f"genotype.json, the notation of a space, nor one of {', '.join(PUBLISHED)}{hint}"
        )
    return parse_architecture(read_text(path, LARGEST_FILE), str(path))


def is_notation(text: str) -> bool:
    """Whether a text begins as an architecture in the notation of some space, and thus names no file."""
    return any(known.notation.match(text) for known in SPACES.values())


def parse_architecture(text: str, source: str = "architecture") -> Architecture:
    """The architecture of a text in JSON, as Python prints a dictionary, or as DARTS prints a genotype.

    Raises:
        UserError: none of them, or no architecture; names `source`.
    """
    if foreign.is_printed(text):
        return of_genotype(foreign.printed_genotype(text, source), source)
    return read_architecture(foreign.read_document(text, source), source)


def load_genotype(reference: Reference) -> Genotype:
    """The genotype that a published name, a file, a notation or a run folder stands for; see `load_architecture`.

    Raises:
        UserError: none of them, a malformed one, or an architecture of another space than DARTS'.
    """
    architecture = load_architecture(reference)
    if architecture.genotype is None:
        raise UserError(
            f"{architecture.source}: a cell of {architecture.space} is not in DARTS' notation; `nge table TABLE "
            f"--find` looks its accuracy up, network.kind={architecture.space} trains it"
        )
    return architecture.genotype


def read_architecture(document: Any, source: str = "architecture") -> Architecture:
    """The architecture of a decoded JSON object, ours or another program's; `source` names it in messages.

    Raises:
        UserError: no architecture, or one of a space that is unknown.
    """
    document = foreign.translated(document, source)
    space = document.get("space") if isinstance(document, dict) else None
    if not isinstance(space, str) or space == SPACE:
        return of_genotype(Genotype.from_dict(document, source), source)
    if space not in SPACES:
        known = ", ".join(f"'{name}'" for name in SPACES)
        raise UserError(f"{source}: space {shorten(space)} is unknown; known are {known}")
    try:
        found = _of_space(space, str(document.get("architecture")), source)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return dataclasses.replace(found, document=document)


def of_genotype(genotype: Genotype, source: str = "the genotype") -> Architecture:
    """The architecture whose cells are in DARTS' notation."""
    return Architecture(SPACE, genotype.graphs(), genotype.to_dict(), genotype=genotype, source=source)


def _of_space(name: str, text: str, source: str) -> Architecture:
    """The architecture in the notation of a space."""
    space = resolve(SPACES[name].place)()
    return dataclasses.replace(space.architecture(space.parse(text)), source=source)


def _beside(path: Path) -> list[str]:
    """Names of what is where a file or folder was looked for."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        return sorted(entry.name for entry in itertools.islice(entries, _MOST_BESIDE))
    return []


def _named_parts(reference: tuple[Any, ...]) -> dict[str, Any]:
    """What a named tuple holds, by name."""
    names = getattr(reference, "_fields", None)
    if not isinstance(names, tuple) or len(names) != len(reference):
        raise UserError(f"a genotype is a tuple with names, as DARTS has it, not {shorten(reference)}")
    return dict(zip(map(str, names), reference))
