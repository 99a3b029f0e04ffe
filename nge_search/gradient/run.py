"""A whole search: data, supernet and embedding, the loop, and the files it leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nge_search.architecture.load import Architecture, read_architecture
from nge_search.data import Augmentation, Dataset, Loader, split_train_valid, store
from nge_search.engine.closing import epochs
from nge_search.engine.precision import weight_dtype
from nge_search.engine.run_reader import RunReader
from nge_search.engine.session import Session, open_session
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.recipes import retrain_command
from nge_search.settings.search import SearchConfig


def run_search(config: SearchConfig) -> dict[str, Any]:
    """Search as configured, or take up an unfinished search in `config.run.dir`; return its summary.

    Raises:
        UserError: data or a run folder that cannot be used.
        RunFailure: numbers are no longer finite.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    with open_session(config) as session:
        if session.finished is not None:
            return session.finished
        task = build_task(session)
        loop = session.train(task, {"dataset.json": session.facts})
        with loop.closing() as row:
            found = read_architecture(row["genotype"], "the last epoch's row")
            task.space.code_of(found)  # a checkpoint may hold anything there
            summary = session.summary(
                loop,
                genotype=row["genotype"],
                valid_top1=float(row["valid_top1"]),
                expected_macs=float(row["expected_macs"]),
            )
        session.world.on_main(lambda: _write_results(session, summary, found))
        return summary


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
        after = f"retrain it: {retrain_command(folder, dataclasses.asdict(config.data), images)}"
    return [
        *cells,
        f"validation top-1 {summary['valid_top1']:.2f} % after {epochs(summary)}, "
        f"{summary['seconds']:.0f} s, {summary['images_per_second']:.1f} images/s, "
        f"peak memory {summary['peak_memory_mb']:.0f} MB on {summary['device']}",
        f"genotype {folder / 'genotype.json'}, report {folder / 'report.html'}",
        after,
    ]


def build_task(session: Session) -> BilevelSearch:
    """The search's state on this rank: its images, supernet and embedding, untrained."""
    config, world = session.config, session.world
    assert isinstance(config, SearchConfig)
    dataset = session.load_dataset()
    session.facts = _describe(dataset)
    train_index, valid_index = split_train_valid(dataset.train.labels_N, dataset.classes, config.data, config.seed)
    session.say(
        f"{dataset.name}: {len(train_index)} images train the weights, {len(valid_index)} the architecture; "
        f"{len(dataset.classes)} classes, {dataset.image_size}x{dataset.image_size} pixels"
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

    return BilevelSearch(
        config,
        len(dataset.classes),
        dataset.channels,
        dataset.image_size,
        loader(train_index, "train", True),
        loader(valid_index, "architecture", True),
        loader(valid_index, "valid", False),
        world,
    )


def _describe(dataset: Dataset) -> dict[str, Any]:
    """What a retraining of what is found should fit."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "train_images": len(dataset.train),
        "image_size": dataset.image_size,
        "channels": dataset.channels,
    }


def _write_results(session: Session, summary: dict[str, Any], found: Architecture) -> None:
    from nge_search.report import save_drawings, write_report

    folder = session.folder
    assert folder is not None
    folder.write_json("genotype.json", found.document)
    save_drawings(found.graphs, folder.path)
    write_report(folder.path, summary)
    folder.finish(summary)
