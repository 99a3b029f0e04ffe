"""`nge retrieve query` and `nge retrieve add`: what a catalogue of networks is good for, from the command line."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nge_search.commands.parser import Parser, given_path, require_between, require_free
from nge_search.console import show
from nge_search.errors import UserError, plain
from nge_search.registry import resolve

if TYPE_CHECKING:
    from nge_search.retrieve.asked_network import AskedNetwork
    from nge_search.retrieve.catalogue import Catalogue

#: Networks that a query gives at most.
_MOST = 1000
_SHAPE = re.compile(r"\d{1,5}(,\d{1,5}){0,4}")
#: What the corpus calls the library of networks that users add.
OWN_LIBRARY = "own"

_NETWORK = (
    "network: a name of the corpus, LIBRARY:NAME, FILE.py:FACTORY, or an architecture (published name, notation, "
    "JSON file, run folder)"
)


def query(words: Sequence[str]) -> None:
    """`nge retrieve query`: print the known networks that are most like one."""
    parser = Parser(
        prog="nge retrieve query", description="The published networks that are most like one, and why."
    )
    parser.add_argument("network", help=_NETWORK)
    parser.add_argument("--top", type=int, default=10, help="number of networks to print (10)")
    parser.add_argument("--task", default="", help="task that they are made for, such as classification (any)")
    parser.add_argument(
        "--report", type=given_path, metavar="FILE", help="HTML file to write what was found into, with a map"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --report names")
    _add_source(parser)
    options = parser.parse_args(words)
    require_between("top", options.top, 1, _MOST)
    page = Path(options.report) if options.report else None
    require_free([page] if page else [], options.overwrite)
    from nge_search.retrieve.query import ask

    catalogue = _catalogue(options)
    answered = ask(catalogue, _asked(options.network, catalogue, options), options.top, options.task)
    lines = json.dumps(answered.to_dict(), indent=2).splitlines() if options.json else answered.lines()
    if page is not None:
        resolve("nge_search.report.pages.retrieve_query:write_page")(answered, page)
        lines += [] if options.json else [f"wrote {page}"]
    show(*lines)


def add(words: Sequence[str]) -> None:
    """`nge retrieve add`: write a catalogue with more networks, without training anything."""
    parser = Parser(
        prog="nge retrieve add", description="Networks that later queries find, too; nothing is trained."
    )
    parser.add_argument("network", help=_NETWORK)
    parser.add_argument(
        "--out", type=given_path, required=True, metavar="FOLDER", help="folder to write the larger catalogue into"
    )
    parser.add_argument("--name", help="name that queries find the network by (as it is given)")
    parser.add_argument("--family", default="", help="family that the network is of (its library's, or its name)")
    parser.add_argument("--task", default="", help="task that the network is made for (its library's, or none)")
    parser.add_argument("--overwrite", action="store_true", help="replace the catalogue in FOLDER")
    _add_source(parser)
    options = parser.parse_args(words)
    out = Path(options.out)
    from nge_search.files import new_folder
    from nge_search.retrieve.catalogue import FILES
    from nge_search.retrieve.corpus import Network

    require_free((out / name for name in FILES), options.overwrite)
    catalogue = _catalogue(options)
    asked = _asked(options.network, catalogue, options)
    name = options.name or asked.name
    network = Network(
        name,
        OWN_LIBRARY,
        options.family or asked.family or name,
        options.task or asked.task,
        asked.parameters,
        asked.multiply_adds,
    )
    larger = catalogue.added([network], [asked.graph])
    try:
        with new_folder(out):
            larger.write(out)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"'{out}' is no folder; choose another path") from None
    show(
        f"wrote {len(larger.corpus)} graphs into {out}, {OWN_LIBRARY}:{plain(name)} among them",
        f"ask it: nge retrieve query NETWORK --catalogue {out}",
    )


def _add_source(parser: argparse.ArgumentParser) -> None:
    """What both commands take: what is asked, and how the network is called."""
    parser.add_argument(
        "--catalogue",
        type=given_path,
        metavar="FOLDER",
        help="folder of nge retrieve train or add to ask (what ships)",
    )
    parser.add_argument(
        "--network", dest="kind", help="kind of network that an architecture's cells are stacked into"
    )
    parser.add_argument(
        "--input", default="", metavar="C,H,W", help="shape of an example, for a network of FILE.py (3,224,224)"
    )
    parser.add_argument("--trust-code", action="store_true", help="carry out the code of FILE.py")


def _catalogue(options: argparse.Namespace) -> Catalogue:
    from nge_search.retrieve.catalogue import open_catalogue

    return open_catalogue(options.catalogue)


def _asked(text: str, catalogue: Catalogue, options: argparse.Namespace) -> AskedNetwork:
    from nge_search.retrieve.asked_network import asked_network

    if options.input and not _SHAPE.fullmatch(options.input):
        raise UserError(f"--input={plain(options.input)}: give the sides of an example, as 3,224,224")
    shape = [int(side) for side in options.input.split(",")] if options.input else []
    if not all(shape):
        raise UserError(f"--input={options.input}: sides are above 0")
    return asked_network(text, catalogue.corpus, options.kind, shape, options.trust_code)
