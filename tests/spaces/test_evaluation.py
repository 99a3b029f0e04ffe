"""Evaluators of any kind, and what is counted of them."""

from __future__ import annotations

import pytest

from nge_search.errors import UserError
from nge_search.spaces import Code, Evaluation, NasBench101Space, NasBench201Space, Queries

SPACE = NasBench201Space()


class Sums:
    """An evaluator that remembers what it was asked for: the value is the sum of the code, the cost half of it."""

    def __init__(self) -> None:
        self.asked: list[Code] = []

    def __call__(self, code: Code) -> Evaluation:
        self.asked.append(code)
        return Evaluation(float(sum(code)), sum(code) / 2)


def test_queries_count_distinct_architectures_and_keep_what_was_seen() -> None:
    evaluator = Sums()
    queries = Queries(SPACE, evaluator, budget=3)
    first, second, third = (0,) * 6, (4, 0, 0, 0, 4, 0), (1,) * 6
    assert [queries.ask(code) for code in (first, first, second)] == [0, 0, 8]
    assert len(queries) == 2
    assert queries.ask(third) == 6
    assert queries.ask((2,) * 6) is None
    assert queries.ask(second) == 8
    assert queries.codes == evaluator.asked == [first, second, third]
    assert queries.evaluations == [Evaluation(0, 0), Evaluation(8, 4), Evaluation(6, 3)]
    assert queries.chosen().tolist() == [0, 1, 1]
    assert queries.seconds().tolist() == [0, 4, 7]


def test_of_equals_the_first_is_chosen() -> None:
    queries = Queries(SPACE, Sums(), budget=3)
    for code in ((1, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0), (0, 0, 2, 0, 0, 0)):
        queries.ask(code)
    assert queries.chosen().tolist() == [0, 0, 2]


def test_what_a_space_counts_as_one_is_asked_for_once() -> None:
    """An edge into a vertex without a way out changes a code, and not the cell."""
    evaluator = Sums()
    queries = Queries(NasBench101Space(4), evaluator, budget=1)
    direct, beside = (0, 0, 0, 1, 0, 0, 0, 0), (1, 0, 0, 1, 0, 0, 0, 0)
    assert queries.ask(direct) == queries.ask(beside) == 1
    assert evaluator.asked == [direct]


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_of_nothing_is_refused(budget: int) -> None:
    with pytest.raises(UserError, match=f"a budget of {budget} queries: give at least 1"):
        Queries(SPACE, Sums(), budget)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_is_refused_and_not_counted(value: float) -> None:
    queries = Queries(SPACE, lambda code: Evaluation(value), budget=3)
    with pytest.raises(UserError, match=f"evaluated to {value}; give a finite number"):
        queries.ask((0,) * 6)
    assert len(queries) == 0
