"""A whole retraining: data, a network stacked from a genotype, the loop, and the files it leaves."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from nge_search.architecture.genotype import Cells
from nge_search.architecture.load import Architecture, load_architecture
from nge_search.counting import count_parameters, sizes_of
from nge_search.data import Augmentation, Dataset, ImageSource, Loader, store
from nge_search.data.distributed import load_everywhere
from nge_search.data.own import loader_of
from nge_search.engine.checkpoint import load_module
from nge_search.engine.closing import training_lines
from nge_search.engine.distributed import World
from nge_search.engine.given import Images, OnEpoch
from nge_search.engine.precision import weight_dtype
from nge_search.engine.run_reader import RunReader
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.kinds import DATASET, GENOTYPE
from nge_search.networks.classifier import Classifier
from nge_search.networks.families import FAMILIES, Trainable, require_fits
from nge_search.networks.own import OwnNetwork, own_network, require_module
from nge_search.networks.weights import read_weights, require_derived
from nge_search.settings.classification import EvalConfig, NetworkSection
from nge_search.settings.data import DataSection
from nge_search.training.classification import ClassifierTraining

#: In the summary of a training of a module of the caller's: its class.
_OWN_NETWORK = "network"


def run_eval(
    config: EvalConfig,
    on_epoch: OnEpoch | None = None,
    dataset: Images | None = None,
    network: nn.Module | None = None,
) -> dict[str, Any]:
    """Train `config.network.genotype` as configured, or take up an unfinished training; return its summary.

    The headline error is that of the last epoch, not the best.

    Args:
        on_epoch: is called after every epoch.
        dataset: images in place of those that `config.data` names.
        network: a module that is trained, itself, in place of a network of the genotype's cells. Of a run that had
            finished before it takes over the last weights.

    Raises:
        UserError: a genotype, data or run folder that cannot be used.
        RunFailure: numbers are no longer finite.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    if network is not None:
        return _run_own(config, on_epoch, dataset, network)
    architecture = architecture_of(config.network.genotype)
    require_fits(architecture, config.network.kind, "network.kind")
    return run(
        config,
        lambda session: _train(session, config, architecture, dataset),
        lambda session: require_same_architecture(session, architecture, config.network.genotype),
        on_epoch=on_epoch,
    )


def architecture_of(reference: str) -> Architecture:
    """What `network.genotype` stands for; of a run that has none, as it trained a module, UserError says that."""
    try:
        return load_architecture(reference)
    except UserError:
        if os.path.isdir(user_path(reference)):
            require_derived(user_path(reference))
        raise


def _run_own(
    config: EvalConfig, on_epoch: OnEpoch | None, dataset: Images | None, module: nn.Module
) -> dict[str, Any]:
    """`run_eval` for a module of the caller's."""
    require_module(module)
    _require_plain(config.network)
    begun: list[Session] = []

    def train(session: Session) -> dict[str, Any]:
        begun.append(session)
        return _train_own(session, config, module, dataset)

    summary = run(config, train, _require_own_before, on_epoch=on_epoch)
    if not begun:
        _take_over(config, module)
    return summary


def _take_over(config: EvalConfig, module: nn.Module) -> None:
    """Give a module the last weights of a run that has trained such a one, in evaluation mode, where it is."""
    saved = RunReader(config.run.dir).checkpoint()
    if saved is None:
        raise UserError(
            f"run '{config.run.dir}' has finished and kept no checkpoint, so its weights cannot be given to the "
            f"module; restore it, or train anew with run.overwrite=true"
        )
    network = OwnNetwork(module.to(weight_dtype(config.precision)), classes=0, macs=0)
    load_module(network, saved.state.section("task").any("network"), saved.state.source)
    network.eval()


def _train(
    session: Session, config: EvalConfig, architecture: Architecture, given: Images | None
) -> dict[str, Any]:
    cells = architecture.graphs
    dataset = load_everywhere(session, config.data, loader_of(given, config))
    task = build_task(config, cells, dataset, session.world)
    plain = build_network(config, cells, dataset, auxiliary=False)
    shape = (1, dataset.channels, dataset.image_size, dataset.image_size)
    size = sizes_of(plain, shape)
    return _run_task(session, config, task, size, {"genotype": architecture.document})


def _train_own(session: Session, config: EvalConfig, module: nn.Module, given: Images | None) -> dict[str, Any]:
    """Train a module of the caller's, which is none of derived cells."""
    dataset = load_everywhere(session, config.data, loader_of(given, config))
    network = session.world.everywhere(
        lambda: own_network(module, dataset.channels, dataset.image_size, len(dataset.classes))
    )
    task = ClassifierTraining(config, network, *_loaders(config, dataset, session.world), dataset, session.world)
    size = {"params": count_parameters(module), "macs": network.macs}
    return _run_task(session, config, task, size, {_OWN_NETWORK: type(module).__qualname__})


def _run_task(
    session: Session, config: EvalConfig, task: ClassifierTraining, size: dict[str, int], trained: dict[str, Any]
) -> dict[str, Any]:
    """Train, and return the summary, at whose end `trained` says what was."""
    session.say(f"{size['params']:,} parameters, {size['macs'] / 1e6:.2f}M mult-adds per image")
    documents = {DATASET: _describe(task.dataset, config.data)}
    if "genotype" in trained:
        documents[GENOTYPE] = trained["genotype"]
    loop = session.train(task, documents)
    with loop.closing() as row:
        averaged = {"ema_top1_error": 100 - row["ema_top1"]} if "ema_top1" in row else {}
        return session.summary(
            loop,
            top1_error=100 - row["test_top1"],
            **({"top5_error": 100 - row["test_top5"]} if "test_top5" in row else {}),
            seeds=1,
            best_top1_error=100 - task.best["top1"],
            best_epoch=task.best["epoch"] + 1,
            **averaged,
            **({"unreadable_images": len(task.unreadable)} if task.unreadable else {}),
            **size,
            **trained,
        )


