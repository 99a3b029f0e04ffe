"""Whatever names a network to be looked for: one of the corpus, of a library, of a search, or of a user's own file.

A module file is code, and to read it is to carry it out: that happens only where its user says that it may be
trusted.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nge_search.architecture.graph import Graph
from nge_search.architecture.load import Architecture, is_notation, load_architecture
from nge_search.errors import UserError, plain
from nge_search.files import user_path
from nge_search.retrieve.architecture_graphs import trace_architecture
from nge_search.retrieve.corpus import Corpus, Entry
from nge_search.retrieve.extraction import Inputs, Traced, images, trace
from nge_search.retrieve.sources import LIBRARIES, open_library

_MODULE = re.compile(r"(?P<file>.+\.py):(?P<factory>[A-Za-z_]\w*)")
_LONGEST = 250
#: Of the networks that are trained of DARTS' cells, the one that is like published networks in stem and strides.
_NETWORKS = {"darts": "imagenet"}


@dataclass(frozen=True)
class AskedNetwork:
    """A network to be looked for.

    Attributes:
        name: what it is called.
        graph: traced.
        parameters, multiply_adds: as of `Traced`.
        entry: of the corpus, that has its graph by its name; None: it is not there.
        family, task: as its library says; empty where none does.
    """

    name: str
    graph: Graph
    parameters: int
    multiply_adds: int
    entry: Entry | None = None
    family: str = ""
    task: str = ""


def asked_network(
    text: str,
    corpus: Corpus,
    network: str | None = None,
    shape: Sequence[int] = (),
    trust_code: bool = False,
) -> AskedNetwork:
    """The network that a text names.

    Args:
        text: a name of the corpus, "library:name" of an installed library, "file.py:factory", or whatever names a
            searched architecture: a published genotype, a notation, a JSON file, a run folder.
        network: kind of network that an architecture's cells are stacked into; None: that for ImageNet, if its
            space has one.
        shape: of an example, [C, H, W], for networks of files that do not say what they are called with.
        trust_code: files of modules may be imported.

    Raises:
        UserError: nothing that it names, a file that may not be imported, or a network that cannot be traced.
    """
    if text in corpus.by_name:
        entry = corpus.find(text)
        own = next(one for one in entry.networks if text in (one.name, f"{one.library}:{one.name}"))
        name = f"{own.library}:{own.name}"
        return AskedNetwork(name, entry.graph, own.parameters, own.multiply_adds, entry, own.family, own.task)
    if found := _MODULE.fullmatch(text):
        traced = _of_file(user_path(found["file"]), found["factory"], shape, trust_code)
        return AskedNetwork(f"{Path(found['file']).name}:{found['factory']}", *_parts(traced))
    library, colon, name = text.partition(":")
    if colon and library in LIBRARIES:
        return _of_library(library, name)
    try:
        architecture = load_architecture(text)
    except UserError as error:
        raise _unknown(text, corpus, error) from None
    return of_architecture(architecture, plain(text, _LONGEST), network)


def asked_module(module: nn.Module, inputs: Inputs | None = None) -> AskedNetwork:
    """A module that is at hand; `inputs` as of `trace`."""
    if not isinstance(module, nn.Module):
        raise UserError(f"a network is a torch module, or a text that names one, not {type(module).__name__}")
    return AskedNetwork(type(module).__name__, *_parts(trace(module, inputs)))


def of_architecture(architecture: Architecture, name: str, network: str | None = None) -> AskedNetwork:
    """The network of an architecture's cells; `network` as of `asked_network`."""
    traced = trace_architecture(architecture, network or _NETWORKS.get(architecture.space))
    return AskedNetwork(name, *_parts(traced))


def _parts(traced: Traced) -> tuple[Graph, int, int]:
    return traced.graph, traced.parameters, traced.multiply_adds


def _unknown(text: str, corpus: Corpus, error: UserError) -> UserError:
    """The one line for what names nothing; a file that is there, but no architecture, is told by its own."""
    if is_notation(text) or os.path.exists(user_path(text)):
        return error
    try:
        corpus.find(text)
    except UserError as of_corpus:
        return UserError(
            f"{of_corpus}; it may also be LIBRARY:NAME of {', '.join(LIBRARIES)}, FILE.py:FACTORY, a genotype or a "
            "run folder"
        )
    return error


def _of_library(place: str, name: str) -> AskedNetwork:
    library = open_library(place)
    if name not in library.names():
        raise UserError(f"{place} {library.version()} has no network '{plain(name)}'")
    try:
        module, inputs = library.build(name)
    except UserError as error:
        raise UserError(f"{place}:{plain(name)} cannot be traced: {error}") from None
    except Exception as error:  # a constructor of any origin raises anything
        raise UserError(f"{place}:{plain(name)} cannot be built: {_first_line(error)}") from None
    origin = library.origin(name)
    return AskedNetwork(f"{place}:{name}", *_parts(trace(module, inputs)), family=origin.family, task=origin.task)


def _of_file(path: Path, factory: str, shape: Sequence[int], trust_code: bool) -> Traced:
    """The network that a function of a file returns, alone or with what it is called with."""
    if not path.is_file():
        raise UserError(f"'{plain(str(path), _LONGEST)}' is no file; give FILE.py:FACTORY")
    if not trust_code:
        raise UserError(
            f"'{plain(str(path), _LONGEST)}' is code, which would be carried out; add --trust-code if you trust it"
        )
    try:
        made = getattr(_imported(path), factory)()
    except Exception as error:  # code of any origin raises anything
        raise UserError(f"'{plain(str(path), _LONGEST)}': {factory}() fails: {_first_line(error)}") from None
    module, given = (made[0], made[1:]) if isinstance(made, tuple) and made else (made, ())
    if not isinstance(module, nn.Module):
        raise UserError(
            f"'{plain(str(path), _LONGEST)}': {factory}() returns {type(module).__name__}, not a torch module"
        )
    return trace(module, _inputs(given) if given else images(*shape))


def _inputs(given: Sequence[Any]) -> Inputs:
    """What a factory returns behind its module: positional arguments, the last of them names with arguments."""
    words = given[-1] if isinstance(given[-1], Mapping) else {}
    args = tuple(given[:-1] if words else given)
    first = next((value for value in (*args, *words.values()) if isinstance(value, Tensor) and value.dim()), None)
    return Inputs(args, words, 1 if first is None else max(1, len(first)))


def _imported(path: Path) -> Any:
    """A file as a module; modules beside it can be imported by it, as when it is run."""
    spec = importlib.util.spec_from_file_location(f"asked_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # data classes look their module up
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.path[0]
    return module


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {plain(lines[0], _LONGEST)}" if lines else type(error).__name__
