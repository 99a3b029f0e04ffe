"""A whole search: data, supernet and embedding, the loop, and the files it leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.load import read_architecture
from nge_search.data import Augmentation, Dataset, Loader, load_dataset, split_train_valid, store
from nge_search.data.class_folders import some
from nge_search.data.distributed import load_everywhere
from nge_search.data.own import loader_of
from nge_search.engine.closing import epochs
from nge_search.engine.given import Images, OnEpoch
from nge_search.engine.precision import weight_dtype
from nge_search.engine.run_reader import RunReader
from nge_search.engine.session import Session, run
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.selection import finish, require_selectable, result_lines
from nge_search.gradient.target import target_lines
from nge_search.kinds import DATASET, GENOTYPE, REPORT
from nge_search.recipes import retrain_command
from nge_search.settings.data import DataSection
from nge_search.settings.search import SearchConfig

#: Share of the largest entropy from which on P counts as uniform.
_UNDECIDED = 0.995


def run_search(
    config: SearchConfig, on_epoch: OnEpoch | None = None, dataset: Images | None = None
) -> dict[str, Any]:
    """Search as configured, or take up an unfinished search in `config.run.dir`; return its summary.

    Args:
        on_epoch: is called after every epoch.
        dataset: images in place of those that `config.data` names.

    Raises:
        UserError: data or a run folder that cannot be used.
        RunFailure: numbers are no longer finite.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    return run(config, lambda session: _search(session, dataset), finds=True, on_epoch=on_epoch)


def _search(session: Session, images: Images | None) -> dict[str, Any]:
    task = build_task(session, loader_of(images, session.config))
    require_selectable(task.config, task.space)
    loop = session.train(task, {DATASET: _describe(task.dataset)})
    with loop.closing() as row:
        found = task.found_in(row)
        derived = read_architecture(found, "the last checkpoint")
        task.space.code_of(derived)  # it may hold anything there
        shape = task.dataset.image_size, len(task.dataset.classes)
        figures = {
            "valid_top1": float(row["valid_top1"]),
            "expected_macs": float(row["expected_macs"]),
            **({"stopped": str(row["stopped"])} if "stopped" in row else {}),
            **({} if task.target is None else {"target": task.target.summary(row, derived, *shape)}),
            **({} if task.latency is None else {"latency": task.latency.how}),
        }
    chosen = finish(session, task, found)
    if task.config.search.selection == "argmax" and (said := undecided(row, task.space.cell_space)):
        figures["undecided"] = said
    return session.summary(loop, genotype=chosen.pop("genotype"), **figures, **chosen)


def undecided(row: Mapping[str, Any], space: CellSpace) -> str:
    """What is said of a P that has hardly moved, for the kind of cell of which it has least; empty if it has."""
    most = math.log(len(space.operations))
    entropy, kind = max((float(row[f"entropy_{kind}"]), kind) for kind in space.kinds)
    if not entropy >= _UNDECIDED * most:
        return ""
    return (
        f"P of the {kind} cell is close to uniform still (entropy {entropy:.3f} of {most:.3f} nats), so that small "
        "differences decide; more epochs move it further"
    )


def closing_lines(config: SearchConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished search."""
    folder = Path(config.run.dir)
    found = read_architecture(summary["genotype"])
    if found.genotype is None:
        cells = [found.text]
        after = f"look it up: nge table TABLE --find {folder}"
    else:
        cells = [
            f"{kind}: " + ", ".join(f"{operation}({node})" for operation, node in cell.genes)
            for kind, cell in found.genotype.cells()
        ]
        images = RunReader(folder, lenient=True).searched_images()
        own = found.genotype.plugins.values()
        data, sizes = dataclasses.asdict(config.data), summary.get("target")
        after = f"retrain it: {retrain_command(folder, data, images, own, sizes)}"
    return [
        *cells,
        *(summary[name] for name in ("stopped", "undecided") if name in summary),
        *target_lines(summary),
        *result_lines(summary),
        f"validation top-1 {summary['valid_top1']:.2f} % after {epochs(summary)}, "
        f"{summary['seconds']:.0f} s, {summary['images_per_second']:.1f} images/s, "
        f"peak memory {summary['peak_memory_mb']:.0f} MB on {summary['device']}",
        f"genotype {folder / GENOTYPE}, report {folder / REPORT}",
        after,
    ]


def build_task(session: Session, load: Callable[[DataSection], Dataset] = load_dataset) -> BilevelSearch:
    """The search's state on this rank: its images, supernet and embedding, untrained."""
    config, world = session.config, session.world
    assert isinstance(config, SearchConfig)
    dataset = load_everywhere(session, config.data, load)
    train_index, valid_index = split_train_valid(dataset.train.labels_N, dataset.classes, config.data, config.seed)
    names = f" ({some(dataset.classes)})" if dataset.name == "folder" else ""
    session.say(
        f"{dataset.name}: {len(train_index)} images train the weights, {len(valid_index)} the architecture; "
        f"{len(dataset.classes)} classes{names}, {dataset.image_size}x{dataset.image_size} pixels"
    )
    images = store(dataset.train, config.data, world.device, config.run.worker_patience)
    augmentation = Augmentation(config.data, dataset)

    def loader(index, stream: str, train: bool) -> Loader:
        return Loader(
            images,
            index,
            augmentation,
            batch_size=config.search.batch_size,
            train=train,
            seed=config.seed,
            stream=stream,
            rank=world.rank,
            world_size=world.size,
            dtype=weight_dtype(config.precision),
        )

    task = BilevelSearch(
        config,
        dataset,
        loader(train_index, "train", True),
        loader(valid_index, "architecture", True),
        loader(valid_index, "valid", False),
        world,
    )
    task.load = load
    return task


def _describe(dataset: Dataset) -> dict[str, Any]:
    """What a retraining of what is found should fit."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "train_images": len(dataset.train),
        "image_size": dataset.image_size,
        "channels": dataset.channels,
    }
