"""A trained network on labelled images, without training: its error, class by class, and its calibration.

A run is tested on its own test set or on others; an export, which does not know its images any more, on those that
the settings name. Legend: N images, B images of a batch, K classes, H and W sides in pixels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.load import load_architecture
from nge_search.data import Dataset, Loader, load_dataset
from nge_search.data.folder import load_labelled
from nge_search.data.own import load_own
from nge_search.data.segmentation.dataset import IGNORED, MaskedDataset
from nge_search.data.segmentation.voc import CLASSES, load_voc
from nge_search.data.segmentation.voc_lists import MASKS, find_root
from nge_search.data.segmentation.voc_masks import VOC_CLASSES
from nge_search.data.sources import SelectedImages
from nge_search.deploy.classify import read_exported
from nge_search.deploy.segmenter import ARCHITECTURE, read_run_segmenter, read_trained
from nge_search.engine.checkpoint import load_module
from nge_search.engine.distributed import World, choose_device
from nge_search.engine.given import OWN, Images
from nge_search.engine.precision import allow_tf32, forward_context, full_precision, weight_dtype
from nge_search.engine.run_reader import RunReader
from nge_search.errors import UserError, nearest, plain, shorten
from nge_search.files import user_path
from nge_search.json_reader import read_json
from nge_search.kinds import CONFIG
from nge_search.metrics.calibration import Calibration
from nge_search.metrics.classification import Meter, Outcomes
from nge_search.metrics.segmentation import Confusion, PixelMeter, intersection_over_union, mean_over_union
from nge_search.networks.families import FAMILIES
from nge_search.networks.weights import MODEL_FILE, read_run_weights
from nge_search.settings.classification import EvalConfig
from nge_search.settings.data import DataSection
from nge_search.settings.load import load_config
from nge_search.settings.run import DeviceConfig
from nge_search.settings.segmentation import MaskedDataSection, SegmentationConfig
from nge_search.training.evaluation import LARGEST_CONFUSION, confusion
from nge_search.training.run import build_loader
from nge_search.training.segmentation import predict
from nge_search.training.segmentation_run import load_masked, validation_loader

#: Settings that change what a network is tested on, or how it is computed; all others are its training's.
_SETTINGS = ("device", "precision", "threads", "train.eval_batch_size", "train.eval_scales", "train.eval_flip")

#: What `data.root` holds of datasets that are no folders of images.
_FILES = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Classifier:
    """A trained classifier with what its images must be like; `resize` as `data.resize`."""

    network: nn.Module
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    resize: int


def measure(
    model: str | Path,
    words: Sequence[str] = (),
    weights: str = "last",
    say: Say = lambda line: None,
    dataset: Any = None,
) -> dict[str, Any]:
    """What `nge test MODEL key=value ... --json` prints.

    Args:
        model: run folder of a retraining or of a segmentation, or its export.
        words: settings of the images (`data.*`) and of the computation (`_SETTINGS`). With `data.root` alone the
            images are a folder of class folders, of which all are taken, or those of its test folder.
        weights: of a retraining "last", or "ema" for the average of the weights.
        say: is given a line for each thing the user should know of the images.
        dataset: `nge_search.Images`, or a pair of datasets, whose test images are taken; from Python alone.

    Raises:
        UserError: a model, settings or images that cannot be used.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise UserError(f"{shorten(model)}: give the folder of a run or of an export")
    model = user_path(model)
    wrong = next((word for word in words if not isinstance(word, str)), None)
    if wrong is not None:
        raise UserError(f"{shorten(wrong)}: give settings one by one, as 'data.root=FOLDER'")
    keys = [_key(word) for word in words]
    if (model / MODEL_FILE).is_file():
        is_masked = read_json(model / MODEL_FILE).get("architecture") == ARCHITECTURE
    else:
        is_masked = (model / CONFIG).is_file() and RunReader(model, True).kind == SegmentationConfig.kind
    if weights != "last" and (is_masked or (model / MODEL_FILE).is_file()):
        raise UserError(f"--weights {plain(weights)}: '{model}' has one set of weights; leave it out")
    if is_masked and dataset is not None:
        raise UserError(f"dataset=: '{model}' is a segmentation, whose images have masks; give data.root=FOLDER")
    if is_masked:
        return _test_segmenter(model, words, keys, say)
    given = None if dataset is None else Images.of(dataset)
    return _test_classifier(model, words, keys, weights, say, given)


def _key(word: str) -> str:
    """The key of a setting that a test may change."""
    key = word.partition("=")[0]
    if not (key.startswith("data.") or key in _SETTINGS):
        if "=" not in word and Path(word).is_dir():
            raise UserError(f"'{plain(word)}': images of a folder are given as data.root={plain(word)}")
        known = (*_SETTINGS, "plugins")
        takes = f"a test takes settings of the images, data.*, and {', '.join(known)}{nearest(key, known)}"
        raise UserError(f"'{plain(word)}': {takes}")
    return key


