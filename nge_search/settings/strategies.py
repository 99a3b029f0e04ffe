"""Settings of a search in a table of true accuracies: `nge search` with `task: queries`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.embedding import EmbeddingSection
from nge_search.settings.names import SEARCH_TASKS, STRATEGIES
from nge_search.settings.run import RunningConfig


@dataclass
class BenchmarkSection(Section):
    """The table, and what the search sees of it."""

    prefix: ClassVar[str] = "benchmark"

    table: str = option(
        "", "A folder that `nge table` wrote, or a file that it reads.", free_on_resume=True, path=True
    )
    signal: str = option("cifar10_valid_200", "Column that answers the search's queries.")
    score: str = option("", "Column by which the search is judged, unseen by it; empty: benchmark.signal.")
    repeats: str = option(
        "mean", "What a query gives of repeated trainings: their mean, or one of them.", choices=("mean", "one")
    )


@dataclass
class StrategySection(Section):
    """How architectures are chosen."""

    prefix: ClassVar[str] = "strategy"

    name: str = option(
        "nge_reinforce",
        "random; local_search: on to the first better neighbour; evolution: regularised; reinforce: a policy of "
        "free parameters; nge_reinforce: P from the embedding is the policy; nge_evolution: P directs mutations.",
        choices=STRATEGIES,
    )
    queries: int = option(100, "Distinct architectures that may be asked for.", at_least=1)
    population: int = option(
        20, "Architectures alive in evolution; the oldest dies (regularised evolution).", at_least=2
    )
    tournament: int = option(10, "Of which so many, drawn at random, compete to be the parent.", at_least=1)
    warmup: int = option(6, "First architectures of a policy, all equally likely.", at_least=0)
    steps: int = option(2, "Steps of Adam on the policy after each query.", at_least=1)
    temperature: float = option(
        2.0,
        "The architecture of rank r (0 is the best) weighs exp(-r / temperature) in the policy's likelihood.",
        above=0,
    )
    contrast: float = option(
        0.3, "What all architectures seen weigh together, negatively: the policy leaves them.", at_least=0
    )
    explore: float = option(
        0.03,
        "Share of nge_reinforce's decisions, and of nge_evolution's mutations, that ignore P.",
        at_least=0,
        at_most=1,
    )
    baseline_decay: float = option(
        0.9, "Decay of the average reward that `reinforce` subtracts.", at_least=0, below=1
    )

    def check(self) -> None:
        if self.tournament > self.population:
            raise self.refuse("tournament", f"more than {self.key('population')}={self.population}")


@dataclass
class PolicySection(EmbeddingSection):
    """What gives the policy's probabilities, and how it learns."""

    learning_rate: float = option(0.0, "Adam's learning rate; 0: 5e-4, and 0.1 for free parameters.", at_least=0)
    weight_decay: float = option(0.0, "L2 penalty on the embedding.", at_least=0)

    @property
    def rate(self) -> float:
        return self.learning_rate or (0.1 if self.kind == "direct" else 5e-4)


@dataclass
class QueriesConfig(RunningConfig):
    """Settings of `train_search.py` (`nge search`) in a table of accuracies."""

    kind: ClassVar[str] = "queries"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = (
        "genotype",
        "architecture",
        "signal",
        "score",
        "queries",
        "seconds",
        "device",
    )

    task: str = option("queries", "Where architectures are judged.", choices=SEARCH_TASKS)
    benchmark: BenchmarkSection = field(default_factory=BenchmarkSection)
    strategy: StrategySection = field(default_factory=StrategySection)
    embedding: PolicySection = field(default_factory=PolicySection)
