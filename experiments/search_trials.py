"""What `search_quality.py` runs: searches, selections, shared weights, and trainings of what was found.

Each trial is a row; its searches and trainings are run folders under runs/search_quality, which a repeated call
goes on with or reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nge_search
from nge_search.data.split import few_per_class
from nge_search.engine.run_reader import RunReader
from nge_search.engine.session import Session, open_session
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.run import build_task
from nge_search.gradient.selection import Answer, by_short_trainings, candidates
from nge_search.metrics.ranking import kendall_tau
from nge_search.networks.families import FAMILIES
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig, SearchSection
from nge_search.settings.strategies import QueriesConfig
from nge_search.spaces import Code, NasBench201Space
from nge_search.tables import Table, open_table
from nge_search.training.evaluator import open_trainings

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "search_quality"
COLUMNS = ("cifar10_test_200", "cifar10_valid_200", "cifar100_valid_200")
QUIET = ("threads=1", "run.progress=none", "run.tensorboard=false")
IMAGES = ("data.name=folder", "data.limit=20000", "data.image_size=16")
#: Of a short training in NAS-Bench-201's space.
SHORT = ("steps=100", "batch_size=64", "channels=8", "cells=9", "valid_images=2500")
SUPERNET = ("supernet.channels=16", "supernet.cells=3", "search.evaluate_every=0")
PRINTED, SPLIT = "embedding.edges=printed", "embedding.edges=split"
LAST, ARGMAX = "search.average=false", "search.selection=argmax"


def short_selection(*words: str) -> tuple[str, ...]:
    """Settings of a selection by short trainings, each of which is as these words say."""
    return ("search.selection=short", *(f"evaluator.{word}" for word in words))


SELECTION = short_selection(*SHORT)
#: One operation an edge drawn from P; all operations weighted by P, as published.
DRAWN = (
    *("search.mixture=sampled", "search.gradient=relaxed", "search.epochs=20", "search.warmup_epochs=12"),
    *(PRINTED, ARGMAX),
)
PAPER = (
    *("search.mixture=weighted", "search.gradient=relaxed", "search.epochs=12", "search.warmup_epochs=0"),
    *(PRINTED, LAST, ARGMAX, "embedding.initialisation=he", "embedding.learning_rate=6e-4"),
)
DIRECT = ("embedding.kind=direct", "embedding.learning_rate=3e-4")
#: Of the search in which P is learned, for the weighted mixture: tried on seeds that are not reported.
VARIANTS: dict[str, tuple[str, ...]] = {
    "as published": PAPER,
    "split": (*PAPER, SPLIT),
    "split, rate 6e-5": (*PAPER, SPLIT, "embedding.learning_rate=6e-5"),
    "split, rate 6e-5, 6 epochs of weights first": (
        *PAPER,
        SPLIT,
        "embedding.learning_rate=6e-5",
        "search.warmup_epochs=6",
    ),
    "split, beta 50": (*PAPER, SPLIT, "search.beta_weight=50"),
    "split, Dirichlet": (*PAPER, SPLIT, "search.mixture=dirichlet", "search.anchor_weight=0.001"),
    "jumping, uniform start": (*PAPER, "embedding.jumping=true", "embedding.uniform_start=true"),
    "rate 2e-5, uniform start": (*PAPER, "embedding.uniform_start=true", "embedding.learning_rate=2e-5"),
}
#: Of those, what is reported on fresh seeds.
REMEDY = (*VARIANTS["split, Dirichlet"], "search.average=true")
#: Searches that are reported.
SEARCHES: dict[str, tuple[str, ...]] = {
    "nge, drawn": (*DRAWN, *SELECTION),
    "nge, drawn, last P": (*DRAWN, LAST, *SELECTION),
    "nge, drawn, last P, no starts": (*DRAWN, LAST, *SELECTION, "search.selection_starts=0"),
    "nge, drawn, last P, no starts, no finals": (
        *(*DRAWN, LAST, *SELECTION),
        *("search.selection_starts=0", "search.selection_finalists=1"),
    ),
    "direct, drawn": (*DRAWN, *DIRECT, *SELECTION),
    "nge, drawn, 6 cells": (*DRAWN, *SELECTION, "supernet.cells=6"),
    "nge, weighted, remedies": (*REMEDY, *SELECTION),
    "direct, weighted, remedies": (*REMEDY, *DIRECT, PRINTED, *SELECTION),
    "nge, drawn, batchwise": (*DRAWN, "search.loop=batchwise"),
}
#: Cells of the space that a ranking by shared weights is tried on, and images of each.
RANKED, RANKED_IMAGES = 100, 1000
#: What a selection without a search's P tries on each edge.
TRIED = ("nor_conv_3x3", "nor_conv_1x1", "skip_connect")
_CONVOLUTIONS = ("nor_conv_3x3", "nor_conv_1x1")


@dataclass(frozen=True)
class Trial:
    """One row: a part of the experiment, a method of it, and the seed."""

    part: str
    method: str
    seed: int

    @property
    def folder(self) -> Path:
        words = "".join(c if c.isalnum() else "-" for c in self.method)
        return RUNS / self.part / f"{words}-{self.seed}"


@dataclass(frozen=True)
class Inputs:
    """Where the images (a folder of PNGs by class) and the table of NAS-Bench-201 are."""

    images: str
    table: str

    def words(self, trial: Trial) -> tuple[str, ...]:
        return (*QUIET, *IMAGES, f"data.root={self.images}", f"seed={trial.seed}", f"run.dir={trial.folder}")


def truth(table: Table, code: Code) -> dict[str, Any]:
    """An architecture's true accuracies in percent."""
    row = table.find(code)
    return {
        "cell": short_text(code),
        **{name: round(float(table.column(name)[row]), 4) for name in COLUMNS if name in table.columns},
    }


