"""Settings of cells that are drawn link by link: `nge design train`, and `nge design bench`, which judges them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nge_search.errors import nearest, plain
from nge_search.settings.base import Section, option
from nge_search.settings.labels import LabelsSection
from nge_search.settings.names import DESIGN_METHODS, SAMPLES, SCORES, SEARCH_OPERATIONS, SPACES
from nge_search.settings.run import RunningConfig

#: What teaches in `nge design bench`: a whole table, or random queries.
PROTOCOLS = ("oracle", "honest")
#: Cells that one command draws at most.
MOST_CELLS = 100


@dataclass
class DesignSection(Section):
    """What link models learn from, what they are, and how cells are drawn by them."""

    prefix: ClassVar[str] = "design"

    best: int | None = option(
        None,
        "Number K of the best architectures, and of the worst, that teach; null: 30, or 3 in 10 of the labels if "
        "that is less.",
        at_least=1,
        at_most=10_000,
    )
    lowest: float = option(
        0.0,
        "Lowest accuracy in percent of the worst architectures that teach; what is below is taken for a failed "
        "training, and passed over.",
        at_least=0,
        at_most=100,
    )
    samples: str = option(
        "grown",
        "What link models learn from: grown: cells that grow as drawn ones do, against moves that were not taken; "
        "paper: links taken out of cells, as published; common: links of whole cells against those they lack.",
        choices=SAMPLES,
    )
    kept: float = option(
        0.5, "Share of the steps of taking cells apart that is kept (design.samples=paper).", above=0, at_most=1
    )
    ways: int = option(
        1, "Number of random orders in which each cell grows (design.samples=grown).", at_least=1, at_most=100
    )
    negatives: int = option(
        9,
        "Largest number of moves that a good cell did not take, for each one that it took (design.samples=grown).",
        at_least=0,
        at_most=1000,
    )
    worst: bool = option(True, "Teach by the worst architectures, too (design.samples=grown).")
    vertices: int = option(
        0,
        "Largest number of vertices of NAS-Bench-101's cells, with input and output; larger ones do not teach; 0: "
        "that of the table, or 7.",
        at_least=0,
        at_most=7,
    )
    model: str = option(
        "gat",
        "Networks that tell nodes of each other: gat: attention; gcn: the mean of neighbours.",
        choices=("gat", "gcn"),
    )
    reverse: bool = option(True, "Have a second network on the links turned round.")
    layers: int = option(3, "Number of layers of each network.", at_least=1, at_most=16)
    width: int = option(16, "Number of features of a node behind each layer.", at_least=1, at_most=1024)
    hidden: int = option(32, "Number of units of the MLP that judges a link.", at_least=1, at_most=4096)
    members: int = option(10, "Number of link models that are trained side by side.", at_least=1, at_most=100)
    together: bool = option(
        False,
        "Judge moves by the mean of all link models; else each draws cells of its own, in turn, as published.",
    )
    epochs: int = option(40, "Number of epochs of training.", at_least=1, at_most=100_000)
    batch_size: int = option(32, "Number of graphs in a batch; 0: all.", at_least=0, at_most=1 << 20)
    learning_rate: float = option(5e-3, "Adam's learning rate, which is constant.", above=0, at_most=10)
    temperature: float = option(
        0.5, "Temperature by which scores are divided before a move is drawn.", above=0, at_most=1e6
    )
    score: str = option(
        "logit", "Score that the softmax over moves is taken of; probability: behind a sigmoid.", choices=SCORES
    )
    links: int = option(
        0,
        "Number of links of a drawn cell (of NAS-Bench-201: operations); 0: that of a good cell, by chance.",
        at_least=0,
        at_most=9,
    )
    dangling: bool = option(
        False, "Draw NAS-Bench-101's cells with nodes that lead nowhere, and cut them off, as published."
    )

    def best_of(self, labels: int) -> int:
        """K, where there are so many labels."""
        return self.best or max(1, min(30, labels * 3 // 10))


@dataclass
class DrawSection(Section):
    """Cells that are drawn once the link models are trained."""

    prefix: ClassVar[str] = "draw"

    cells: int = option(
        10, "Number of different cells that are drawn once training has ended.", at_least=0, at_most=MOST_CELLS
    )
    new: bool = option(True, "Draw none of the cells that taught.")
    space: str = option(
        "",
        "Name of the space of drawn cells; darts: genotypes, also after nasbench101; empty: that of the labels.",
    )
    replacements: list[str] = option(
        [],
        "Operations of DARTS with the chains of NAS-Bench-101's that stand for them in place of the usual ones, as "
        "avg_pool_3x3=maxpool3x3 or sep_conv_3x3=conv3x3-bn-relu>conv1x1-bn-relu; behind = may be nothing.",
    )

    def check(self) -> None:
        if self.space and self.space not in SPACES:
            raise self.refuse("space", f"allowed are {', '.join(SPACES)}{nearest(self.space, SPACES)}")
        for text in self.replacements:
            if "=" not in text:
                raise self.refuse("replacements", f"'{plain(text)}' is not OPERATION=OPERATION>OPERATION")
        for name in self.chains():
            if name not in SEARCH_OPERATIONS:
                known = f"known are {', '.join(SEARCH_OPERATIONS)}{nearest(name, SEARCH_OPERATIONS)}"
                raise self.refuse("replacements", f"operation '{plain(name)}' is unknown; {known}")

    def chains(self) -> dict[str, tuple[str, ...]]:
        """By operation of DARTS what stands for it, as far as it is given."""
        pairs = (text.split("=", 1) for text in self.replacements)
        return {
            name.strip(): tuple(part.strip() for part in chain.split(">") if part.strip()) for name, chain in pairs
        }


@dataclass
class DesignConfig(RunningConfig):
    """Settings of `nge design train`."""

    kind: ClassVar[str] = "design"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = (
        *("space", "source", "labels", "best", "loss", "link_accuracy", "drawn", "draws", "seconds"),
    )

    labels: LabelsSection = field(default_factory=LabelsSection)
    design: DesignSection = field(default_factory=DesignSection)
    draw: DrawSection = field(default_factory=DrawSection)


@dataclass
class DesignTrialsSection(Section):
    """What is compared, and how often."""

    prefix: ClassVar[str] = "bench"

    methods: list[str] = option(
        list(DESIGN_METHODS),
        "What draws cells, each compared with the first in pairs of equal seeds: links: link models; frequencies: "
        "how often good cells have such links; uniform: all moves alike.",
        choices=DESIGN_METHODS,
    )
    protocols: list[str] = option(
        list(PROTOCOLS),
        "What teaches: oracle: the best and worst of the whole table by bench.score, as published; honest: those "
        "of random queries by labels.column, and none of them is drawn again.",
        choices=PROTOCOLS,
    )
    seeds: int = option(30, "Number of repeats, with a seed each that all methods share.", at_least=1, at_most=1000)
    first_seed: int = option(0, "First of the seeds; the others follow it.", at_least=0, at_most=10**6)
    cells: int = option(
        10, "Number of cells that each of design.members draws (oracle).", at_least=1, at_most=10_000
    )
    queried: int = option(100, "Number of random queries that teach (honest).", at_least=2, at_most=100_000)
    drawn: int = option(60, "Number of new cells that are drawn (honest).", at_least=1, at_most=100_000)
    score: str = option(
        "", "Column of the table by which drawn cells are judged, unseen in honest trials; empty: labels.column."
    )

    def check(self) -> None:
        self.require_distinct("methods", "protocols")


@dataclass
class DesignBenchConfig(RunningConfig):
    """Settings of `nge design bench`."""

    kind: ClassVar[str] = "design_bench"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("space", "source", "architectures", "results", "comparisons", "seconds")

    labels: LabelsSection = field(default_factory=LabelsSection)
    design: DesignSection = field(default_factory=DesignSection)
    bench: DesignTrialsSection = field(default_factory=DesignTrialsSection)

    def check(self) -> None:
        if "honest" in self.bench.protocols and 2 * self.design.best_of(self.bench.queried) > self.bench.queried:
            raise self.bench.refuse(
                "queried", f"too few to have {self.design.best} best and as many worst ones (design.best)"
            )