def _world(config: DeviceConfig) -> World:
    if config.threads:
        torch.set_num_threads(config.threads)
    allow_tf32(config.precision == "tf32")
    return World(choose_device(config.device))


def _test_classifier(
    model: Path, words: Sequence[str], keys: Sequence[str], weights: str, say: Say, given: Images | None
) -> dict[str, Any]:
    named = next((key for key in ("data.name", "data.root") if key in keys), None)
    if given is not None and named:
        raise UserError(f"{named}=: the images are those of dataset=; leave it out")
    exported = (model / MODEL_FILE).is_file()
    trained = _exported(model) if exported else _of_run(model, weights)
    own = None if exported else load_config(EvalConfig, model / CONFIG)
    if own is not None and _are_own(own, words, keys, given is not None):
        config = load_config(EvalConfig, model / CONFIG, words)
        dataset = _load(config.data, given)
    else:
        config, dataset = _other_images(model, trained, own, words, keys, given)
    dataset = _fitted(dataset, trained)
    for notice in dataset.notices:
        say(notice)
    found = _classify(trained, config, dataset)
    return {"model": str(model), "task": "classification", "data": _place(config), **found}


def _exported(model: Path) -> _Classifier:
    found = read_exported(model)
    return _Classifier(
        found.network, found.classes, found.channels, found.mean, found.std, found.side, found.resize
    )


def _of_run(run: Path, weights: str) -> _Classifier:
    """The network of a retraining, its weights in the type in which they were trained."""
    tensors = read_run_weights(run, weights, exact=True).weights
    config, images = load_config(EvalConfig, run / CONFIG), RunReader(run).described_images()
    classes, channels = images.names("classes"), images.integer("channels", 1, 1024)
    section = config.network
    network = FAMILIES[section.kind].build(
        load_architecture(run).graphs,
        section.channels,
        section.cells,
        len(classes),
        channels,
        stem_multiplier=section.stem_multiplier,
    )
    load_module(network.to(next(iter(tensors.values())).dtype), tensors, str(run))
    return _Classifier(
        network,
        tuple(classes),
        channels,
        tuple(images.numbers("mean", channels)),
        tuple(images.numbers("std", channels, above=0)),
        images.integer("image_size", 1, 1 << 16),
        images.integer("resize", 0, 1 << 16),
    )


def _load(section: DataSection, given: Images | None) -> Dataset:
    """The images that are given, or else those that the settings name."""
    return load_dataset(section) if given is None else load_own(given, section)


def _are_own(own: EvalConfig, words: Sequence[str], keys: Sequence[str], is_given: bool) -> bool:
    """Whether the images are those that the run was trained and tested on, at another place perhaps.

    `is_given`: they come from Python, and no settings name them.
    """
    if is_given or own.data.name == OWN:
        return is_given and own.data.name == OWN
    named = [word for word, key in zip(words, keys) if key in ("data.name", "data.root")]
    given = load_config(EvalConfig, None, named).data
    if "data.name" in keys and given.name != own.data.name:
        return False
    if "data.root" not in keys:
        return True
    root, files = user_path(given.root), _FILES.get(own.data.name)
    if files:
        return (root / files).is_dir()
    return own.data.name != "digits" and root.resolve() == user_path(own.data.root).resolve()


def _other_images(
    model: Path,
    trained: _Classifier,
    own: EvalConfig | None,
    words: Sequence[str],
    keys: Sequence[str],
    given: Images | None,
) -> tuple[EvalConfig, Dataset]:
    """Settings and images, where these are not the run's: a folder's, unless the settings name another dataset."""
    name = "folder" if given is None else OWN
    like: dict[str, Any] = {"data": {"name": name, "image_size": trained.side, "resize": trained.resize}}
    if own is not None:
        batch = {"eval_batch_size": own.train.eval_batch_size}
        like |= {"precision": own.precision, "threads": own.threads, "device": own.device, "train": batch}
    config = load_config(EvalConfig, None, [like, *words])
    if given is None:
        _require_images(model, keys, own)
    if config.data.name != "folder":
        return config, _load(config.data, given)
    if not config.data.image_size:
        raise config.data.refuse("image_size", f"give the side in pixels, as {trained.side}, or leave it out")
    return config, load_labelled(config.data, "data.test_fraction" in keys, trained.channels)


def _require_images(model: Path, keys: Sequence[str], own: EvalConfig | None = None) -> None:
    if "data.root" in keys or "data.name" in keys:
        return
    if own is not None:
        raise UserError(
            f"the images of '{model}' were given from Python (dataset=), and no file has them; give "
            "data.root=FOLDER"
        )
    raise UserError(f"'{model}' does not say which images to test on; give data.root=FOLDER, or data.name=")


