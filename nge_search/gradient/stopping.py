"""When a search ends before its last epoch: once its cell holds too many of some operations (DARTS+).

Liang et al. (2019) stop when the derived normal cell has two or more skip connections. As P may take many of them
in one epoch, what is kept is the last epoch's cells that had fewer. So a search does not stop before some epoch has
had fewer: a P that has hardly moved derives any number of them, and there would be nothing to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nge_search.architecture.graph import PLAIN
from nge_search.errors import UserError
from nge_search.json_reader import Reader
from nge_search.settings.search import SearchSection
from nge_search.spaces import EdgeSpace


class EarlyStop:
    """Whether a search has come to its limit, and what it had found before.

    Attributes:
        epochs: how many the search had, once it was stopped; else 0.
        kept: the document of the last epoch whose cells were within the limit, of those in which P learned.
        count: how many of the operations there were when it was stopped.
    """

    def __init__(self, settings: SearchSection, space: EdgeSpace):
        self.settings, self.space = settings, space
        self.epochs = self.count = 0
        self.kept: dict[str, Any] | None = None

    def operations(self, matrices: Sequence[Tensor]) -> int:
        """How many of search.stop_operations the first kind of cell holds that is derived from these matrices."""
        derived = self.space.derive([x_EO.double().cpu() for x_EO in matrices], {})
        cell = derived.graphs[self.space.cell_space.kinds[0]]
        names = [edge.label.name for edge in cell.edges if edge.label != PLAIN]
        names += ["none"] * (self.space.kept - len(names))  # such an edge is left out
        return sum(name in self.settings.stop_operations for name in names)

    def met(self, matrices: Sequence[Tensor]) -> bool:
        """Whether the search stops with what is derived from these matrices. Read back to the host."""
        return self.kept is not None and self.operations(matrices) >= self.settings.stop_count

    def end_epoch(self, epoch: int, matrices: Sequence[Tensor], document: dict[str, Any]) -> None:
        """Take up the end of an epoch (from 0) in which P learned, and what it derives."""
        count = self.operations(matrices)
        if count < self.settings.stop_count:
            self.kept = document
        elif self.kept is not None:
            self.epochs, self.count = epoch + 1, count

    def text(self) -> str:
        """Why it was stopped; empty if it was not."""
        if not self.epochs:
            return ""
        kind, names = self.space.cell_space.kinds[0], " or ".join(self.settings.stop_operations)
        limit = f"{self.settings.key('stop_count')}={self.settings.stop_count}"
        what = "cell" if kind == "cell" else f"{kind} cell"
        return (
            f"stopped after epoch {self.epochs} of {self.settings.epochs}: {self.count} of the derived {what}'s "
            f"operations are {names} ({limit}); what the epoch before derived is kept; with "
            f"{self.settings.key('stop_count')}=0 a run in another run.dir searches to the end"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "count": self.count, "kept": self.kept}

    def load_state_dict(self, state: Any, source: str) -> None:
        """Raises UserError, naming `source`, for what `state_dict` never gave."""
        reader = Reader(source, state if isinstance(state, dict) else {})
        self.epochs = reader.integer("epochs", 0, self.settings.epochs)
        self.count = reader.integer("count", 0, self.space.kept)
        kept = reader.any("kept")
        if kept is not None and not isinstance(kept, dict):
            raise UserError(f"{source} is damaged: 'kept' holds no architecture")
        self.kept = kept
