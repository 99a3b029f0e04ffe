"""A table as a search sees it: the first evaluator, and the score by which the search is judged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nge_search.errors import UserError, plain
from nge_search.spaces import Code, Evaluation, Queries
from nge_search.tables.table import Table


class Benchmark:
    """An evaluator that looks architectures up: one column is their value, another one the score.

    Args:
        table: of every architecture of its space.
        signal: column that answers queries, as `cifar10_valid_12`, in percent.
        score: column by which the search is judged and that it never sees; empty: the signal.
        repeats: "mean" of repeated trainings, or "one" of them, drawn once for each architecture, as where every
            query is a single training.
        seed: chooses among repeated trainings.

    Raises:
        UserError: no such column, or none of its figures known.
    """

    def __init__(self, table: Table, signal: str, score: str = "", repeats: str = "mean", seed: int = 0):
        self.table, self.space, self._seed = table, table.space, seed
        self.signal_name = self.signal_words = signal
        self.signal_sign, self.score_name = 1, score or signal
        self.documents: dict[str, Any] = {}
        self._signal_N, self._score_N = table.column(signal), table.column(self.score_name)
        for name, column_N in ((signal, self._signal_N), (self.score_name, self._score_N)):
            if np.isnan(column_N).all():
                raise UserError(f"the table of {table.source} has no figures in its column '{plain(name)}'")
            if np.isinf(column_N).any():
                raise UserError(f"the table of {table.source} has infinite figures in its column '{plain(name)}'")
        self._repeats = table.repeats(signal) if repeats == "one" else self._signal_N
        dataset, _, epochs = signal.split("_", 2) if signal.count("_") >= 2 else ("", "", "")
        time = f"{dataset}_seconds_{epochs}"
        self._seconds_N = table.column(time) if time in table.columns else None
        self._sizes = {name: table.column(name) for name in ("params", "macs") if name in table.columns}

    def __call__(self, code: Code) -> Evaluation:
        """The signal of an architecture, and how long its training took where the table knows.

        Raises:
            UserError: the table lacks the architecture, its signal or its score: a search needs a table of the
                whole space.
        """
        row = self.table.find(code)
        signal = self._signal_N[row]
        if self._repeats.ndim == 2:
            known = self._repeats[row][~np.isnan(self._repeats[row])]
            signal = known[np.random.default_rng((self._seed, row)).integers(len(known))] if len(known) else np.nan
        for name, value in ((self.signal_name, signal), (self.score_name, self._score_N[row])):
            if np.isnan(value):
                raise UserError(
                    f"the table of {self.table.source} has no {plain(name)} for {self.space.text(code)}; a search "
                    "needs one for every architecture"
                )
        return Evaluation(float(signal), float(self._seconds_N[row]) if self._seconds_N is not None else 0.0)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the answers come from."""
        return {"table": self.table.source}

    def figures(self, code: Code) -> dict[str, Any]:
        """All that the table knows of an architecture."""
        return dict(self.table.figures(self.table.find(code)))

    def row(self, code: Code) -> dict[str, Any]:
        """Its parameters and mult-adds, as far as the table knows them."""
        at = self.table.find(code)
        found = {name: float(column_N[at]) for name, column_N in self._sizes.items()}
        return {name: size for name, size in found.items() if math.isfinite(size)}

    def queries(self, budget: int) -> Queries:
        """Queries of this table; raises UserError for a budget that it does not allow."""
        if not 1 <= budget <= len(self.table):
            raise UserError(
                f"a budget of {budget} queries: the table of {self.table.source} allows 1 to {len(self.table)}"
            )
        return Queries(self.space, self, budget)

    def score(self, code: Code) -> float:
        """The score of an architecture that the table holds, percent."""
        return float(self._score_N[self.table.find(code)])

    def scores(self, queries: Queries) -> np.ndarray:
        """After each query, the score of the architecture with the best value so far: [Q], percent."""
        score_Q = np.array([self.score(code) for code in queries.codes])
        return score_Q[queries.chosen()]

    def best(self) -> float:
        """The best score in the table, percent."""
        return float(np.nanmax(self._score_N))
