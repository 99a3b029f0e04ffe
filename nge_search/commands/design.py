"""`nge design draw`: cells by link models that were trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nge_search.commands.parser import Parser, given_path, require_between, require_free
from nge_search.console import show
from nge_search.settings.design import MOST_CELLS
from nge_search.settings.names import SPACES


def draw(words: Sequence[str]) -> None:
    """`nge design draw`."""
    parser = Parser(prog="nge design draw", description="New cells, drawn link by link by a trained link model.")
    parser.add_argument("run", type=given_path, help="run folder of nge design train")
    parser.add_argument("-n", type=int, default=10, help="number of different cells to draw (10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws; another one gives others (0)")
    parser.add_argument(
        "--space", choices=SPACES, default="", help="space of the cells (the one that the model was trained for)"
    )
    parser.add_argument("--known", action="store_true", help="draw cells that taught the model, too")
    parser.add_argument(
        "--out", type=given_path, metavar="FOLDER", help="folder to write the cells and their drawings into"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier draw left in FOLDER")
    parser.add_argument("--json", action="store_true", help="print the cells as JSON")
    options = parser.parse_args(words)
    require_between("n", options.n, 1, MOST_CELLS)
    require_between("seed", options.seed, 0, 2**31 - 1)
    from nge_search.design.drawing import cell_lines, files_of
    from nge_search.design.drawing import draw as draw_cells
    from nge_search.design.saved import load_links

    folder = Path(options.out) if options.out else None
    if folder is not None:
        require_free((folder / name for name in files_of(options.n)), options.overwrite)
    saved = load_links(options.run, options.space)
    drawn = draw_cells(saved, options.n, options.seed, not options.known)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        drawn.write(folder)
    if options.json:
        cells = {"model": saved.describe(), "draws": drawn.found.draws, "cells": drawn.to_list()}
        show(*json.dumps(cells, indent=2).splitlines())
        return
    show(saved.describe(), *cell_lines(drawn.texts, drawn.found.draws, drawn.rules.space.name, folder))
