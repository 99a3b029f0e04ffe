"""A trained network for use elsewhere: a folder that timm loads and, on request, ONNX and torch.export files.

An exported folder holds model.safetensors (float32, without the auxiliary head), config.json in timm's format,
genotype.json and README.md; `model.onnx` and `model.pt2` take batches of any size of images of the exported size,
or of any height and width. Of a segmentation config.json is what `export_segmentation` says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from nge_search.architecture.genotype import Genotype
from nge_search.deploy.building import with_weights
from nge_search.deploy.export_folder import README_FILE, staged
from nge_search.deploy.export_formats import FORMATS, Images, require_onnx
from nge_search.deploy.export_readme import readme
from nge_search.deploy.export_segmentation import Exportable, describe_segmenter, smallest_side
from nge_search.engine.run_reader import RunReader
from nge_search.errors import UserError, nearest, plain
from nge_search.files import user_path
from nge_search.json_reader import Reader
from nge_search.kinds import CONFIG, GENOTYPE, SUMMARY
from nge_search.networks.timm_models import ARCHITECTURES, TimmClassifier
from nge_search.networks.weights import MODEL_FILE, WEIGHTS_FILE, read_run_weights, require_folder
from nge_search.settings.classification import EvalConfig
from nge_search.settings.data import LARGEST_RESIZE, LARGEST_SIDE
from nge_search.settings.load import load_config
from nge_search.settings.segmentation import SegmentationConfig

#: Stands for all formats.
_ALL = "all"


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = ("timm",),
    weights: str = "last",
    image_size: int | None = None,
    dynamic_size: bool = False,
    argmax: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the network that a run trained, or has trained so far, into the folder `out`; returns `out`.

    Args:
        run: run folder of a retraining or of a segmentation.
        formats: of `FORMATS`, or "all"; weights and config.json are always written.
        weights: "last", or "ema" for the average of the weights.
        image_size: side in pixels of the images to export for; None: as trained. Files of a segmentation take that
            size alone, and by default any.
        dynamic_size: ONNX and torch.export files take images of any height and width.
        argmax: those files give classes in place of logits; for segmentations.
        overwrite: replace an earlier export, or write into a folder that holds other files, which are kept; files
            of the same names that no export wrote are refused.
        say: is given a line for each thing the user should know.

    Raises:
        UserError: a run, folder, format, size or choice of weights that cannot be used.
        RunFailure: an exported file does not compute what the network does.
    """
    run, out = user_path(run), user_path(out)
    require_folder(run)
    formats = _check(formats, image_size, dynamic_size or argmax)
    if RunReader(run, lenient=True).kind == SegmentationConfig.kind:
        model = describe_segmenter(run, weights, image_size, dynamic_size, argmax)
    else:
        model = _describe_classifier(run, weights, image_size, dynamic_size, argmax)
    for notice in model.notices:
        say(notice)
    with staged(out, overwrite, say) as folder:
        # Not save_file: it makes files that nobody else may read.
        (folder / WEIGHTS_FILE).write_bytes(save(dict(model.weights), metadata={"format": "pt"}))
        (folder / MODEL_FILE).write_text(json.dumps(model.document, indent=2) + "\n", encoding="utf-8")
        (folder / GENOTYPE).write_text(model.genotype.to_json(), encoding="utf-8")
        (folder / README_FILE).write_text(model.readme(formats), encoding="utf-8")
        for name in FORMATS:
            if name in formats:
                FORMATS[name](model.network, model.images, folder)
    return out


def _check(formats: Sequence[str], image_size: int | None, of_files: bool) -> Sequence[str]:
    """The formats, each of all. Refuses those that there are not, or cannot be written here, and other sizes."""
    known = [*FORMATS, _ALL]
    for name in formats:
        if name not in known:
            raise UserError(
                f"format '{plain(name)}' is unknown; allowed are {', '.join(known)}{nearest(name, known)}"
            )
    formats = tuple(FORMATS) if _ALL in formats else formats
    if "onnx" in formats:
        require_onnx()
    if image_size is not None and not 1 <= image_size <= LARGEST_SIDE:
        raise UserError(f"--image-size={image_size}: must be between 1 and {LARGEST_SIDE}")
    if of_files and not {"onnx", "torch"} & {*formats}:
        raise UserError("--dynamic-size and --argmax are for files of --format onnx or torch; add one")
    return formats


