"""Settings of a search by queries, to a table or by short trainings: `nge search` with `task: queries`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.embedding import EmbeddingSection
from nge_search.settings.names import (
    ACQUISITIONS,
    CANDIDATES,
    PREDICTORS,
    PROBABILISTIC,
    SEARCH_TASKS,
    STRATEGIES,
)
from nge_search.settings.run import CommandConfig
from nge_search.settings.trial import EvaluatorSection


@dataclass
class BenchmarkSection(Section):
    """The table, and what the search sees of it."""

    prefix: ClassVar[str] = "benchmark"

    table: str = option(
        "",
        "Table of accuracies: a folder that `nge table` wrote, or a file that it reads.",
        free_on_resume=True,
        path=True,
    )
    signal: str = option("cifar10_valid_200", "Column of the table that answers the search's queries.")
    score: str = option(
        "", "Column of the table by which the search is judged, unseen by it; empty: benchmark.signal."
    )
    repeats: str = option(
        "mean",
        "What a query gives where trainings were repeated: their mean, or one of them.",
        choices=("mean", "one"),
    )


@dataclass
class StrategySection(Section):
    """How architectures are chosen."""

    prefix: ClassVar[str] = "strategy"

    name: str = option(
        "nge_reinforce",
        "How the next architecture is chosen: random; local_search: on to the first better neighbour; evolution: "
        "regularised; reinforce: a policy of free parameters; nge_reinforce: P from the embedding is the policy; "
        "nge_evolution: P directs mutations; predictor: one that learns from the answers so far; design: cells are "
        "drawn link by link, after what the answers so far teach.",
        choices=STRATEGIES,
    )
    queries: int = option(100, "Number of distinct architectures that may be asked for.", at_least=1)
    population: int = option(
        20, "Number of architectures alive in evolution; the oldest dies (regularised evolution).", at_least=2
    )
    tournament: int = option(
        10, "Number of living architectures, drawn at random, that compete to be the parent.", at_least=1
    )
    warmup: int = option(
        6,
        "Number of first architectures that are drawn uniformly, for a policy, predictor or link model to learn "
        "from.",
        at_least=0,
    )
    steps: int = option(2, "Number of Adam's steps on the policy after each query.", at_least=1)
    temperature: float = option(
        2.0,
        "Temperature t: the architecture of rank r (0 is the best) weighs exp(-r / t) in the policy's likelihood.",
        above=0,
    )
    contrast: float = option(
        0.3, "Weight of all architectures seen together, with a minus: the policy moves away from them.", at_least=0
    )
    explore: float = option(
        0.03,
        "Share of the decisions of nge_reinforce's and a predictor's draws, and of nge_evolution's mutations, that "
        "ignore P.",
        at_least=0,
        at_most=1,
    )
    baseline_decay: float = option(
        0.9, "Decay per query of the average reward that strategy.name=reinforce subtracts.", at_least=0, below=1
    )
    predictor: str = option(
        "analytic_gp",
        "Predictor that strategy.name=predictor trains on all answers so far.",
        choices=PREDICTORS,
    )
    acquisition: str = option(
        "expected_improvement",
        "Rule by which strategy.name=predictor chooses; greedy, the best forecast, is the only one for predictors "
        f"that do not say how sure they are (others are {' and '.join(PROBABILISTIC)}).",
        choices=ACQUISITIONS,
    )
    batch: int = option(
        5,
        "Number of architectures that a predictor chooses, or a link model draws, before it is trained anew.",
        at_least=1,
    )
    pool: int = option(
        500,
        "Number of architectures that a predictor chooses among: neighbours of the best so far, draws from P (see "
        "strategy.candidates) and uniform draws, a third each.",
        at_least=3,
    )
    candidates: str = option(
        "policy",
        "What draws that third of a predictor's candidates which is neither neighbours nor uniform: policy: P; "
        "design: the same as with strategy.name=design.",
        choices=CANDIDATES,
    )
    drawn_by: str = option(
        "links",
        "What draws cells link by link: links: a link model that is trained on the best and the worst so far; "
        "frequencies: how often the best have such links.",
        choices=("links", "frequencies"),
    )
    teachers: int = option(
        5,
        "Number of the best architectures so far, and of the worst, that teach to draw cells; with "
        "strategy.name=design twice as many are drawn uniformly first, or strategy.warmup if that is more.",
        at_least=1,
    )
    link_temperature: float = option(
        0.25, "Temperature of draws by a link model: the higher, the more they differ.", above=0
    )

    def check(self) -> None:
        if self.tournament > self.population:
            raise self.refuse("tournament", f"more than {self.key('population')}={self.population}")
        if self.name == "predictor" and self.acquisition != "greedy" and self.predictor not in PROBABILISTIC:
            raise self.refuse("acquisition", f"{self.predictor} does not say how sure it is; set it to greedy")


@dataclass
class PolicySection(EmbeddingSection):
    """What gives the policy's probabilities, and how it learns."""

    learning_rate: float = option(
        0.0, "Adam's learning rate for the policy; 0: 5e-4, and 0.1 for free parameters.", at_least=0
    )
    weight_decay: float = option(0.0, "L2 penalty on the embedding's parameters.", at_least=0)

    @property
    def rate(self) -> float:
        return self.learning_rate or (0.1 if self.kind == "direct" else 5e-4)


@dataclass
class QueriesConfig(CommandConfig):
    """Settings of `train_search.py` (`nge search`) by queries."""

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

    task: str = option(
        "queries",
        "How architectures are judged, by a supernet or by queries; each has settings of its own.",
        choices=SEARCH_TASKS,
    )
    evaluator: EvaluatorSection = field(default_factory=EvaluatorSection)
    benchmark: BenchmarkSection = field(default_factory=BenchmarkSection)
    strategy: StrategySection = field(default_factory=StrategySection)
    embedding: PolicySection = field(default_factory=PolicySection)

    def check(self) -> None:
        if self.evaluator.kind == "training" and self.benchmark.table:
            raise self.benchmark.refuse("table", "evaluator.kind=training asks no table; leave it out")
