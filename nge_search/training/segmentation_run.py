"""A whole training of a segmentation network: data, DeepLabv3 on a genotype, the loop, and the files it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch

from nge_search.architecture.genotype import Cells
from nge_search.architecture.load import Architecture
from nge_search.counting import count_parameters, sizes_of
from nge_search.data import Loader, ResidentImages, StreamedImages, fits
from nge_search.data.distributed import load_everywhere
from nge_search.data.segmentation.augmentation import MaskedAugmentation
from nge_search.data.segmentation.dataset import MaskedDataset, MaskedSource
from nge_search.data.segmentation.scenes import load_scenes
from nge_search.data.segmentation.shares import Shares, count_shares, notice, to_document
from nge_search.data.segmentation.voc import load_voc
from nge_search.data.segmentation.voc_masks import VOC_CLASSES
from nge_search.engine.checkpoint import load_module
from nge_search.engine.closing import training_lines
from nge_search.engine.distributed import World
from nge_search.engine.given import OnEpoch
from nge_search.engine.precision import weight_dtype
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.kinds import DATASET, GENOTYPE
from nge_search.networks.deeplab import DeepLabV3
from nge_search.networks.families import require_fits
from nge_search.networks.weights import read_weights
from nge_search.settings import names
from nge_search.settings.segmentation import DeepLabSection, MaskedDataSection, SegmentationConfig
from nge_search.training.run import architecture_of, require_same_architecture
from nge_search.training.segmentation import SegmentationTraining


def run_segmentation(config: SegmentationConfig, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    """Train DeepLabv3 on `config.network.genotype`, or take up an unfinished training; return its summary.

    The headline mIoU is that of the last epoch, not the best; it is None where no validation pixel counts.
    `on_epoch` is called after every epoch.

    Raises:
        UserError: a genotype, data, weights or run folder that cannot be used.
        RunFailure: numbers are no longer finite.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    architecture = architecture_of(config.network.genotype)
    require_fits(architecture, "imagenet", "network.kind")
    return run(
        config,
        lambda session: _train(session, config, architecture),
        lambda session: require_same_architecture(session, architecture, config.network.genotype),
        on_epoch=on_epoch,
    )


def _train(session: Session, config: SegmentationConfig, architecture: Architecture) -> dict[str, Any]:
    cells = architecture.graphs
    dataset = load_everywhere(session, config.data, load_masked)
    _require_background_first(dataset.classes)
    shares = session.world.on_main(lambda: count_shares(dataset, config.data))
    session.say(notice(shares, dataset.classes))
    if dataset.classes == VOC_CLASSES and sum(map(bool, shares["train"].pixels_K)) <= _FEW:
        session.say("these count as VOC's classes; masks of other classes need data.classes=[background,...]")
    task = build_task(config, cells, dataset, session.world)
    plain = build_network(config.network, cells, len(dataset.classes), auxiliary=False)
    shape = (1, 3, config.data.crop, config.data.crop)
    size = sizes_of(plain, shape)
    backbone = count_parameters(plain.backbone)
    session.say(
        f"{size['params']:,} parameters ({backbone:,} in the backbone; the paper's network: 10.31M), "
        f"{size['macs'] / 1e6:.2f}M mult-adds per crop"
    )
    documents = {GENOTYPE: architecture.document, DATASET: _describe(dataset, shares)}
    loop = session.train(task, documents)
    with loop.closing() as row:
        return session.summary(
            loop,
            miou=_figure(row, "test_miou"),
            pixel_accuracy=_figure(row, "test_pixel_accuracy"),
            seeds=1,
            best_miou=task.best.get("miou"),
            best_epoch=task.best["epoch"] + 1 if task.best else None,
            **size,
            backbone_params=backbone,
            genotype=architecture.document,
        )


def _require_background_first(classes: Sequence[str]) -> None:
    """Raise UserError where a class of that name is not the number 0."""
    named = [number for number, name in enumerate(classes) if name.casefold() == "background"]
    if named and named[0]:
        raise UserError(
            f"data.classes: '{classes[named[0]]}' is the number {named[0]} there, and in masks it is 0: name it "
            "first; if yours have another number for it, call it otherwise"
        )


