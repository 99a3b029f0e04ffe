"""A strategy and an evaluator: one query after the other until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable

from nge_search.spaces import Queries
from nge_search.strategies.base import Strategy

#: Answers in a row that were known already, after which a strategy is taken to have settled.
_SETTLED = 500


def run_strategy(
    strategy: Strategy, queries: Queries, after: Callable[[Queries], None] = lambda queries: None
) -> Queries:
    """Let a strategy spend the budget of distinct architectures; it may settle on known ones before.

    Args:
        after: called after each new answer.

    Returns:
        The same queries. What was asked last stays pending: nothing is asked after it.

    Raises:
        UserError: an evaluation that failed.
        RunFailure: a policy's probabilities are no longer finite.
    """
    repeated = 0
    while repeated < _SETTLED:
        (code,) = strategy.ask()
        known = len(queries)
        value = queries.ask(code)
        if value is None:
            break
        repeated = 0 if len(queries) > known else repeated + 1
        if not repeated:
            after(queries)
            if len(queries) == queries.budget:
                break
        strategy.tell(code, value)
    return queries
