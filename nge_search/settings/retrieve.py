"""Settings of retrieval: `nge retrieve build`, `nge retrieve train`, and `nge retrieve bench`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.names import MOTIF_LABELS, MOTIF_SPLITS, NETWORK_LIBRARIES, RETRIEVAL_TASKS, RETRIEVERS
from nge_search.settings.run import DeviceConfig, RunningConfig


@dataclass
class BuildSection(Section):
    """Which networks become graphs, and what that may take."""

    prefix: ClassVar[str] = "build"

    libraries: list[str] = option(
        ["timm", "torchvision"],
        "Installed libraries whose networks are traced, all of them; transformers needs the extra `retrieve`.",
        choices=NETWORK_LIBRARIES,
    )
    names: list[str] = option([], "Names of the networks that are traced, of those libraries; empty: all.")
    processes: int = option(
        2, "Number of processes that trace networks side by side.", at_least=1, at_most=256, free_on_resume=True
    )
    seconds: float = option(
        300.0, "Seconds that one network may take.", above=0, at_most=10**6, free_on_resume=True
    )
    megabytes: int = option(
        6000,
        "Megabytes of memory that one network may take, besides what its library takes.",
        at_least=1,
        at_most=1 << 24,
        free_on_resume=True,
    )
    traced: str = option(
        "",
        "Folder that keeps what was traced, also for later runs; empty: `traced` in the run folder.",
        free_on_resume=True,
        path=True,
    )

    def check(self) -> None:
        if not self.libraries:
            raise self.refuse("libraries", f"give at least one of {', '.join(NETWORK_LIBRARIES)}")
        self.require_distinct("libraries")


@dataclass
class RetrieveBuildConfig(RunningConfig):
    """Settings of `nge retrieve build`."""

    kind: ClassVar[str] = "retrieve_build"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("graphs", "networks", "families", "skipped", "seconds")

    build: BuildSection = field(default_factory=BuildSection)


@dataclass
class CorpusSection(Section):
    """The networks that are known."""

    prefix: ClassVar[str] = "corpus"

    file: str = option(
        "",
        "Corpus: the run folder of `nge retrieve build`, or a file that it wrote; empty: the one that ships.",
        free_on_resume=True,
        path=True,
    )
    libraries: list[str] = option(
        [], "Libraries whose networks are taken from the corpus; empty: all.", choices=NETWORK_LIBRARIES
    )
    views: bool = option(
        True, "Keep nodes that only look at numbers in another way, such as a reshaping; false: contract them."
    )


@dataclass
class EncoderSection(Section):
    """What encoders do otherwise than published, or than we chose; null: as they are."""

    prefix: ClassVar[str] = "encoder"

    width: int | None = option(None, "Number of features of a network's layers.", at_least=1, at_most=1 << 14)
    layers: int | None = option(None, "Number of a network's layers.", at_least=1, at_most=64)
    heads: int | None = option(None, "Number of heads of attention (gat).", at_least=1, at_most=64)
    dropout: float | None = option(
        None, "Share of features that is dropped before each layer while families are learnt.", at_least=0, below=1
    )
    epochs: int | None = option(None, "Number of epochs over graphs.", at_least=1, at_most=100_000)
    batch_size: int | None = option(None, "Number of graphs in a batch.", at_least=2, at_most=1 << 20)
    learning_rate: float | None = option(None, "Adam's learning rate for graphs.", above=0, at_most=10)
    temperature: float | None = option(
        None, "Temperature by which cosines between graphs are divided.", above=0, at_most=1000
    )
    contrast: bool | None = option(None, "Pull graphs of one family together, and others apart (Eq. 5).")
    classify: bool | None = option(None, "Tell families by a classifier, which is thrown away (Eq. 6).")
    split: str | None = option(None, "How graphs are divided into motifs (nar).", choices=MOTIF_SPLITS)
    steps: int | None = option(
        None, "Number s of steps in which a node hears its neighbours' codes (Eq. 2).", at_least=0, at_most=16
    )
    labels: str | None = option(
        None, "What of a node's label its code holds: nothing, names, or attributes too.", choices=MOTIF_LABELS
    )
    motif_size: int | None = option(
        None, "Number of nodes of a motif, if encoder.split=node_number.", at_least=1, at_most=10**6
    )
    motif_count: int | None = option(
        None, "Number of motifs of a graph, if encoder.split=motif_number.", at_least=1, at_most=10**6
    )
    motif_epochs: int | None = option(None, "Number of epochs over motifs (Eq. 4).", at_least=0, at_most=100_000)
    motif_batch_size: int | None = option(None, "Number of motifs in a batch.", at_least=2, at_most=1 << 20)
    motif_learning_rate: float | None = option(None, "Adam's learning rate for motifs.", above=0, at_most=10)

    def given(self) -> dict[str, Any]:
        """What is not null, by name."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}


