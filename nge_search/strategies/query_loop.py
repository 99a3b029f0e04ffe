"""A strategy against a table: one query after the other until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable

from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.strategies.strategies import STRATEGIES
from nge_search.tables import Benchmark, Queries

#: Answers in a row that were known already, after which a strategy is taken to have settled.
_SETTLED = 500


def ask(
    benchmark: Benchmark,
    settings: StrategySection,
    policy: PolicySection,
    seed: int,
    after: Callable[[Queries], None] = lambda queries: None,
) -> Queries:
    """Let a strategy spend its budget of distinct architectures; it may settle on known ones before.

    Args:
        after: called after each new answer.

    Raises:
        UserError: a budget that the table does not allow, or an architecture that it lacks.
    """
    queries = Queries(benchmark, settings.queries, seed)
    proposals = STRATEGIES[settings.name](benchmark.space, settings, policy, seed)
    code, repeated = next(proposals), 0
    while repeated < _SETTLED:
        known = len(queries)
        signal = queries.ask(code)
        if signal is None:
            break
        repeated = 0 if len(queries) > known else repeated + 1
        if not repeated:
            after(queries)
            if len(queries) == queries.budget:
                break
        code = proposals.send(signal)
    proposals.close()
    return queries
