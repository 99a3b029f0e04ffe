"""A trained segmentation network, of a run folder or of an export, and how its images are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from nge_search import kinds
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.load import read_architecture
from nge_search.data.segmentation.augmentation import MaskedAugmentation
from nge_search.deploy.building import with_weights
from nge_search.engine.run_reader import RunReader, use_of
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import CONFIG
from nge_search.networks.deeplab import DeepLabV3
from nge_search.networks.timm_models import ARCHITECTURES
from nge_search.networks.weights import MODEL_FILE, WEIGHTS_FILE, read_weights
from nge_search.settings.load import load_config
from nge_search.settings.segmentation import MOST_CLASSES, SegmentationConfig
from nge_search.training.segmentation import predict
from nge_search.training.segmentation_run import build_network

#: Of an exported segmentation's config.json.
FORMAT, ARCHITECTURE = "nge-segmentation/1", "nge_deeplab"

_MOST_SCALES = 100


@dataclass(frozen=True)
class TrainedSegmenter:
    """A network in evaluation mode, its classes, and how images are prepared and evaluated.

    Attributes:
        config: of the run; of an export, as far as that tells, by default for the rest.
        notices: lines for the user.
    """

    network: DeepLabV3
    classes: tuple[str, ...]
    normalisation: MaskedAugmentation
    scales: tuple[float, ...]
    flip: bool
    genotype: Genotype
    config: SegmentationConfig
    notices: tuple[str, ...] = ()

    @torch.inference_mode()
    def __call__(self, pixels_3HW: Tensor) -> Tensor:
        """The class of every pixel of a uint8 image: int64 [H, W], on the image's device."""
        nothing_1HW = torch.zeros_like(pixels_3HW[:1])
        images = self.normalisation.evaluate(torch.cat([pixels_3HW, nothing_1HW])[None])
        return predict(self.network, images[:, :3], self.scales, self.flip).argmax(dim=1)[0]


def read_trained(model: str | Path) -> TrainedSegmenter:
    """The network of a segmentation's run folder, or of its export, on the CPU in float32.

    Raises:
        UserError: another folder, or a damaged one.
    """
    model = user_path(model)
    return _read_export(model) if (model / MODEL_FILE).is_file() else read_run_segmenter(model)


def read_run_segmenter(run: Path, exact: bool = False) -> TrainedSegmenter:
    """The network that a segmentation run has trained, so far or to its end; `exact`: in the type of its weights.

    Raises:
        UserError: another folder, or a damaged one.
    """
    if not (run / CONFIG).is_file():
        raise UserError(f"'{run}' is not the folder of a segmentation run, such as runs/segmentation/scenes")
    reader = RunReader(run)
    saved = reader.checkpoint()
    kind = (RunReader(run, lenient=True).kind or SegmentationConfig.kind) if saved is None else saved.kind
    if kinds.current_name(kind) != SegmentationConfig.kind:
        use = use_of(run, str(kind)) or "the folder of another kind of run"
        raise UserError(f"'{run}' is not the folder of a segmentation run: it is {use}")
    if saved is None:
        raise UserError(f"'{run}' has no checkpoint yet, so there are no weights to take")
    config = load_config(SegmentationConfig, run / CONFIG)
    genotype = reader.saved_genotype()
    given = saved.state.section("task").section("network").document
    weights = {
        name: tensor if exact or not (isinstance(tensor, Tensor) and tensor.is_floating_point()) else tensor.float()
        for name, tensor in given.items()
        if not str(name).startswith("backbone.auxiliary.")
    }
    damaged = tuple(f"passed over: {line}" for line in saved.damaged)
    return _build(config, genotype, reader.described_images(), weights, saved.state.source, damaged)


def trained_network(run: Path) -> DeepLabV3:
    """The network of `read_run_segmenter`."""
    return read_run_segmenter(run).network


def _read_export(folder: Path) -> TrainedSegmenter:
    path = folder / MODEL_FILE
    document = Reader(str(path), read_json(path))
    if document.document.get("architecture") in ARCHITECTURES.values():
        raise UserError(
            f"'{folder}' is an exported classifier; use it as it is: nge classify {quote(str(folder))} IMAGES"
        )
    document.text("format", (FORMAT,))
    document.text("architecture", (ARCHITECTURE,))
    sizes, evaluation = document.section("model_args"), document.section("evaluation")
    scales = evaluation.any("scales")
    count = len(scales) if isinstance(scales, list) and 0 < len(scales) <= _MOST_SCALES else 1
    if not isinstance(evaluation.any("flip"), bool):
        raise UserError(f"{path}: 'flip' must be true or false")
    network: dict[str, Any] = {
        name: sizes.integer(name, 1, 1 << 12) for name in ("channels", "cells", "output_stride", "head_channels")
    }
    train = {
        "eval_scales": ",".join(map(str, evaluation.numbers("scales", count, 0))),
        "eval_flip": evaluation.any("flip"),
    }
    try:
        config = load_config(SegmentationConfig, None, [{"network": network, "train": train}])
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    architecture = read_architecture(sizes.section("genotype").document, str(path))
    if architecture.genotype is None:
        raise UserError(f"{path}: 'genotype' is not in DARTS' notation")
    weights_path = folder / WEIGHTS_FILE
    weights = read_weights(weights_path)
    cells = len({name.split(".")[2] for name in weights if name.startswith("backbone.cells.")})
    sizes.integer("cells", 1, max(cells, 1))  # building a network of more takes long
    images = document.section("images").document | {"classes": document.names("label_names")}
    return _build(config, architecture.genotype, Reader(str(path), images), weights, str(weights_path), ())


def _build(
    config: SegmentationConfig,
    genotype: Genotype,
    images: Reader,
    weights: Mapping[str, Tensor],
    source: str,
    notices: tuple[str, ...],
) -> TrainedSegmenter:
    """The network with these weights; UserError, naming `source`, if they do not fit."""
    classes = images.names("classes")
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{images.source} is damaged: {len(classes)} classes, of which a mask holds {MOST_CLASSES}")
    network = with_weights(lambda: build_network(config.network, genotype, len(classes), False), weights, source)
    return TrainedSegmenter(
        network.to(memory_format=torch.channels_last),
        tuple(classes),
        MaskedAugmentation(False, images.numbers("mean", 3), images.numbers("std", 3, above=0)),
        config.train.scales,
        config.train.eval_flip,
        genotype,
        config,
        notices,
    )