@dataclass
class RetrieveSection(Section):
    """What is trained, and how its quality is estimated."""

    prefix: ClassVar[str] = "retrieve"

    model: str = option(
        "own",
        "Encoder that turns networks into vectors: nar, gcn, gat: networks as published; views: a network that "
        "sees no label; own, own_plain, own_code, own_families, own_views: ours; lda: discriminants; all others: "
        "untrained controls.",
        choices=RETRIEVERS,
    )
    folds: int = option(
        3,
        "Number of parts of the families, each found by an encoder that the others taught, to estimate the quality "
        "and to calibrate what is new.",
        at_least=2,
        at_most=100,
    )
    false_alarms: float = option(
        0.05, "Share of networks of known families that may count as new.", above=0, below=1
    )


@dataclass
class RetrieveConfig(DeviceConfig):
    """Settings of `nge retrieve train`."""

    kind: ClassVar[str] = "retrieve"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("model", "graphs", "networks", "quality", "novelty", "seconds")

    corpus: CorpusSection = field(default_factory=CorpusSection)
    retrieve: RetrieveSection = field(default_factory=RetrieveSection)
    encoder: EncoderSection = field(default_factory=EncoderSection)


@dataclass
class RetrieveBenchSection(Section):
    """Which encoders are compared, by which questions, and how often."""

    prefix: ClassVar[str] = "bench"

    models: list[str] = option(
        ["wl2", "wl1", "operations", "own"],
        "Encoders that are compared, each with the first.",
        choices=RETRIEVERS,
    )
    tasks: list[str] = option(
        ["unseen", "twins", "torchvision"],
        "Questions whose answers are known: families: networks of a family; unseen: of families that were drawn; "
        "twins: without what is nearly the same; torchvision: from torchvision to timm; seen: a tenth, from the "
        "rest; nas: the published set of searched networks; code: whose code a model takes over (transformers).",
        choices=RETRIEVAL_TASKS,
    )
    seeds: int = option(3, "Number of seeds; a seed divides, draws and trains.", at_least=1, at_most=1000)
    first_seed: int = option(0, "First of the seeds; the others follow it.", at_least=0, at_most=10**6)
    folds: int = option(
        5,
        "Number of parts of the families, each asked of an encoder that has not seen their names.",
        at_least=2,
        at_most=100,
    )
    families: int = option(20, "Number of families that are drawn for `unseen`.", at_least=1, at_most=10_000)

    def check(self) -> None:
        self.require_distinct("models", "tasks")


@dataclass
class NasSection(Section):
    """The published set of searched networks, as far as its paper tells how it was made."""

    prefix: ClassVar[str] = "nas"

    classes: int = option(10, "Number of centres, around which networks are drawn.", at_least=2, at_most=1000)
    members: int = option(3000, "Number of networks around each centre.", at_least=10, at_most=10**6)
    edits: int = option(
        8, "Number of genes in which a network differs from its centre, of 28.", at_least=1, at_most=28
    )


@dataclass
class RetrieveBenchConfig(DeviceConfig):
    """Settings of `nge retrieve bench`."""

    kind: ClassVar[str] = "retrieve_bench"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("graphs", "results", "comparisons", "seconds")

    corpus: CorpusSection = field(default_factory=CorpusSection)
    bench: RetrieveBenchSection = field(default_factory=RetrieveBenchSection)
    encoder: EncoderSection = field(default_factory=EncoderSection)
    nas: NasSection = field(default_factory=NasSection)
