"""Settings of a search by gradient descent in a supernet: `train_search.py`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from nge_search import operation_registry
from nge_search.settings.amounts import read_target
from nge_search.settings.base import Section, option, with_default
from nge_search.settings.embedding import EmbeddingSection
from nge_search.settings.names import (
    INPUT_NODES,
    SEARCH_OPERATIONS,
    SEARCH_TASKS,
    SELECTIONS,
    SUPERNET_SPACES,
)
from nge_search.settings.optimisation import SgdSection
from nge_search.settings.run import CommandConfig
from nge_search.settings.trial import TrialsSection


@dataclass
class SupernetSection(Section):
    """The proxy network in which all candidate operations share weights."""

    prefix: ClassVar[str] = "supernet"

    space: str = option(
        "darts",
        "Space that is searched: darts: normal and reduction cells; nasbench201: the cell of NAS-Bench-201 in its "
        "network, whose only settings are channels, cells, partial, kernel and sync_statistics.",
        choices=SUPERNET_SPACES,
    )
    channels: int = option(16, "Number of channels C of the first cell.", at_least=1, at_most=1024)
    cells: int = option(
        8,
        "Number of cells; those at 1/3 and 2/3 of the depth reduce. In nasbench201 a multiple of 3: as many in "
        "each of its stages.",
        at_least=1,
        at_most=200,
    )
    nodes: int = option(4, "Number of inner nodes per cell.", at_least=2, at_most=16)
    stem_multiplier: int = option(
        3, "Number of channels of the stem, in units of supernet.channels.", at_least=1, at_most=16
    )
    operations: list[str] = option(
        [*SEARCH_OPERATIONS],
        "Candidate operations, in the order of P's columns; also sep_conv_7x7, conv_7x1_1x7 and those of plugins.",
        choices=operation_registry.names,
    )
    partial: int = option(
        1,
        "Number K of parts of the channels of which one passes the mixed operation, while the others go by it, and "
        "all are shuffled (PC-DARTS): less memory.",
        at_least=1,
        at_most=64,
    )
    kernel: str = option(
        "fused",
        "Form of one function, with the same checkpoints: fused: fast; reference: the textbook's, operation by "
        "operation.",
        choices=("fused", "reference"),
        free_on_resume=True,
    )
    sync_statistics: bool = option(
        False,
        "Compute batch-normalisation statistics over all ranks, so that results do not depend on their number.",
    )

    @property
    def vertices(self) -> int:
        """Of a cell, inputs included."""
        return 4 if self.space == "nasbench201" else self.nodes + INPUT_NODES

    def check(self) -> None:
        if len(self.operations) < 2:
            raise self.refuse("operations", "a search needs at least two operations")
        if len(set(self.operations)) != len(self.operations):
            raise self.refuse("operations", "an operation is named twice")
        if self.partial > 1 and (self.channels % self.partial or self.channels < 2 * self.partial):
            raise self.refuse(
                "partial", f"divide {self.key('channels')}={self.channels} into parts of at least two"
            )
        if self.space == "nasbench201":
            self._check_nasbench201()

    def _check_nasbench201(self) -> None:
        if self.cells % 3:
            raise self.refuse("cells", f"{self.key('space')}=nasbench201 has three stages; set a multiple of 3")
        for item in dataclasses.fields(self):
            fixed = item.name in ("nodes", "operations", "stem_multiplier")
            default = item.default_factory() if callable(item.default_factory) else item.default
            if fixed and getattr(self, item.name) != default:
                raise self.refuse(item.name, f"fixed in {self.key('space')}=nasbench201; leave it out")


@dataclass
class SearchSection(SgdSection):
    """The bilevel search loop."""

    prefix: ClassVar[str] = "search"

    loop: str = option(
        "epochwise",
        "Order of the steps: epochwise: a pass for the weights, then one for the embedding (Algorithm 1); "
        "batchwise: in turn (DARTS).",
        choices=("epochwise", "batchwise"),
    )
    order: str = option(
        "first",
        "Order of P's gradient: first: weights held fixed; second: through one unrolled weight step (DARTS, "
        "Eq. 7-8).",
        choices=("first", "second"),
    )
    epochs: int = option(25, "Number of epochs of the search.", at_least=1)
    warmup_epochs: int | None = option(
        None,
        "Number of first epochs, in which the weights alone are trained; null: half of search.epochs where "
        "operations are sampled, else none.",
        at_least=0,
        unset=0,
    )
    mixture: str = option(
        "sampled",
        "What the supernet adds up: weighted: all operations, by P; sampled: at each step one operation for each "
        "edge, drawn from P; dirichlet: all, by weights drawn at each step from a Dirichlet distribution whose "
        "concentrations are ELU(logits) + 1, and whose mean is P (DrNAS).",
        choices=("weighted", "sampled", "dirichlet"),
        unset="weighted",
    )
    gradient: str = option(
        "relaxed",
        "P's gradient where operations are sampled: relaxed: a Gumbel-softmax's (GDAS); score: of the expected "
        "loss of what is drawn, by the score function (REINFORCE), from search.draws architectures on each batch.",
        choices=("relaxed", "score"),
    )
    temperature: float = option(
        1.0,
        "Temperature of the Gumbel-softmax of search.gradient=relaxed, and of the softmax by which a weighted "
        "mixture adds up, in the first epoch in which P learns.",
        above=0,
    )
    temperature_end: float | None = option(
        None,
        "Temperature in the last epoch, to which it moves linearly; null: search.temperature throughout.",
        above=0,
    )
    anchor_weight: float = option(
        1e-3,
        "Weight of the divergence of the edges' Dirichlet distributions from even ones in the architecture loss of "
        "search.mixture=dirichlet.",
        at_least=0,
    )
    draws: int = option(
        4, "Number of architectures that search.gradient=score compares on a batch.", at_least=2, at_most=64
    )
    batch_size: int = option(64, "Number of images per step, over all ranks together.", at_least=2)
    cost_weight: float = option(
        0.0,
        "Weight of the expected cost of all edges, relative to that of uniform P, in the architecture loss.",
        at_least=0,
    )
    cost: str = option(
        "macs",
        "What search.cost_weight weighs: macs: mult-adds; latency: seconds of each operation, measured on the "
        "searching device when the search starts, so that two searches are no longer the same bit for bit.",
        choices=("macs", "latency"),
    )
    target_macs: str | None = option(
        None,
        "Number of mult-adds per image of the derived network, such as 300M; the cells are found, and derived, to "
        "fit. The network is that of search.target_network and the settings beside it.",
    )
    target_params: str | None = option(
        None, "Number of parameters of the derived network, such as 3.3M, in place of search.target_macs."
    )
    target_network: str = option(
        "cifar", "Network in which the derived cells have the wanted size.", choices=("cifar", "imagenet")
    )
    target_channels: int | None = option(
        None,
        "Number of channels of that network's first cell; null: the published one, as of its cells and images.",
        at_least=1,
        at_most=1024,
    )
    target_cells: int | None = option(None, "Number of cells of that network.", at_least=1, at_most=200)
    target_classes: int | None = option(
        None,
        "Number of classes that the network of the wanted size tells apart; null: that of the searched images, and "
        "1000 for imagenet.",
        at_least=1,
        at_most=1_000_000,
    )
    target_image_size: int | None = option(
        None, "Side, in pixels, of the images of the network of the wanted size.", at_least=1, at_most=4096
    )
    entropy_weight: float = option(
        0.0,
        "Weight of P's entropy as a bonus, falling linearly to 0 over the search: keeps edges from settling early.",
        at_least=0,
    )
    beta_weight: float = option(
        0.0,
        "Weight of centred beta-decay (the mean over edges of the logsumexp of logits less their mean) in the "
        "architecture loss: rises linearly from 0, in the first epoch in which P learns, to this in the last.",
        at_least=0,
    )
    edge_normalisation: bool = option(
        False,
        "Weigh the edges that end in a node by a softmax of logits of their own, in the supernet and when cells "
        "are derived (PC-DARTS).",
    )
    embedding_warmup_epochs: int = option(
        0,
        "Number of epochs, from the first in which P learns, in which its learning rate rises to "
        "embedding.learning_rate.",
        at_least=0,
    )
    stop_count: int = option(
        0,
        "Number of search.stop_operations in the derived normal cell (NAS-Bench-201's has one kind) at which the "
        "search stops and keeps what it derived before (DARTS+: 2), once an epoch has derived fewer; 0: never.",
        at_least=0,
    )
    stop_operations: list[str] = option(
        ["skip_connect"],
        "Operations that search.stop_count counts.",
        choices=("skip_connect", "max_pool_3x3", "avg_pool_3x3", "none"),
    )
    average: bool = option(
        True,
        "Derive cells from the mean of P over the epochs in which it has learned, in place of the last P.",
        unset=False,
    )
    cuda_graphs: str = option(
        "auto",
        "Whether whole steps are replayed as CUDA graphs, launched at once; auto: on a GPU with one process, "
        "unless operations of plugins are searched.",
        choices=("auto", "always", "never"),
        free_on_resume=True,
    )
    evaluate_every: int = option(
        1, "Number of epochs between evaluations on the validation half; 0: after the last only.", at_least=0
    )

    # -- what is chosen at the end, and what it is compared with

    selection: str | None = option(
        None,
        "How a cell is chosen at the end: argmax: by P alone; short: by a short training (evaluator.*) of the cell "
        "that P derives and of those one edit away; perturbation: edge by edge, by what the supernet loses without "
        "an operation (DARTS-PT); predictor: among the same cells as short, by the predictor that ships; null: "
        "short, or argmax for cells of a wanted size.",
        choices=SELECTIONS,
        unset="argmax",
    )
    selection_operations: int = option(
        3,
        "Number of an edge's likeliest operations that search.selection=short|predictor tries on it.",
        at_least=1,
    )
    selection_starts: int = option(
        2,
        "Number of operations, the likeliest over all edges together, of which search.selection=short trains cells "
        "of that operation throughout beside the derived one, as long as finalists, to begin with the best; 0: it "
        "begins with the derived cell.",
        at_least=0,
    )
    selection_finalists: int = option(
        3,
        "Number of the best cells of search.selection=short that are trained once more, longer, from scratch, and "
        "the best of them is chosen; 1: the short trainings decide.",
        at_least=1,
        at_most=1000,
    )
    selection_longer: int = option(
        3, "How many times evaluator.steps these longer trainings take.", at_least=2, at_most=1000
    )
    selection_convolutions: float = option(
        0.5,
        "Smallest share of convolutions among the operations that search.selection=short begins with, for it to "
        "try edits: where there are fewer, short trainings favour skips.",
        at_least=0,
        at_most=1,
    )
    perturbation_steps: int = option(
        0,
        "Number of SGD steps that search.selection=perturbation trains the supernet for after each decision.",
        at_least=0,
    )
    baselines: bool = option(
        False,
        "Compare what is found with cells of one operation throughout, and with random ones, by the short training "
        "(evaluator.*) that decided: where the best were trained again, the longer one.",
    )
    random_cells: int = option(
        4, "Number of random cells that search.baselines trains.", at_least=1, at_most=10_000
    )

    @property
    def target(self) -> tuple[str, float] | None:
        """Which size is wanted, "macs" or "params", and how much of it; None: none."""
        return read_target(self.target_macs, self.target_params, self.key("target_"))

    @property
    def selected_by(self) -> str:
        """What chooses a cell at the end, of SELECTIONS."""
        return self.selection or ("short" if self.target is None else "argmax")

    @property
    def first_of_p(self) -> int:
        """The epoch in which P begins to learn."""
        if self.warmup_epochs is None:
            return self.epochs // 2 if self.mixture == "sampled" else 0
        return self.warmup_epochs

    @property
    def last_temperature(self) -> float:
        """In the last epoch."""
        return self.temperature if self.temperature_end is None else self.temperature_end

    def check(self) -> None:
        super().check()
        self.require_distinct("stop_operations")
        if (target := self.target) is not None:
            key = f"target_{target[0]}"
            for name, value, none in (
                ("selection", self.selected_by, "argmax"),
                ("cost_weight", self.cost_weight, 0),
                ("cost", self.cost, "macs"),
                ("stop_count", self.stop_count, 0),
            ):
                if value != none:
                    raise self.refuse(
                        key, f"needs {self.key(name)}={none}, not {value}, which knows of no wanted size"
                    )
        else:
            for name in ("target_channels", "target_cells", "target_classes", "target_image_size"):
                if getattr(self, name):
                    raise self.refuse(
                        name, "is of a wanted size: give search.target_macs or search.target_params, too"
                    )
        if self.first_of_p >= self.epochs:
            raise self.refuse("warmup_epochs", f"leaves none of {self.key('epochs')}={self.epochs} for P")
        if self.gradient == "score" and self.mixture != "sampled":
            raise self.refuse("gradient", f"needs {self.key('mixture')}=sampled")
        if self.gradient == "score" and self.order == "second":
            raise self.refuse("gradient", f"the loss is not differentiated; use {self.key('order')}=first")
        if self.gradient == "score" and self.edge_normalisation:
            raise self.refuse(
                "edge_normalisation", f"needs a gradient of the loss; use {self.key('gradient')}=relaxed"
            )
        if self.mixture == "dirichlet" and (self.temperature, self.last_temperature) != (1, 1):
            raise self.refuse("mixture", f"it has no temperature; leave {self.key('temperature')} out")


@dataclass
class SupernetEmbeddingSection(EmbeddingSection):
    """What turns a cell graph into the probabilities of a supernet's operations."""

    edges: str = with_default(EmbeddingSection, "edges", "split")


@dataclass
class SearchConfig(CommandConfig):
    """Settings of `train_search.py` (`nge search`)."""

    kind: ClassVar[str] = "search"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = (
        "genotype",
        "valid_top1",
        "epochs",
        "seconds",
        "images_per_second",
        "peak_memory_mb",
        "device",
    )

    task: str = option(
        "supernet",
        "How architectures are judged, by a supernet or by queries; each has settings of its own.",
        choices=SEARCH_TASKS,
    )
    supernet: SupernetSection = field(default_factory=SupernetSection)
    embedding: SupernetEmbeddingSection = field(default_factory=SupernetEmbeddingSection)
    search: SearchSection = field(default_factory=SearchSection)
    evaluator: TrialsSection = field(default_factory=TrialsSection)

    def check(self) -> None:
        self.embedding.check_vertices(self.supernet.vertices)
        if self.search.target is not None and self.supernet.space != "darts":
            why = f"is of cells of DARTS' space; leave it out with supernet.space={self.supernet.space}"
            raise self.search.refuse(f"target_{self.search.target[0]}", why)
        if self.search.selected_by == "short" or self.search.baselines:
            self.evaluator.check_space(self.supernet.space)
            self.evaluator.check_operations(self.supernet.operations)
