"""Cells drawn by link models that were trained, and the files that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.design.generator import Distinct
from nge_search.design.growth import Rules
from nge_search.design.record import document
from nge_search.design.saved import SavedLinks
from nge_search.files import write_json
from nge_search.kinds import DRAWN, DRAWN_CELLS, DRAWN_SHEET
from nge_search.recipes import train_command
from nge_search.registry import resolve

#: Cells that are printed.
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Drawn:
    """Cells that were drawn.

    Attributes:
        rules: of the cells.
        found: the cells, and their draws.
        document: for `DRAWN`: the cells, how each grew, what taught.
        provenance: what the files of cells say of where they come from.
    """

    rules: Rules
    found: Distinct
    document: dict[str, Any]
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.found.codes)

    def to_list(self) -> list[dict[str, Any]]:
        """Of each cell its JSON object, as architectures are written everywhere."""
        return [
            self.rules.space.to_dict(code, {**self.provenance, "draw": number})
            for code, number in zip(self.found.codes, self.found.numbers)
        ]

    def write(self, folder: Path) -> list[Path]:
        """Write each cell into a file of its own, all of them as a picture, and how they grew; the paths."""
        paths = [folder / name for name in files_of(len(self))]
        for path, cell in zip(paths, self.to_list()):
            write_json(path, cell)
        titled = [
            (f"{rank}. (draw {number + 1})", self.rules.space.graphs(code))
            for rank, (code, number) in enumerate(zip(self.found.codes, self.found.numbers), 1)
        ]
        resolve("nge_search.report:save_sheet")(titled, *paths[len(self) : -1])
        write_json(paths[-1], self.document)
        return paths

    @property
    def texts(self) -> list[str]:
        """Of each cell its notation."""
        return list(map(self.rules.space.text, self.found.codes))


def files_of(count: int) -> tuple[str, ...]:
    """Names of the files that so many cells become."""
    return (*DRAWN_CELLS[:count], *DRAWN_SHEET, DRAWN)


def cell_lines(texts: Sequence[str], draws: int, space: str, folder: Path | None) -> list[str]:
    """What is printed of drawn cells.

    Args:
        texts: of each its notation.
        space: the name of their space.
        folder: that they were written into.
    """
    lines = [f"{len(texts)} different cells of {space} in {draws} draws"]
    if folder is None:
        return [*lines, *texts]
    shown = [f"{folder / name}  {text}" for name, text in zip(DRAWN_CELLS, texts[:_MOST_SHOWN])]
    return [
        *lines,
        *shown,
        f"drew {folder / DRAWN_SHEET[0]}",
        f"train one: {train_command(folder / DRAWN_CELLS[0], space)}",
    ]


def draw(saved: SavedLinks, count: int, seed: int, new: bool = True) -> Drawn:
    """Different cells, by link models; the same for the same seed.

    Args:
        new: none of them is one of those that taught.

    Raises:
        UserError: there are not as many in 200 draws for each.
    """
    generator, known = saved.generator(seed), set[bytes]()
    if new and saved.into.space.name == saved.rules.space.name:
        known = {saved.into.key(code) for code in (*saved.good, *saved.bad)}
    found = generator.distinct(count, known)
    provenance = {"method": "design", "taught_by": saved.lesson.source, "seed": seed}
    written = document(saved.into, generator, found, saved.rules, saved.good, saved.bad)
    return Drawn(saved.into, found, written, provenance)
