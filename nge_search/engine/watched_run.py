"""A run from Python: what `on_epoch` is called with after every epoch, and what a run folder is read as.

Legend: T epochs, E edges of a cell, O operations.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nge_search import kinds
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.load import Architecture, read_architecture
from nge_search.engine.run_reader import Row, RunReader
from nge_search.errors import UserError, shorten
from nge_search.kinds import CONFIG, METRICS
from nge_search.registry import resolve

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

_P = "p_"


class Run:
    """One run, after an epoch, or as its folder has it.

    Attributes:
        folder: the run folder.
        stopped: whether `stop` was called.
    """

    def __init__(self, folder: str | Path, row: Row | None = None, networks: Mapping[str, nn.Module] | None = None):
        """Use `Run.load` for a folder.

        Args:
            row: of the epoch that has just ended, as in metrics.jsonl; None: the last one recorded there.
            networks: what is being trained; None: it is made from the last checkpoint when it is asked for.
        """
        if not isinstance(folder, (str, os.PathLike)):
            raise UserError(f"{shorten(folder)} is not the path of a run folder, such as runs/search/digits")
        self._reader = RunReader(folder)
        self._row = None if row is None else {**row, "epoch": row["epoch"] + 1}
        self._networks = networks
        self.folder, self.stopped = self._reader.path, False

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run in a folder, finished or not; it may be running.

        Raises:
            UserError: no folder of a run, or one whose files are damaged.
        """
        run = cls(folder)
        if not run.folder.is_dir():
            raise UserError(f"'{run.folder}' is not a folder; give the folder of a run, such as runs/search/digits")
        if not any((run.folder / name).is_file() for name in (CONFIG, METRICS)):
            raise UserError(f"'{run.folder}' holds neither {CONFIG} nor {METRICS}; it is not the folder of a run")
        return run

    @property
    def kind(self) -> str:
        """What kind of run it is: "search", "eval", "segmentation" ..."""
        return self._reader.kind

    @cached_property
    def history(self) -> tuple[Row, ...]:
        """The rows of metrics.jsonl; their "epoch" is counted from 1."""
        return tuple({**row, "epoch": _whole(row["epoch"])} for row in self._reader.rows)

    @property
    def metrics(self) -> Row:
        """The figures of the last epoch, by name, as in metrics.jsonl; empty before the first has ended."""
        if self._row is None:
            return self.history[-1] if self.history else {}
        return self._row

    @property
    def epoch(self) -> int:
        """The number of the last epoch, counted from 1: how many have ended."""
        return int(self.metrics.get("epoch", 0))

    @property
    def epochs(self) -> int | None:
        """How many epochs were planned; None where the settings do not say, or a run has no epochs."""
        known = kinds.find(self.kind)
        planned = self._reader.setting(known.unit[2]) if known is not None and self.unit == "epoch" else None
        return planned if type(planned) is int else None

    @property
    def unit(self) -> str:
        """What a row of metrics.jsonl is of: "epoch", "query" ..."""
        known = kinds.find(self.kind)
        return "epoch" if known is None else known.unit[0]

    @property
    def summary(self) -> dict[str, Any] | None:
        """What a finished run came to; None while it is unfinished."""
        return self._reader.summary if self._row is None else None

    @property
    def settings(self) -> dict[Any, Any]:
        """The settings in config.yaml, as nested dictionaries."""
        return self._reader.config or {}

    @property
    def architecture(self) -> Architecture | None:
        """What the search stands for after the epoch, has found, or what is trained; None where there is none."""
        document = None if self._row is None else self._row.get("genotype")
        if document is None:
            return self._reader.architecture
        return read_architecture(document, f"{self.folder / METRICS}, epoch {self.epoch}")

    @property
    def genotype(self) -> Genotype | dict[str, Any] | None:
        """`architecture` as a genotype, or, of other spaces than DARTS', as its JSON object."""
        found = self.architecture
        return None if found is None else found.genotype or found.document

    # -- the probabilities of a search's operations

    @property
    def cells(self) -> tuple[str, ...]:
        """The kinds of cell that have probabilities: ("normal", "reduce"), ("cell",) or none."""
        return tuple(key[len(_P) :] for key in self.metrics if key.startswith(_P))

    @property
    def operations(self) -> tuple[str, ...]:
        """What the columns of P are."""
        return tuple(self._list("operations", str))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """What the rows of P are: (source, target), where nodes 0 and 1 are the inputs of DARTS' cells."""
        edges = self._list("edges", list)
        if not all(len(edge) == 2 and all(type(node) is int for node in edge) for edge in edges):
            raise UserError(f"{self.folder / METRICS} is damaged: 'edges' are not pairs of nodes")
        return tuple((source, target) for source, target in edges)

    @property
    def p(self) -> dict[str, np.ndarray]:
        """The probabilities of operations by kind of cell: float64 [E, O]. Empty where nothing is searched."""
        return {cell: self._matrix(self.metrics, cell) for cell in self.cells}

    def edge(self, source: int, target: int, cell: str = "") -> dict[str, float]:
        """The probability of every operation on an edge.

        Args:
            cell: the kind of cell; empty: the first, which in DARTS' space is the normal one.

        Raises:
            UserError: no such edge or cell, or a run that has no probabilities.
        """
        p_EO = self._matrix(self.metrics, self._cell(cell))
        if (source, target) not in self.edges:
            raise UserError(f"there is no edge ({source}, {target}); edges are {', '.join(map(str, self.edges))}")
        return dict(zip(self.operations, p_EO[self.edges.index((source, target))].tolist()))

    def trace(self, cell: str = "") -> np.ndarray:
        """P after every epoch that `history` has: float64 [T, E, O]. Arguments and errors as for `edge`."""
        import numpy as np

        name = self._cell(cell)
        return np.stack([self._matrix(row, name) for row in self.history])

    def _cell(self, cell: str) -> str:
        if not self.cells:
            raise UserError(f"'{self.folder}' has no probabilities of operations, which searches by gradients have")
        if cell and cell not in self.cells:
            raise UserError(f"cell {shorten(cell)}: there are {', '.join(self.cells)}")
        return cell or self.cells[0]

    def _matrix(self, row: Row, cell: str) -> np.ndarray:
        import numpy as np

        shape = len(self.edges), len(self.operations)
        try:
            p_EO = np.array(row[f"{_P}{cell}"], dtype=np.float64)
        except (LookupError, TypeError, ValueError, OverflowError):
            p_EO = np.empty(0)
        if p_EO.shape != shape or not np.isfinite(p_EO).all():
            raise UserError(f"{self.folder / METRICS} is damaged: '{_P}{cell}' is no matrix of {shape} numbers")
        return p_EO

    def _list(self, key: str, of: type) -> list[Any]:
        found = self.metrics.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, of) for one in found):
            raise UserError(f"{self.folder / METRICS} is damaged: '{key}' is {shorten(found)}")
        return found

    # -- what is trained

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """What is being trained, by name.

        In `on_epoch` they are the modules themselves, in evaluation mode: a search's "supernet" and "embedding", a
        training's "network" (which gives logits and auxiliary logits) and, where weights are averaged, "ema"; what
        is differentiated or switched there is undone afterwards. Of a folder it is the "network" of a training by
        its last checkpoint, on the CPU, in evaluation mode: a timm model, or DeepLabv3.

        Raises:
            UserError: of a folder, that of another kind of run, or one without a checkpoint.
        """
        if self._networks is None:
            known = kinds.find(self.kind)
            if known is None or not known.network:
                raise UserError(f"'{self.folder}' is not the folder of a training, whose network can be made again")
            self._networks = {"network": resolve(known.network)(self.folder)}
        return self._networks

    def stop(self) -> None:
        """End the run after this epoch, or after the next where this one was not evaluated; it then has finished.

        Raises:
            UserError: of a run that was loaded from its folder.
        """
        if self._row is None:
            raise UserError(f"'{self.folder}' was loaded; only `on_epoch` can stop a run")
        self.stopped = True

    def lenient(self) -> Run:
        """The same run, from whose folder what cannot be read is left out."""
        run = Run(self.folder, networks=self._networks)
        run._reader, run._row = RunReader(self.folder, lenient=True), self._row
        return run

    def __repr__(self) -> str:
        run = self.lenient()
        try:
            of = "" if run.epochs is None else f" of {run.epochs}"
            known = f"{run.kind or 'of an unknown kind'}, after {run.unit} {run.epoch}{of}"
        except UserError:  # of the system: a folder that may not be read
            known = "cannot be read"
        return f"<Run '{self.folder}': {known}>"

    def _repr_html_(self) -> str:
        return resolve("nge_search.report.notebook:run_html")(self)


def _whole(epoch: float) -> float:
    """A whole number as an int; a run folder may hold others."""
    return int(epoch) if epoch == int(epoch) else epoch
