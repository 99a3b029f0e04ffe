"""A cell from a supernet, decision by decision, by what it loses without a candidate.

Perturbation-based selection (Wang et al., "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021,
Algorithm 1): edge by edge, in random order, each operation is taken out of the mixture in turn, and the one without
which the supernet's validation accuracy is lowest is the edge's from then on. Then, where a node keeps two of its
incoming edges, the two without which the accuracy is lowest stay. What is taken out leaves a zero: the other
probabilities are not scaled up. Accuracies are those of evaluation mode; of equal ones the larger loss counts. The
paper trains the supernet on after each decision; here that is an option.

Each decision is an epoch of a loop of its own, in a folder below that of the search: it goes on where it was
stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import EDGES_PER_NODE
from nge_search.data import Batch, Loader
from nge_search.data.split import few_per_class
from nge_search.engine.loop import Loop, average_buffers
from nge_search.engine.optimisers import cosine, set_learning_rate
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.engine.run_files import TRIALS
from nge_search.engine.run_folder import RunFolder
from nge_search.engine.session import Session
from nge_search.engine.task import Figures, Phase, Task
from nge_search.errors import UserError, shorten
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.json_reader import Reader
from nge_search.metrics.ranks import Ranks
from nge_search.spaces import Code

#: Of its folder.
NAME = "perturbation"


class Decision(NamedTuple):
    """What is decided at once: the operation of an edge, or which edges a node keeps.

    Attributes:
        kind: position of the kind of cell.
        edges: one edge, or all that lead to a node.
        keep: how many of the options stay: of an edge one operation, of a node's edges so many.
    """

    kind: int
    edges: tuple[int, ...]
    keep: int

    @property
    def of_operation(self) -> bool:
        return len(self.edges) == 1


def decisions(space: CellSpace, keeps_all: bool, seed: int) -> list[Decision]:
    """All that is to be decided, in an order that depends on the seed alone; operations first.

    Args:
        keeps_all: whether cells keep all edges, as in NAS-Bench-201.
    """
    random, kinds = np.random.default_rng(seed), range(len(space.kinds))
    found = [Decision(kind, (edge,), 1) for kind in kinds for edge in range(len(space.edges))]
    found = [found[place] for place in random.permutation(len(found))]
    if keeps_all:
        return found
    nodes = [(kind, node) for kind, node in itertools.product(kinds, space.inner) if node > EDGES_PER_NODE]
    for place in random.permutation(len(nodes)):
        kind, node = nodes[place]
        found.append(Decision(kind, tuple(space.incoming(node)), EDGES_PER_NODE))
    return found


def without(matrices: Sequence[Tensor], decision: Decision, option: int) -> list[Tensor]:
    """The probabilities with a zero for an option: an operation of the edge, or one of the edges."""
    found = list(matrices)
    changed_EO = found[decision.kind] = found[decision.kind].clone()
    if decision.of_operation:
        changed_EO[decision.edges[0], option] = 0
    else:
        changed_EO[decision.edges[option]] = 0
    return found


def decided(matrices: Sequence[Tensor], decision: Decision, kept: Sequence[int]) -> list[Tensor]:
    """The probabilities once options are kept: a one for an edge's operation, zeros for edges that are not."""
    found = list(matrices)
    changed_EO = found[decision.kind] = found[decision.kind].clone()
    if decision.of_operation:
        changed_EO[decision.edges[0]] = 0
        changed_EO[decision.edges[0], kept[0]] = 1
    else:
        for option, edge in enumerate(decision.edges):
            if option not in kept:
                changed_EO[edge] = 0
    return found