def _fitted(dataset: Dataset, trained: _Classifier) -> Dataset:
    """The test images with the network's own numbers of classes, channels and normalisation.

    Raises:
        UserError: classes that the network does not know, or grey images for one that takes colours.
    """
    for name in dataset.classes:
        if name not in trained.classes:
            raise UserError(
                f"class '{plain(name)}' of the images is none of the network's {len(trained.classes)} classes"
                f"{nearest(name, trained.classes)}"
            )
    if dataset.channels < trained.channels:
        raise UserError(f"the images of data.name={dataset.name} are grey, and the network takes colours")
    test, grey = dataset.test, dataset.channels > trained.channels
    if grey or dataset.classes != trained.classes:
        number = {name: k for k, name in enumerate(trained.classes)}
        numbers_K = torch.tensor([number[name] for name in dataset.classes])
        test = SelectedImages(test, numbers_K[test.labels_N], grey)
    return dataclasses.replace(
        dataset,
        train=test,
        test=test,
        classes=trained.classes,
        channels=trained.channels,
        mean=trained.mean,
        std=trained.std,
    )


@torch.no_grad()
def _classify(trained: _Classifier, config: EvalConfig, dataset: Dataset) -> dict[str, Any]:
    """The figures, counted by what counts them in a training, on its batches."""
    world, test = _world(config), dataset.test
    device, classes = world.device, len(trained.classes)
    network = trained.network.to(device, weight_dtype(config.precision)).to(memory_format=torch.channels_last)
    network.eval()
    loader = build_loader(config, dataset, test, world, config.train.eval_batch_size, False)
    meter, outcomes, calibration = Meter(device, classes), Outcomes(len(test), device), Calibration(device)
    for batch in loader.iterate(0):
        if not len(batch.labels_B):
            continue
        with forward_context(config.precision, device):
            found = network(batch.images_BCHW)
        logits_BK = full_precision(found[0] if isinstance(found, tuple) else found)
        losses_B = functional.cross_entropy(logits_BK, batch.labels_B, reduction="none")
        meter.update(logits_BK, batch.labels_B, losses_B.double().sum())
        outcomes.update(logits_BK, losses_B, batch.index_B)
        calibration.update(logits_BK, batch.labels_B)
    result = meter.result(world)
    if not result:
        raise UserError(f"no image of {_place(config)} could be read")
    predicted_N, _ = outcomes.result(world)
    counts_KK = confusion(test.labels_N, predicted_N, classes)
    right_K, images_K = counts_KK.diagonal().tolist(), counts_KK.sum(dim=1).tolist()
    return {
        "images": int(counts_KK.sum()),
        "top1_error": 100 - result["top1"],
        **({"top5_error": 100 - result["top5"]} if "top5" in result else {}),
        "loss": result["loss"],
        **({"unreadable_images": len(loader.images.unreadable)} if loader.images.unreadable else {}),
        "per_class": [
            {"class": name, "images": count, "accuracy": 100 * right / count if count else None}
            for name, right, count in zip(trained.classes, right_K, images_K)
        ],
        "confusion": counts_KK.tolist() if classes <= LARGEST_CONFUSION else None,
        "calibration": calibration.result(world),
    }


def _test_segmenter(model: Path, words: Sequence[str], keys: Sequence[str], say: Say) -> dict[str, Any]:
    like: dict[str, Any] = {"data": {"limit": 1}}  # no training image is used
    if (model / MODEL_FILE).is_file():
        trained, path = read_trained(model), None
        own = trained.config.train
        like |= {"train": {"eval_scales": own.eval_scales, "eval_flip": own.eval_flip}}
    else:
        trained, path = read_run_segmenter(model, exact=True), model / CONFIG
    if "data.root" in keys and "data.name" not in keys:
        like["data"] |= {"name": "voc"}
    config = load_config(SegmentationConfig, path, [like, *words])
    if path is None:
        _require_images(model, keys)
    dataset = _load_masks(config.data, trained.classes, keys)
    if dataset.classes != trained.classes:
        of_numbers = config.data.name == "voc" and "data.classes" not in keys
        raise UserError(
            f"{_place(config)} has other classes than the network, which knows {len(trained.classes)}: "
            f"{plain(', '.join(trained.classes), 120)}"
            f"{'; where masks hold the numbers of these, name them as data.classes=[...]' if of_numbers else ''}"
        )
    for notice in dataset.notices:
        say(notice)
    world = _world(config)
    network = trained.network.to(world.device, weight_dtype(config.precision)).to(memory_format=torch.channels_last)
    loader = validation_loader(config, dataset, trained.normalisation, world)

    def scores(images_BCHW: Tensor) -> Tensor:
        with forward_context(config.precision, world.device):
            return predict(network, images_BCHW, config.train.scales, config.train.eval_flip)

    found = _segment(scores, loader, trained.classes, world)
    return {
        "model": str(model),
        "task": "segmentation",
        "data": _place(config),
        "images": len(dataset.test),
        **found,
    }


