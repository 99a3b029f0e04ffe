"""A whole retraining: data, a network stacked from a genotype, the loop, and the files it leaves."""

from __future__ import annotations

from typing import Any

import torch

from nge_search.counting import count_parameters, multiply_adds
from nge_search.data import Augmentation, Dataset, Feed, ImageSource, store
from nge_search.engine.precision import weight_dtype
from nge_search.engine.session import Session, open_session
from nge_search.errors import UserError
from nge_search.genotype import Genotype, load_genotype
from nge_search.networks.classifier import Classifier
from nge_search.networks.families import FAMILIES
from nge_search.networks.training import ClassifierTraining
from nge_search.schema import EvalConfig


def run_eval(config: EvalConfig) -> dict[str, Any]:
    """Train `config.network.genotype` as configured, or take up an unfinished training; return its summary.

    The headline error is that of the last epoch, not the best.

    Raises:
        UserError: a genotype, data or run folder that cannot be used.
        RunFailure: numbers are no longer finite.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    genotype = load_genotype(config.network.genotype)
    with open_session(config) as session:
        session.world.on_main(lambda: _require_same_genotype(session, genotype))
        if session.finished is not None:
            return session.finished
        dataset = session.load_dataset()
        task = build_task(session, genotype, dataset)
        plain = build_network(config, genotype, dataset, auxiliary=False)
        shape = (1, dataset.channels, dataset.image_size, dataset.image_size)
        size = {"params": count_parameters(plain), "macs": multiply_adds(plain, shape)}
        session.say(f"{size['params']:,} parameters, {size['macs'] / 1e6:.2f}M mult-adds per image")
        loop = session.train(task, {"genotype.json": genotype.to_dict()})
        row = loop.last_row
        summary = session.summary(
            loop,
            top1_error=100 - row["test_top1"],
            top5_error=100 - row["test_top5"],
            **size,
            genotype=genotype.to_dict(),
        )
        session.world.on_main(lambda: _write_results(session, summary))
        return summary


def build_task(session: Session, genotype: Genotype, dataset: Dataset) -> ClassifierTraining:
    """The configured training, at its start, of the network stacked from `genotype`.

    Raises:
        UserError: the auxiliary head does not fit the images.
    """
    config = session.config
    assert isinstance(config, EvalConfig)
    if config.network.auxiliary:
        family = FAMILIES[config.network.kind]
        family.network.require_auxiliary_fits(dataset.image_size, config.network.cells)
    network = build_network(config, genotype, dataset, config.network.auxiliary)
    return ClassifierTraining(config, network, *_feeds(session, dataset), session.world)


def build_network(config: EvalConfig, genotype: Genotype, dataset: Dataset, auxiliary: bool) -> Classifier:
    """The untrained network; without its auxiliary head it is the one whose size papers give."""
    section = config.network
    return FAMILIES[section.kind].build(
        genotype,
        section.channels,
        section.cells,
        len(dataset.classes),
        dataset.channels,
        auxiliary,
        section.stem_multiplier if section.kind == "cifar" else None,
    )


def _feeds(session: Session, dataset: Dataset) -> tuple[Feed, Feed]:
    config, world = session.config, session.world
    assert isinstance(config, EvalConfig)
    augmentation = Augmentation(config.data, dataset)

    def feed(source: ImageSource, batch_size: int, train: bool) -> Feed:
        return Feed(
            store(source, config.data, world.device),
            torch.arange(len(source)),
            augmentation,
            batch_size=batch_size,
            train=train,
            seed=config.seed,
            stream="train",
            rank=world.rank,
            world_size=world.size,
            dtype=weight_dtype(config.precision),
        )

    return (
        feed(dataset.train, config.train.batch_size, True),
        feed(dataset.test, config.train.eval_batch_size, False),
    )


def _require_same_genotype(session: Session, genotype: Genotype) -> None:
    """Refuse a folder that trains another genotype, whatever its name."""
    folder = session.folder
    assert folder is not None
    path = folder.path / "genotype.json"
    if not session.config.run.overwrite and path.is_file() and load_genotype(path) != genotype:
        raise UserError(
            f"run folder '{folder.path}' trains another genotype than network.genotype="
            f"{session.config.network.genotype}; set another run.dir=, or run.overwrite=true"
        )


def _write_results(session: Session, summary: dict[str, Any]) -> None:
    from nge_search.report import write_report

    assert session.folder is not None
    write_report(session.folder.path, summary)
    session.folder.finish(summary)