def closing_lines(config: SegmentationConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished segmentation."""
    if summary["miou"] is None:
        found = "mIoU unknown (no validation pixel counts)"
    else:
        found = f"mIoU {summary['miou']:.2f} % (pixel accuracy {summary['pixel_accuracy']:.2f} %)"
    return training_lines(config, summary, found, summary["best_miou"])


def _figure(row: dict[str, Any], key: str) -> float | None:
    """A figure of the last epoch; None for one over nothing, which older versions wrote as NaN."""
    value = row.get(key, math.nan)
    return None if math.isnan(value) else value


#: Of VOC's classes in training masks: those are of something else, perhaps.
_FEW = 3
_DATASETS: dict[str, Callable[[MaskedDataSection], MaskedDataset]] = {"scenes": load_scenes, "voc": load_voc}
names.require_names(_DATASETS, names.SEGMENTATION_DATASETS)


def load_masked(config: MaskedDataSection) -> MaskedDataset:
    """The dataset that `data.name` names, as `load_scenes` and `load_voc` give it."""
    return _DATASETS[config.name](config)


def build_task(
    config: SegmentationConfig, cells: Cells, dataset: MaskedDataset, world: World
) -> SegmentationTraining:
    """The configured training, at its start.

    Raises:
        UserError: weights to start from do not fit the backbone.
    """
    section = config.network
    network = build_network(section, cells, len(dataset.classes), section.auxiliary)
    if section.weights:
        world.everywhere(lambda: _load_backbone(section, network))
    return SegmentationTraining(config, network, *_loaders(config, dataset, world), dataset, world)


def build_network(section: DeepLabSection, cells: Cells, classes: int, auxiliary: bool) -> DeepLabV3:
    """The network before training; without its auxiliary head it is the one whose size papers give."""
    return DeepLabV3(
        cells,
        section.channels,
        section.cells,
        classes,
        section.output_stride,
        section.head_channels,
        auxiliary,
    )


def _load_backbone(section: DeepLabSection, network: DeepLabV3) -> None:
    """Start from `network.weights`; raises UserError, naming the first tensor that does not fit."""
    given, own = read_weights(section.weights), network.backbone.state_dict()
    kept = {name: tensor for name, tensor in own.items() if name.startswith("auxiliary.")}
    given = {name: tensor for name, tensor in given.items() if not name.startswith("classifier.")}
    load_module(network.backbone, {**kept, **given}, f"network.weights={section.weights}")


def _loaders(config: SegmentationConfig, dataset: MaskedDataset, world: World) -> tuple[Loader, Loader]:
    augmentation = MaskedAugmentation(config.data.flip, dataset.mean, dataset.std)
    section, dtype = config.train, weight_dtype(config.precision)
    train = Loader(
        _store(dataset.train, config, world.device),
        torch.arange(len(dataset.train)),
        augmentation,
        batch_size=section.batch_size,
        train=True,
        seed=config.seed,
        stream="train",
        rank=world.rank,
        world_size=world.size,
        pieces=section.accumulate,
        dtype=dtype,
    )
    return train, validation_loader(config, dataset, augmentation, world)


def validation_loader(
    config: SegmentationConfig, dataset: MaskedDataset, augmentation: MaskedAugmentation, world: World
) -> Loader:
    """Every validation image once, those of one size together."""
    order_M, ends = batches_of_one_size(dataset.test, config.train.eval_batch_size)
    return Loader(
        _store(dataset.test, config, world.device),
        order_M,
        augmentation,
        batch_size=config.train.eval_batch_size,
        train=False,
        rank=world.rank,
        world_size=world.size,
        dtype=weight_dtype(config.precision),
        ends=ends,
    )


def batches_of_one_size(source: MaskedSource, most: int) -> tuple[torch.Tensor, list[int]]:
    """An order of all images, int64 [N], and where batches of at most `most` images of one size end in it."""
    sizes = [tuple(size) for size in source.sizes_N2.tolist()]
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    ends: list[int] = []
    for _, group in groupby(order, key=sizes.__getitem__):
        first, count = ends[-1] if ends else 0, len(list(group))
        ends += [*range(first + most, first + count, most), first + count]
    return torch.tensor(order, dtype=torch.int64), ends


def _store(
    source: MaskedSource, config: SegmentationConfig, device: torch.device
) -> ResidentImages | StreamedImages:
    same_size = bool((source.sizes_N2 == source.sizes_N2[:1]).all())
    if same_size and fits(source, config.data, device):
        return ResidentImages(source, device)
    return StreamedImages(source, device, config.data.workers, patience=config.run.worker_patience)


def _describe(dataset: MaskedDataset, shares: dict[str, Shares]) -> dict[str, Any]:
    """What has to be known of the images to use the network elsewhere, and what their masks hold."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "masks": to_document(shares),
    }