def _load_masks(section: MaskedDataSection, classes: tuple[str, ...], keys: Sequence[str]) -> MaskedDataset:
    """The images with masks to test on.

    Masks in a `data.root` of which nothing else is said, neither by settings nor by a JSON beside them, hold the
    numbers of the network's own `classes`; only VOC's may be told by colours.
    """
    if section.name != "voc":
        return load_masked(section)
    told = False
    if "data.root" in keys and not {"data.name", "data.classes"} & {*keys}:
        beside = os.path.lexists(find_root(section) / MASKS / CLASSES)
        told = not beside and (bool(section.classes) or classes != VOC_CLASSES)
        section = dataclasses.replace(section, classes=[*classes] if told else [])
    dataset = load_voc(section, test_only=True)
    notices = [f"masks hold the numbers of the network's {len(classes)} classes"] if told else []
    return dataclasses.replace(dataset, notices=(*notices, *dataset.notices))


@torch.no_grad()
def _segment(
    scores: Callable[[Tensor], Tensor], loader: Loader, classes: Sequence[str], world: World
) -> dict[str, Any]:
    """The figures over all pixels that count; one over none is None. `scores` gives [B, K, H, W] of images."""
    meter, calibration = PixelMeter(world.device), Calibration(world.device)
    outcomes = Confusion(len(classes), world.device)
    for batch in loader.iterate(0):
        truth_BHW = batch.images_BCHW[:, 3].long()
        scores_BKHW = scores(batch.images_BCHW[:, :3])
        predicted_BHW = scores_BKHW.argmax(dim=1)
        loss_sum = functional.cross_entropy(scores_BKHW, truth_BHW, ignore_index=IGNORED, reduction="sum")
        meter.update(predicted_BHW, truth_BHW, IGNORED, loss_sum)
        outcomes.update(predicted_BHW, truth_BHW, IGNORED)
        for scores_KHW, truth_HW in zip(scores_BKHW, truth_BHW):  # it works in float64, whose batches are large
            calibration.update(scores_KHW[None], truth_HW[None], IGNORED)
    result, counts_KK = meter.result(world), outcomes.result(world)
    miou = mean_over_union(counts_KK)
    pixels_K, iou_K = counts_KK.sum(dim=1).tolist(), intersection_over_union(counts_KK).tolist()
    return {
        "miou": None if miou is None else 100 * miou,
        "pixel_accuracy": result.get("pixel_accuracy"),
        "loss": result.get("loss"),
        "per_class": [
            {"class": name, "pixels": pixels, "iou": None if iou != iou else 100 * iou}
            for name, pixels, iou in zip(classes, pixels_K, iou_K)
        ],
        "confusion": counts_KK.tolist(),
        "calibration": calibration.result(world),
    }


def _place(config: EvalConfig | SegmentationConfig) -> str:
    """Which images they are, as the user named them."""
    name = config.data.name
    return config.data.root if name in ("folder", "voc") else f"data.name={name}"


def lines(found: dict[str, Any]) -> list[str]:
    """What is printed of a test."""
    if found["task"] == "segmentation":
        known = found["miou"] is not None
        headline = (
            f"mIoU {found['miou']:.2f} %, pixel accuracy {found['pixel_accuracy']:.2f} %"
            if known
            else "no pixel counts"
        )
        unit, figure = "pixels", "iou"
    else:
        top5 = f" (top-5 {found['top5_error']:.2f} %)" if "top5_error" in found else ""
        headline, unit, figure = f"error {found['top1_error']:.2f} %{top5}", "images", "accuracy"
    printed = [f"{found['images']:,} images of {found['data']}: {headline}"]
    if found.get("unreadable_images"):
        printed.append(f"left out, as they cannot be read: {found['unreadable_images']} images")
    if found["calibration"]:
        sure = found["calibration"]
        printed.append(
            f"loss {found['loss']:.4g}; calibration error {sure['ece']:.2f} %, Brier score {sure['brier']:.4f}, "
            f"mean confidence {sure['confidence']:.2f} %"
        )
    counted = [one for one in found["per_class"] if one[unit] or one[figure] is not None]
    width = max((len(one["class"]) for one in counted), default=0)
    for one in counted:
        share = "" if one[figure] is None else f"{one[figure]:7.2f} %"
        printed.append(f"  {one['class']:{width}} {one[unit]:>12,} {unit} {share} {figure}")
    left = len(found["per_class"]) - len(counted)
    return [*printed, *([f"  {left} of the network's classes do not occur"] if left else [])]