def _require_plain(section: NetworkSection) -> None:
    """Raise UserError for settings of networks of derived cells, which a module of the caller's is not."""
    for name in ("auxiliary", "drop_path", "weights"):
        if getattr(section, name):
            raise section.refuse(name, "a module that is given as network= has none; leave it out")


def _require_own_before(session: Session) -> None:
    """Refuse a folder that trains a genotype."""
    folder = session.folder
    assert folder is not None
    if not session.config.run.overwrite and (folder.path / GENOTYPE).is_file():
        raise UserError(
            f"run folder '{folder.path}' trains a genotype, and no module; set another run.dir=, or "
            f"run.overwrite=true"
        )


def closing_lines(config: EvalConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished retraining."""
    top5 = f" (top-5 {summary['top5_error']:.2f} %)" if "top5_error" in summary else ""
    found = f"error {summary['top1_error']:.2f} %{top5}"
    return training_lines(config, summary, found, summary["best_top1_error"])


def build_task(config: EvalConfig, cells: Cells, dataset: Dataset, world: World) -> ClassifierTraining:
    """The configured training, at its start, of the network stacked from `cells`.

    Raises:
        UserError: the auxiliary head does not fit the images, or weights to start from do not fit the network.
    """
    if config.network.auxiliary:
        kind = FAMILIES[config.network.kind].network
        assert issubclass(kind, Classifier)  # the settings see to it
        kind.require_auxiliary_fits(dataset.image_size, config.network.cells)
    network = build_network(config, cells, dataset, config.network.auxiliary)
    if config.network.weights:
        world.everywhere(lambda: _load_weights(config.network, network))
    return ClassifierTraining(config, network, *_loaders(config, dataset, world), dataset, world)


def _load_weights(section: NetworkSection, network: Trainable) -> None:
    """Start from `network.weights`; raises UserError, naming the first tensor that does not fit."""
    given, own = read_weights(section.weights), network.state_dict()
    source = f"network.weights={section.weights}"
    if section.reset_classifier:
        given = {name: tensor for name, tensor in given.items() if not name.startswith("classifier.")}
    there, here = given.get("classifier.weight"), own["classifier.weight"]
    if there is not None and there.shape[1:] == here.shape[1:] and len(there) != len(here):
        raise UserError(
            f"{source}: classifier.weight is {tuple(there.shape)}, for {len(there)} classes; the data has "
            f"{len(here)}, which needs {tuple(here.shape)}; set network.reset_classifier=true to train a new one"
        )
    kept = [name for name in own if name.startswith("auxiliary.")]  # never exported
    kept += [name for name in own if section.reset_classifier and name.startswith("classifier.")]
    load_module(network, {**{name: own[name] for name in kept}, **given}, source)


def build_network(config: EvalConfig, cells: Cells, dataset: Dataset, auxiliary: bool) -> Trainable:
    """The untrained network; without its auxiliary head it is the one whose size papers give."""
    section = config.network
    return FAMILIES[section.kind].build(
        cells,
        section.channels,
        section.cells,
        len(dataset.classes),
        dataset.channels,
        auxiliary,
        section.stem_multiplier,
    )


def _loaders(config: EvalConfig, dataset: Dataset, world: World) -> tuple[Loader, Loader]:
    train = build_loader(config, dataset, dataset.train, world, config.train.batch_size, True)
    return train, build_loader(config, dataset, dataset.test, world, config.train.eval_batch_size, False)


def build_loader(
    config: EvalConfig, dataset: Dataset, source: ImageSource, world: World, batch_size: int, train: bool
) -> Loader:
    """The batches of the training or of the test images."""
    return Loader(
        store(source, config.data, world.device, config.run.worker_patience),
        torch.arange(len(source)),
        Augmentation(config.data, dataset),
        batch_size=batch_size,
        train=train,
        seed=config.seed,
        stream="train",
        rank=world.rank,
        world_size=world.size,
        pieces=config.train.accumulate if train else 1,
        dtype=weight_dtype(config.precision),
    )


def require_same_architecture(session: Session, architecture: Architecture, reference: str) -> None:
    """Refuse a folder that trains another architecture, whatever its name; `reference` is network.genotype."""
    folder = session.folder
    assert folder is not None
    path = folder.path / GENOTYPE
    if _OWN_NETWORK in (folder.summary or {}):
        raise UserError(
            f"run folder '{folder.path}' trained a module that was given from Python; set another run.dir=, or "
            f"run.overwrite=true"
        )
    if session.config.run.overwrite or not path.is_file():
        return
    if load_architecture(path).graphs != architecture.graphs:
        raise UserError(
            f"run folder '{folder.path}' trains another genotype than network.genotype="
            f"{reference}; set another run.dir=, or run.overwrite=true"
        )


def _describe(dataset: Dataset, settings: DataSection) -> dict[str, Any]:
    """What has to be known of the images to use the network elsewhere."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "resize": settings.resize,
    }
