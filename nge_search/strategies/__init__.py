"""Search by queries: architectures are chosen by the values of those before, each judged by an evaluator."""

from __future__ import annotations

from nge_search.counting import is_whole
from nge_search.errors import UserError, shorten
from nge_search.settings import names
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Space
from nge_search.strategies.base import Strategy
from nge_search.strategies.design import DesignSearch
from nge_search.strategies.evolution import Evolution, NgeEvolution
from nge_search.strategies.local_search import LocalSearch
from nge_search.strategies.predictor import PredictorSearch
from nge_search.strategies.random_search import RandomSearch
from nge_search.strategies.reinforce import NgeReinforce, Reinforce

__all__ = ["STRATEGIES", "Strategy", "build_strategy"]

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        *(RandomSearch, LocalSearch, Evolution, Reinforce, NgeReinforce, NgeEvolution),
        *(PredictorSearch, DesignSearch),
    )
}
names.require_names(STRATEGIES, names.STRATEGIES)


def build_strategy(
    space: Space, settings: StrategySection, policy: PolicySection | None = None, seed: int = 0
) -> Strategy:
    """The strategy that `settings.name` names, over the architectures of a space.

    Args:
        policy: what gives P to the strategies that learn it; by default as in `nge search task=queries`.
        seed: of all chance.

    Raises:
        UserError: arguments of other kinds, or an embedding that is too small for the space.
    """
    policy = policy or PolicySection()
    for name, given, kind in (("space", space, Space), ("settings", settings, StrategySection)):
        if not isinstance(given, kind):
            raise UserError(f"{name}={shorten(given)}: give a {kind.__name__} of {kind.__module__}")
    if not is_whole(seed) or seed < 0:
        raise UserError(f"seed={shorten(seed)}: give a whole number from 0 on")
    policy.check_vertices(space.cell_space.vertices)
    return STRATEGIES[settings.name](space, settings, policy, seed)