def short_text(code: Code) -> str:
    """A letter for the operation of each edge: z none, s skip_connect, 1 and 3 convolutions, a avg_pool_3x3."""
    return "".join("zs13a"[operation] for operation in code)


def search(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """A search by gradients, what it derived, and what a selection made of it."""
    words = SEARCHES[trial.method] if trial.part == "search" else VARIANTS[trial.method]
    config = ROOT / "configs" / "search" / "nb201_gradient.yaml"
    summary = nge_search.search(config, *inputs.words(trial), *SUPERNET, *words)
    table = open_table(inputs.table)
    rows = [json.loads(line) for line in (trial.folder / "metrics.jsonl").read_text().splitlines()]
    codes = [table.space.parse(row["genotype"]["architecture"]) for row in rows]
    found = {
        "found": truth(table, table.space.parse(summary["genotype"]["architecture"])),
        "derived": truth(table, codes[-1]),
        "by_epoch": [truth(table, code)[COLUMNS[0]] for code in codes],
        "epoch_seconds": [row["seconds"] for row in rows],
        "p": [[round(p, 4) for p in own] for own in rows[-1]["p_cell"]],
    }
    if selection := summary.get("selection"):
        found["selection"] = _shown_selection(table, selection)
    return found


def _shown_selection(table: Table, selection: dict[str, Any]) -> dict[str, Any]:
    found = {name: selection[name] for name in ("off", "seconds") if name in selection}
    for name in ("starts", "trials", "finals"):
        found[name] = {
            short_text(table.space.parse(own["architecture"])): round(own["value"], 4)
            for own in selection.get(name, [])
        }
    return found


class Trainings:
    """Short trainings in NAS-Bench-201's space, outside of a search."""

    def __init__(self, trial: Trial, inputs: Inputs, *more: str):
        own = [f"evaluator.{word}" for word in (*SHORT, "kind=training", "space=nasbench201", *more)]
        place = trial.folder.with_name("-".join((trial.folder.name, *more)))
        config = load_config(QueriesConfig, None, [*inputs.words(trial), *own, f"run.dir={place}"])
        place.mkdir(parents=True, exist_ok=True)
        self.space = NasBench201Space()
        self._asked = open_trainings(config, config.evaluator, self.space, torch.device("cpu"), lambda text: None)

    def best(self, codes: Sequence[Code], longer: int = 1) -> tuple[Code, dict[str, float]]:
        """The best of some cells, and the value of each, after so many times the steps."""
        asked = self._asked if longer == 1 else self._asked.longer(longer)
        answers = [asked(code) for code in codes]
        chosen, _ = by_short_trainings(self.space, codes, [Answer(answer.value, {}) for answer in answers])
        return chosen, {short_text(code): round(answer.value, 4) for code, answer in zip(codes, answers)}


def _start(trial: Trial) -> Code:
    """Where a selection starts: a random cell with three convolutions or more, or one operation throughout."""
    space = NasBench201Space()
    operations = space.cell_space.operations
    if trial.method == "random start":
        random = np.random.default_rng(trial.seed)
        start = space.random(random)
        while sum(operations[operation] in _CONVOLUTIONS for operation in start) < 3:
            start = space.random(random)
    else:
        start = space.throughout(operations.index(trial.method))
    return start


def neighbours(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """Selection by short trainings without any search: from a random cell, or from one operation throughout."""
    table, space = open_table(inputs.table), NasBench201Space()
    start, operations = _start(trial), space.cell_space.operations
    tried = [[operations.index(name) for name in TRIED]] * space.length
    codes, trainings = candidates(space, start, [tried]), Trainings(trial, inputs)
    first, values = trainings.best(codes)
    ranked = sorted(codes, key=lambda code: -values[short_text(code)])[: SearchSection().selection_finalists]
    chosen, longer = trainings.best(ranked, SearchSection().selection_longer)
    return {
        "start": truth(table, start),
        "found": truth(table, chosen),
        "short": truth(table, first),
        "values": values,
        "longer": longer,
    }


def random_search(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """The best of so many random cells by short trainings; the method ends in their number."""
    table, space = open_table(inputs.table), NasBench201Space()
    random = np.random.default_rng(trial.seed)
    codes = list({space.key(code): code for code in (space.random(random) for _ in range(1000))}.values())
    chosen, values = Trainings(trial, inputs).best(codes[: int(trial.method.split()[0])])
    return {"found": truth(table, chosen), "values": values}


def shared(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """How a supernet's shared weights rank random cells, and the best of them by these.

    The weights of "uniform" never saw another P; others are those at the end of a search that is reported.
    """
    table, space = open_table(inputs.table), NasBench201Space()
    config = ROOT / "configs" / "search" / "nb201_gradient.yaml"
    source = trial if trial.method == "uniform" else Trial("search", trial.method, trial.seed)
    words = [*inputs.words(source), *SUPERNET, *SEARCHES.get(trial.method, (*DRAWN, "search.warmup_epochs=19"))]
    nge_search.search(config, *words)
    again = load_config(SearchConfig, config, [*words, f"run.dir={trial.folder}-ranked", "run.overwrite=true"])
    checkpoint = RunReader(source.folder).checkpoint()
    random = np.random.default_rng(trial.seed)
    codes = [space.random(random) for _ in range(RANKED)]
    with open_session(again) as session:
        losses = one_shot_losses(session, checkpoint.state.document["task"], codes)
    accuracies = [truth(table, code)[COLUMNS[0]] for code in codes]
    sizes = [_params(space, code) for code in codes]
    best = min(range(RANKED), key=losses.__getitem__)
    return {
        "tau": round(kendall_tau([-loss for loss in losses], accuracies), 4),
        "tau_params": round(kendall_tau(sizes, accuracies), 4),
        "found": truth(table, codes[best]),
    }


@torch.no_grad()
def one_shot_losses(session: Session, state: dict[str, Any], codes: Sequence[Code]) -> list[float]:
    """Mean loss on validation images of each cell under a supernet's weights, with batches' own statistics."""
    task: BilevelSearch = build_task(session)
    task.load_state_dict(state, "the search")
    task.mixture = None
    labels_N = task.dataset.train.labels_N
    task.evaluation.index_M = few_per_class(labels_N, task.evaluation.index_M, 10, RANKED_IMAGES)
    batches = list(task.evaluation.iterate(0))
    task.supernet.train()
    losses = []
    for code in codes:
        p_EO = torch.nn.functional.one_hot(torch.tensor(code), len(task.space.cell_space.operations)).float()
        losses.append(sum(float(task.loss(batch, (p_EO,))) * batch.total for batch in batches) / RANKED_IMAGES)
    return losses


def _params(space: NasBench201Space, code: Code) -> int:
    network = FAMILIES["nasbench201"].build(space.graphs(code), 16, 3, 10, 3)
    return sum(parameter.numel() for parameter in network.parameters())


def strategy(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """A search of 24 short trainings by a strategy, two side by side, judged by the true accuracies."""
    words = [f"evaluator.{word}" for word in (*SHORT, "kind=training", "space=nasbench201")]
    more = ("evaluator.processes=2", "evaluator.pending=2", f"strategy.name={trial.method}", "strategy.queries=24")
    start = time.perf_counter()
    summary = nge_search.search(
        {"task": "queries"}, *inputs.words(trial), *words, *more, *STRATEGY_WORDS.get(trial.method, ())
    )
    table = open_table(inputs.table)
    return {
        "found": truth(table, table.space.parse(summary["genotype"]["architecture"])),
        "seconds": round(time.perf_counter() - start, 1),
    }


#: Of strategies whose defaults are for more queries than 24.
STRATEGY_WORDS: dict[str, tuple[str, ...]] = {
    "nge_evolution": ("strategy.population=8", "strategy.tournament=3"),
}
