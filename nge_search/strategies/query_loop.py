"""A strategy and an evaluator: query after query until the budget is spent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nge_search.spaces import Code, Queries
from nge_search.strategies.base import Strategy

#: Answers in a row that were known already, after which a strategy is taken to have settled.
_SETTLED = 500


def run_strategy(
    strategy: Strategy,
    queries: Queries,
    after: Callable[[Queries], None] = lambda queries: None,
    pending: int = 1,
) -> Queries:
    """Let a strategy spend the budget of distinct architectures; it may settle on known ones before.

    Args:
        after: called after each new answer.
        pending: how many architectures are asked for before the first of them is answered. Values are told in the
            order of the questions, however long each takes, so that what is found depends on this number alone.

    Returns:
        The same queries. What was asked last stays pending: nothing is asked after it.

    Raises:
        UserError: an evaluation that failed.
        RunFailure: a policy's probabilities are no longer finite.
    """
    repeated, more = 0, True
    waiting: deque[Code] = deque()
    while repeated < _SETTLED:
        while len(waiting) < (pending if more else 1):
            (code,) = strategy.ask()
            waiting.append(code)
            more = queries.announce(code)
        code = waiting.popleft()
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
