"""Random search against its definition."""

from __future__ import annotations

import itertools
from collections import Counter

from scipy.stats import chisquare

from nge_search.settings.strategies import StrategySection
from nge_search.spaces import Code, NasBench201Space
from nge_search.strategies import build_strategy

RANDOM = StrategySection(name="random")


def test_random_search_asks_uniformly_without_repeats(tiny: NasBench201Space) -> None:
    first: Counter[Code] = Counter()
    for seed in range(2700):
        first.update(build_strategy(tiny, RANDOM, seed=seed).ask())
    assert len(first) == 27
    assert chisquare(list(first.values())).pvalue > 1e-3
    strategy, codes = build_strategy(tiny, RANDOM), []
    for _ in range(27):
        codes += strategy.ask()
        strategy.tell(codes[-1], 0.0)
    assert sorted(codes) == list(itertools.product(range(3), repeat=3))