class Removals:
    """Hits, losses and images, summed over images, without each of some options.

    Attributes:
        sums: [3 M] for M options.
    """

    shown: ClassVar[tuple[str, ...]] = ("top1",)

    def __init__(self, options: int, device: torch.device):
        self.sums = torch.zeros(3 * options, dtype=torch.float64, device=device)

    def reset(self) -> None:
        self.sums.zero_()

    @torch.no_grad()
    def update(self, option: int, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Add a batch; nothing is read back."""
        hits = (logits_BK.argmax(dim=1) == labels_B).sum()
        loss = functional.cross_entropy(logits_BK, labels_B, reduction="sum")
        self.sums.view(3, -1)[:, option] += torch.stack(
            [hits.double(), loss.double(), torch.full_like(hits, len(labels_B)).double()]
        )

    def of_options(self, ranks: Ranks, options: int) -> tuple[list[float], list[float]]:
        """Top-1 accuracy in percent and mean loss without each of the first options, over all ranks."""
        hits_M, loss_M, count_M = ranks.gather_rows(self.sums).sum(dim=0).view(3, -1)[:, :options]
        return (100 * hits_M / count_M).tolist(), (loss_M / count_M).tolist()

    def result(self, ranks: Ranks) -> dict[str, float]:
        """The accuracy over all options so far; empty if nothing was added."""
        hits, _, count = ranks.gather_rows(self.sums).sum(dim=0).view(3, -1).sum(dim=1).tolist()
        return {"top1": 100 * hits / count} if count else {}


class Perturbation(Task):
    """The decisions about a supernet that has been trained.

    Args:
        search: what trained it.

    Attributes:
        matrices: P as it stands: of edges that are decided ones and zeros.
        kept: of each decision so far the options that stay; `top1`: in percent, what each removal left.
    """

    unit = "images"
    tags: ClassVar[Mapping[str, str]] = {"top1_without": "perturbation/top1_without"}

    def __init__(self, search: BilevelSearch):
        self.search, self.world, self.config = search, search.world, search.config
        search.mixture = None  # P itself is the mixture from here on, whatever was made of it before
        self.fingerprint, self.origin = search.fingerprint, search.origin
        space = search.space
        self.space = space.cell_space
        keeps_all = space.kept == len(self.space.edges)
        self.decisions = decisions(self.space, keeps_all, self.config.seed)
        self.first = [p_EO.detach().clone() for p_EO in search.architecture.probabilities()]
        self.matrices, self.kept, self.top1 = self.first, list[list[int]](), list[list[float]]()
        self.edge_weights = search.architecture.mixing()[len(self.first) :]
        self.epochs = len(self.decisions)
        self.removals = Removals(max(map(self.options, self.decisions)), self.world.device)
        self.valid = self._valid_loader()
        self.phases = [_TuningPhase(self), _RemovalPhase(self)]
        self.meters: dict[str, Figures] = {"train": search.meters["train"], "removal": self.removals}
        self.found, self.finite = {}, search.finite

    def _valid_loader(self) -> Loader:
        given, dataset = self.search.evaluation, self.search.dataset
        limit = self.config.evaluator.valid_images
        return Loader(
            given.images,
            few_per_class(dataset.train.labels_N, given.index_M, len(dataset.classes), limit),
            given.augmentation,
            batch_size=given.batch_size,
            train=False,
            rank=self.world.rank,
            world_size=self.world.size,
            dtype=weight_dtype(self.config.precision),
        )

    def options(self, decision: Decision) -> int:
        """How many there are."""
        return len(self.space.operations) if decision.of_operation else len(decision.edges)

    def train_step(self, batch: Batch, decision: int) -> None:
        """One step of the weights, with P as it stands."""
        section = self.config.search
        rate = cosine(decision, self.epochs, section.learning_rate, section.learning_rate_min)
        set_learning_rate(self.search.weight_optimiser, rate)
        self.search.weight_step(batch, [*self.matrices, *self.edge_weights])

    @torch.no_grad()
    def removal_step(self, batch: Batch, matrices: Sequence[Tensor], option: int) -> None:
        """Add a batch's outcome under probabilities from which an option was taken."""
        if len(batch.labels_B) == 0:
            return
        with forward_context(self.config.precision, self.world.device):
            weights = self.search.mix([*matrices, *self.edge_weights])
            logits_BK = self.search.supernet(batch.images_BCHW, *weights)
        self.removals.update(option, full_precision(logits_BK), batch.labels_B)

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        """Decide."""
        decision = self.decisions[epoch]
        top1, losses = self.removals.of_options(self.world, self.options(decision))
        ranked = sorted(range(len(top1)), key=lambda option: (top1[option], -losses[option], option))
        self._take(sorted(ranked[: decision.keep]), top1)
        return {**self.describe(epoch), "loss": losses, "top1_without": top1[ranked[0]]}

    def _take(self, kept: list[int], top1: list[float]) -> None:
        self.matrices = decided(self.matrices, self.decisions[len(self.kept)], kept)
        self.kept.append(kept)
        self.top1.append(top1)

    def describe(self, place: int) -> dict[str, Any]:
        """A decision that was taken."""
        decision, kept = self.decisions[place], self.kept[place]
        edges = [list(self.space.edges[edge]) for edge in decision.edges]
        names: list[Any] = list(self.space.operations) if decision.of_operation else edges
        return {
            "kind": self.space.kinds[decision.kind],
            "edges": edges,
            "kept": [names[option] for option in kept],
            "top1": self.top1[place],
        }

    def code(self) -> Code:
        """The architecture once all is decided."""
        derived = self.search.space.derive([p_EO.cpu() for p_EO in self.matrices])
        return self.search.space.code_of(derived)

    # -- what the loop asks of a task

    def state_dict(self) -> dict[str, Any]:
        return {**self.search.state_dict(), "kept": [list(own) for own in self.kept], "without": list(self.top1)}

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        self.search.load_state_dict(state, source)
        self.matrices, self.kept, self.top1 = self.first, [], []
        reader = Reader(source, state)
        kept, top1 = reader.any("kept"), reader.any("without")
        try:
            for own, figures in zip(list(kept), list(top1), strict=True):
                decision = self.decisions[len(self.kept)]
                fits = len(set(own)) == decision.keep and all(0 <= x < self.options(decision) for x in own)
                if not fits:
                    raise ValueError
                self._take([int(option) for option in own], [float(figure) for figure in figures])
        except (TypeError, ValueError, IndexError):
            raise UserError(f"{source} is damaged: 'kept' holds no decisions ({shorten(kept)})") from None

    def local_buffers(self) -> list[Tensor]:
        return self.search.local_buffers()

    def exactness(self) -> dict[str, Any]:
        return self.search.exactness()

    def line(self, row: dict[str, Any]) -> str:
        edges = ", ".join("→".join(map(str, edge)) for edge in row["edges"])
        kept = ", ".join(own if isinstance(own, str) else "→".join(map(str, own)) for own in row["kept"])
        return f"{row['kind']} {edges}: {kept} stays, without which {row['top1_without']:.2f} % were right"


class _TuningPhase(Phase):
    """The weights follow a decision."""

    name = "train"

    def __init__(self, task: Perturbation):
        self.task = task

    def steps(self, epoch: int) -> int:
        return self.task.config.search.perturbation_steps if epoch else 0

    def start(self, epoch: int) -> None:
        self.epoch = epoch
        self.task.search.supernet.train()

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        batches = self.task.search.train.endless(self.task.config.search.epochs + epoch, first)
        return ((batch,) for _, batch in zip(range(first, self.steps(epoch)), batches))

    def step(self, *batches: Batch) -> None:
        self.task.train_step(batches[0], self.epoch)

    def finish(self, epoch: int) -> None:
        average_buffers(self.task.search.supernet, self.task.world)


class _RemovalPhase(Phase):
    """Every validation image without each option in turn."""

    name = "removal"
    trains = False

    def __init__(self, task: Perturbation):
        self.task = task

    def steps(self, epoch: int) -> int:
        return self.task.options(self.task.decisions[epoch]) * self.task.valid.steps

    def start(self, epoch: int) -> None:
        self.decision = self.task.decisions[epoch]
        self.task.search.supernet.eval()

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        option, start = divmod(first, self.task.valid.steps)
        while option < self.task.options(self.decision):
            self.option = option
            self.matrices = without(self.task.matrices, self.decision, option)
            for batch in self.task.valid.iterate(epoch, start):
                yield (batch,)
            option, start = option + 1, 0

    def step(self, *batches: Batch) -> None:
        self.task.removal_step(batches[0], self.matrices, self.option)


def perturb(session: Session, search: BilevelSearch) -> tuple[Code, dict[str, Any]]:
    """The architecture that is left of a supernet, and a record of all decisions; called on every rank.

    Raises:
        UserError: a folder of it that cannot be used.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    given = search.config
    place = str(Path(given.run.dir) / TRIALS / NAME)
    run = dataclasses.replace(given.run, name=NAME, dir=place, overwrite=False, tensorboard=False)
    config, opened = dataclasses.replace(given, run=run), list[RunFolder]()

    def begin() -> None:
        opened.append(RunFolder(config))
        opened[0].begin()
        opened[0].write_config()

    try:
        session.world.on_main(begin)
        task = Perturbation(search)
        loop = Loop(task, opened[0] if opened else None, config, session.world)
        loop.resume()
        loop.run()
    finally:
        for folder in opened:
            folder.close()
    steps = given.search.perturbation_steps
    return task.code(), {"decisions": list(map(task.describe, range(task.epochs))), "steps": steps}
