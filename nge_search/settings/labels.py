"""Where accuracies come from that something learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nge_search.errors import nearest
from nge_search.settings.base import Section, option
from nge_search.settings.names import SPACES


@dataclass
class LabelsSection(Section):
    """Architectures with their accuracies: from a CSV, a table, or a search in a table."""

    prefix: ClassVar[str] = "labels"

    file: str = option(
        "",
        "CSV with the columns `architecture` (a notation, or a published name) and `accuracy` (percent).",
        free_on_resume=True,
        path=True,
    )
    table: str = option(
        "",
        "Table of accuracies in place of a CSV: a folder that `nge table` wrote, or a file that it reads.",
        free_on_resume=True,
        path=True,
    )
    column: str = option("", "Column of the table that has the accuracies, such as cifar10_test_200.")
    run: str = option(
        "",
        "Run folder of a finished search in a table, in place of a CSV: what it asked for, with the answers.",
        free_on_resume=True,
        path=True,
    )
    space: str = option(
        "", "Name of the space that the architectures must be of; empty: that of the CSV's first, or the table's."
    )

    def check(self) -> None:
        if self.space and self.space not in SPACES:
            raise self.refuse("space", f"allowed are {', '.join(SPACES)}{nearest(self.space, SPACES)}")
        given = [name for name in ("file", "table", "run") if getattr(self, name)]
        if len(given) > 1:
            raise self.refuse(given[0], f"{self.key(given[1])} is set, too; labels come from one of them")
        if self.column and given and given != ["table"]:
            where = (
                "a CSV's labels are in its column `accuracy`" if self.file else "a search's labels are its answers"
            )
            raise self.refuse("column", f"{where}; leave {self.key('column')} out")

    def require_given(self) -> None:
        """Raise UserError unless there is something to read."""
        if not self.file and not self.table and not self.run:
            raise self.refuse(
                "file",
                f"give a CSV with the columns architecture and accuracy, {self.key('table')}=TABLE, or "
                f"{self.key('run')}=RUN",
            )
        if self.table and not self.column:
            raise self.refuse(
                "column", "name the column of the table that has the accuracies; `nge table TABLE` lists them"
            )