def _describe_classifier(
    run: Path, weights: str, image_size: int | None, dynamic_size: bool, argmax: bool
) -> Exportable:
    """What is exported of a retraining."""
    trained = _read_run(run, weights)
    if argmax:
        raise UserError(f"--argmax is for segmentations, and '{run}' is a retraining; its files give logits")
    document = _timm_config(trained, image_size)
    network = build_network(document["architecture"], document["model_args"], trained.weights, str(run))
    channels, side, _ = document["pretrained_cfg"]["input_size"]
    assert isinstance(network, TimmClassifier)
    images = Images(channels, side)
    if dynamic_size:
        images = Images(channels, side, smallest_side(side, network.reductions[-1]))
    document = {**document, "num_features": network.num_features}
    return Exportable(
        network,
        trained.weights,
        document,
        trained.genotype,
        images,
        trained.notices,
        lambda formats: readme(document, trained.config, formats, images),
    )


def build_network(
    architecture: str, model_args: Mapping[str, Any], weights: Mapping[str, Tensor], source: str
) -> nn.Module:
    """timm's model with these weights, in evaluation mode; UserError, naming `source`, if they do not fit."""
    import timm

    return with_weights(lambda: timm.create_model(architecture, **model_args), weights, source)


def trained_network(run: Path) -> nn.Module:
    """The network that a retraining has trained, so far or to its end, as timm's model in evaluation mode.

    Raises:
        UserError: another folder, or one without a checkpoint.
    """
    trained = _read_run(run, "last")
    document = _timm_config(trained, None)
    return build_network(document["architecture"], document["model_args"], trained.weights, str(run))


@dataclass(frozen=True)
class _Trained:
    """What a run folder holds of a trained network."""

    weights: dict[str, Tensor]
    config: EvalConfig
    genotype: Genotype
    images: Reader
    notices: tuple[str, ...]


def _read_run(run: Path, which: str) -> _Trained:
    trained, reader = read_run_weights(run, which), RunReader(run)
    config = load_config(EvalConfig, run / CONFIG)
    notices = [*trained.notices]
    if not (run / SUMMARY).exists():
        notices.append(
            f"'{run}' is unfinished: these are the weights after {trained.epoch} of {config.train.epochs} epochs"
        )
    images = reader.described_images()
    if config.network.kind not in ARCHITECTURES:
        exported, place = " and ".join(ARCHITECTURES), run / "checkpoints"
        raise UserError(
            f"'{run}' trains network.kind={config.network.kind}, but exported are {exported}; see {place}"
        )
    return _Trained(trained.weights, config, reader.saved_genotype(), images, tuple(notices))


def _timm_config(trained: _Trained, image_size: int | None) -> dict[str, Any]:
    """The content of config.json, but for `num_features`; of another size, images are resized in proportion."""
    from timm.models import get_pretrained_cfg

    section, images = trained.config.network, trained.images
    classes, channels = images.names("classes"), images.integer("channels", 1, 1024)
    side, resize = images.integer("image_size", 1, LARGEST_SIDE), images.integer("resize", 0, LARGEST_RESIZE)
    if 0 < resize < side:
        raise UserError(f"{images.source} is damaged: 'resize' is below 'image_size'")
    if image_size is not None:
        side, resize = image_size, round(resize * image_size / side)
    if resize > LARGEST_RESIZE:
        raise UserError(
            f"--image-size={image_size}: images would be resized to {resize} pixels, in proportion; "
            f"{LARGEST_RESIZE} are the most"
        )
    architecture = ARCHITECTURES[section.kind]
    defaults = get_pretrained_cfg(architecture)
    assert defaults is not None  # registered with the architecture
    model_args = {
        "genotype": trained.genotype.to_dict(),
        "channels": section.channels,
        "cells": section.cells,
        "num_classes": len(classes),
        "in_chans": channels,
    }
    if section.kind == "cifar":
        model_args["stem_multiplier"] = section.stem_multiplier
    return {
        "architecture": architecture,
        "num_classes": len(classes),
        "global_pool": "avg",
        "label_names": classes,
        "model_args": model_args,
        "pretrained_cfg": {
            "tag": images.text("name"),
            "custom_load": False,
            "input_size": [channels, side, side],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": _crop_pct(side, resize),
            "crop_mode": "center",
            "mean": images.numbers("mean", channels),
            "std": images.numbers("std", channels, above=0),
            "num_classes": len(classes),
            "pool_size": None,
            "first_conv": defaults.first_conv,
            "classifier": defaults.classifier,
        },
    }


def _crop_pct(side: int, resize: int) -> float:
    """timm's crop_pct for a crop of `side` from a short side of `resize` (0: the centre square is resized).

    timm resizes to floor(side / crop_pct), which must not lose a pixel to rounding. 1.0 stands for `resize` = 0, so
    that an equal `resize` becomes the largest number below it.
    """
    if not resize:
        return 1.0
    share = min(side / resize, math.nextafter(1.0, 0.0))
    while math.floor(side / share) < resize:
        share = math.nextafter(share, 0.0)
    return share
