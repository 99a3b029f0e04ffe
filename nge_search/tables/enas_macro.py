"""ENAS' macro networks and their accuracies with shared weights, as they were published with D-VAE, in a CSV."""

from __future__ import annotations

from pathlib import Path

from nge_search.spaces import Code, EnasMacroSpace
from nge_search.tables.csv_rows import convert_rows
from nge_search.tables.table import Table, build_table

#: The figure: an accuracy in percent with weights that all networks share, none of which was trained by itself.
COLUMN = "cifar10_weight_sharing"


def read_structures(path: Path) -> Table:
    """The table of a CSV with `structure_json` and `ws_accuracy`, a share; structures that stand twice are repeats.

    Raises:
        UserError: a structure that is none, or an accuracy that is no number; names the line.
    """
    space = EnasMacroSpace()

    def convert(row: dict[str, str]) -> tuple[Code, float]:
        return space.parse(row["structure_json"]), 100 * float(row["ws_accuracy"])

    found: dict[Code, list[float]] = {}
    for code, accuracy in convert_rows(path, convert):
        found.setdefault(code, []).append(accuracy)
    rows = ((code, {COLUMN: accuracies}) for code, accuracies in found.items())
    source = f"{path.name} (accuracies with shared weights, not of trained networks)"
    return build_table(space, rows, source, "structure of ENAS' macro space")
