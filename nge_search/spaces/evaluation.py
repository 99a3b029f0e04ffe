"""What judges architectures, whatever it is, and what a search has to show for the questions that it asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nge_search.errors import UserError
from nge_search.spaces.base import Code, Space


@dataclass(frozen=True)
class Evaluation:
    """What is found of one architecture.

    Attributes:
        value: what a search maximises: an accuracy in percent, or whatever the evaluator says; finite.
        cost: seconds that it took, or would have taken.

    Raises:
        UserError: a value that is not finite.
    """

    value: float
    cost: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise UserError(f"an architecture was evaluated to {self.value}; give a finite number, however low")


class Evaluator(Protocol):
    """Judges one architecture: a table, a predictor, a score without training, a training.

    The same architecture has the same value each time. A UserError ends the search.
    """

    def __call__(self, code: Code, /) -> Evaluation: ...


class Judge(Evaluator, Protocol):
    """An evaluator that a whole search can be made of.

    Attributes:
        space: of the architectures.
        signal_name: what queries are answered with; for people `signal_words`.
        signal_sign: -1 where a value is the figure with a minus, since less of it is better; else 1.
        score_name: the figure by which the search is judged.
        documents: JSON files, by name, that a search keeps of it.
        provenance: where the answers come from, for the JSON object of what is found.
    """

    space: Space
    signal_name: str
    signal_words: str
    signal_sign: int
    score_name: str
    documents: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]: ...

    def queries(self, budget: int) -> Queries:
        """Queries to it; raises UserError for a budget that it does not allow."""
        ...

    def score(self, code: Code) -> float:
        """The score of an architecture that was asked for, percent."""
        ...

    def best(self) -> float | None:
        """The best score that there is, percent; None where nobody knows."""
        ...

    def figures(self, code: Code) -> dict[str, Any]:
        """All that is known of an architecture that was asked for."""
        ...

    def row(self, code: Code) -> dict[str, Any]:
        """Of that, what a query's row says besides its signal."""
        ...


#: What opens the evaluator by short trainings, and by which `Trainings` it is known to those who do.
TRAININGS = "nge_search.training.evaluator:open_trainings"


class Trainings(Judge, Protocol):
    """The evaluator by short trainings."""

    def prepare(self, code: Code) -> None:
        """Let an architecture be trained beside others, if there are processes for it; it will be asked for."""
        ...

    def longer(self, times: int) -> Trainings:
        """The same trainings with so many times the steps, by the same processes."""
        ...

    def close(self) -> None:
        """End the processes; trainings that they were at go on the next time."""
        ...


class Queries:
    """The distinct architectures that an evaluator was asked for, in order; asking again is free.

    Args:
        space: says which codes are one architecture.
        evaluator: is asked once for each.
        budget: the largest number of them.
        prepare: is told of architectures that will be asked for, if there is something to be gained.

    Attributes:
        codes: the architectures as they were asked for first.
        evaluations: one for each.

    Raises:
        UserError: a budget below 1.
    """

    def __init__(
        self, space: Space, evaluator: Evaluator, budget: int, prepare: Callable[[Code], None] = lambda code: None
    ):
        if budget < 1:
            raise UserError(f"a budget of {budget} queries: give at least 1")
        self.space, self.evaluator, self.budget = space, evaluator, budget
        self.codes: list[Code] = []
        self.evaluations: list[Evaluation] = []
        self._known: dict[bytes, Evaluation] = {}
        self._prepare, self._announced = prepare, set[bytes]()

    def __len__(self) -> int:
        return len(self.evaluations)

    def ask(self, code: Code) -> float | None:
        """The value of an architecture; None if it is new and the budget is spent."""
        key = self.space.key(code)
        if key not in self._known:
            if len(self) == self.budget:
                return None
            evaluation = self._known[key] = self.evaluator(code)
            self.evaluations.append(evaluation)
            self.codes.append(code)
        return self._known[key].value

    def announce(self, code: Code) -> bool:
        """Say that an architecture will be asked for; whether others may be announced after it."""
        key = self.space.key(code)
        if key not in self._announced and len(self._announced) < self.budget:
            self._announced.add(key)
            self._prepare(code)
        return len(self._announced) < self.budget

    def chosen(self) -> np.ndarray:
        """After each query, the position of the one with the best value so far; the first of equals: int [Q]."""
        value_Q = np.array([evaluation.value for evaluation in self.evaluations])
        best_Q = np.maximum.accumulate(value_Q)
        risen_Q = np.r_[True, value_Q[1:] > best_Q[:-1]]
        return np.maximum.accumulate(np.where(risen_Q, np.arange(len(value_Q)), 0))

    def seconds(self) -> np.ndarray:
        """After each query, what all so far cost: [Q]."""
        return np.cumsum([evaluation.cost for evaluation in self.evaluations])
