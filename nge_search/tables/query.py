"""What a search asks of a table, and what a finished or running search has to show for its queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nge_search.errors import UserError, plain
from nge_search.spaces import Code
from nge_search.tables.table import Table


@dataclass(frozen=True)
class Answer:
    """Of one architecture: its row in the table, what the search is told (percent), what it would have cost."""

    row: int
    signal: float
    seconds: float


class Benchmark:
    """A table as a search sees it: one column as its signal, another as its score.

    Args:
        table: of every architecture of its space.
        signal: column that answers queries, as `cifar10_valid_12`.
        score: column by which the search is judged and that it never sees; empty: the signal.
        repeats: "mean" of repeated trainings, or "one" of them, drawn once for each architecture, as where every
            query is a single training.

    Raises:
        UserError: no such column, or none of its figures known.
    """

    def __init__(self, table: Table, signal: str, score: str = "", repeats: str = "mean"):
        self.table, self.space = table, table.space
        self.signal_name, self.score_name = signal, score or signal
        self._signal_N, self.score_N = table.column(signal), table.column(self.score_name)
        for name, column_N in ((signal, self._signal_N), (self.score_name, self.score_N)):
            if np.isnan(column_N).all():
                raise UserError(f"the table of {table.source} has no figures in its column '{plain(name)}'")
            if np.isinf(column_N).any():
                raise UserError(f"the table of {table.source} has infinite figures in its column '{plain(name)}'")
        self._repeats = table.repeats(signal) if repeats == "one" else self._signal_N
        dataset, _, epochs = signal.split("_", 2) if signal.count("_") >= 2 else ("", "", "")
        time = f"{dataset}_seconds_{epochs}"
        self._seconds_N = table.column(time) if time in table.columns else None

    def answer(self, code: Code, seed: int = 0) -> Answer:
        """What is known of an architecture; `seed` chooses among repeated trainings.

        Raises:
            UserError: the table lacks the architecture, its signal or its score: a search needs a table of the
                whole space.
        """
        row = self.table.find(code)
        signal = self._signal_N[row]
        if self._repeats.ndim == 2:
            known = self._repeats[row][~np.isnan(self._repeats[row])]
            signal = known[np.random.default_rng((seed, row)).integers(len(known))] if len(known) else np.nan
        for name, value in ((self.signal_name, signal), (self.score_name, self.score_N[row])):
            if np.isnan(value):
                raise UserError(
                    f"the table of {self.table.source} has no {plain(name)} for {self.space.text(code)}; a search "
                    "needs one for every architecture"
                )
        return Answer(row, float(signal), float(self._seconds_N[row]) if self._seconds_N is not None else 0.0)

    def best(self) -> float:
        """The best score in the table, percent."""
        return float(np.nanmax(self.score_N))


class Queries:
    """The distinct architectures that a search has asked for, in order; asking again is free.

    Attributes:
        budget: the largest number of them.
        answers: one for each.
        codes: the architectures as they were asked for first.
    """

    def __init__(self, benchmark: Benchmark, budget: int, seed: int = 0):
        if not 1 <= budget <= len(benchmark.table):
            raise UserError(
                f"a budget of {budget} queries: the table of {benchmark.table.source} allows 1 to "
                f"{len(benchmark.table)}"
            )
        self.benchmark, self.budget, self._seed = benchmark, budget, seed
        self.answers: list[Answer] = []
        self.codes: list[Code] = []
        self._known: dict[bytes, Answer] = {}

    def __len__(self) -> int:
        return len(self.answers)

    def ask(self, code: Code) -> float | None:
        """The signal of an architecture; None if it is new and the budget is spent."""
        key = self.benchmark.space.key(code)
        if key not in self._known:
            if len(self) == self.budget:
                return None
            answer = self._known[key] = self.benchmark.answer(code, self._seed)
            self.answers.append(answer)
            self.codes.append(code)
        return self._known[key].signal

    def chosen(self) -> np.ndarray:
        """After each query, the position of the one with the best signal so far; the first of equals: int [Q]."""
        signal_Q = np.array([answer.signal for answer in self.answers])
        best_Q = np.maximum.accumulate(signal_Q)
        risen_Q = np.r_[True, signal_Q[1:] > best_Q[:-1]]
        return np.maximum.accumulate(np.where(risen_Q, np.arange(len(signal_Q)), 0))

    def scores(self) -> np.ndarray:
        """After each query, the score of the architecture with the best signal so far: [Q], percent."""
        rows_Q = np.array([answer.row for answer in self.answers])
        return self.benchmark.score_N[rows_Q[self.chosen()]]

    def seconds(self) -> np.ndarray:
        """After each query, the time that all trainings so far would have taken: [Q]."""
        return np.cumsum([answer.seconds for answer in self.answers])
