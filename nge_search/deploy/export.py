"""A trained network for use elsewhere: a folder that timm loads and, on request, ONNX and torch.export files.

An exported folder holds model.safetensors (float32, without the auxiliary head), config.json in timm's format,
genotype.json and README.md; `model.onnx` and `model.pt2` take batches of any size of images of the trained size.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nge_search import kinds
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.load import load_genotype
from nge_search.deploy.export_folder import CONFIG_FILE, GENOTYPE_FILE, README_FILE, WEIGHTS_FILE, staged
from nge_search.deploy.export_readme import readme
from nge_search.engine.checkpoint import CheckpointFolder, require_same_tensors
from nge_search.errors import RunFailure, UserError, nearest, plain
from nge_search.files import user_path
from nge_search.json_reader import Reader, read_json
from nge_search.networks.timm_models import ARCHITECTURES
from nge_search.recipes import kind_of, use_of
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config
from nge_search.tensor_reader import check_safetensors

_RUN_FILE = "config.yaml"
_DATASET_FILE = "dataset.json"

#: In pixels: of the square that a network sees, and of the short side of an image that it is cropped from.
LARGEST_SIDE, LARGEST_RESIZE = 1 << 11, 1 << 13

#: Largest difference of an exported file's outputs, relative to the largest logit where that is above 1.
_TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)
#: What the exporter's operators are written for; runtimes have had it since 2022.
_OPSET = 18

WEIGHTS = ("last", "ema")


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = ("timm",),
    weights: str = "last",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the network that a retraining trained, or has trained so far, into the folder `out`; returns `out`.

    Args:
        run: run folder of a retraining.
        formats: of `FORMATS`; timm's files are always written.
        weights: "last", or "ema" for the average of the weights.
        overwrite: replace an earlier export, or write into a folder that holds other files, which are kept; files
            of the same names that no export wrote are refused.
        say: is given a line for each thing the user should know.

    Raises:
        UserError: a run, folder, format or choice of weights that cannot be used.
        RunFailure: an exported file does not compute what the network does.
    """
    run, out = user_path(run), user_path(out)
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                f"format '{plain(name)}' is unknown; allowed are {', '.join(FORMATS)}{nearest(name, FORMATS)}"
            )
    if "onnx" in formats:
        _require_onnx()
    trained = _read_run(run, weights)
    for notice in trained.notices:
        say(notice)
    document = _timm_config(trained)
    model = build_network(document["architecture"], document["model_args"], trained.weights, str(run))
    document = {**document, "num_features": model.num_features}
    with staged(out, overwrite, say) as folder:
        # Not save_file: it makes files that nobody else may read.
        (folder / WEIGHTS_FILE).write_bytes(save(dict(trained.weights), metadata={"format": "pt"}))
        (folder / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (folder / GENOTYPE_FILE).write_text(trained.genotype.to_json(), encoding="utf-8")
        (folder / README_FILE).write_text(readme(document, trained.config, formats), encoding="utf-8")
        for name in FORMATS:
            if name in formats:
                FORMATS[name](model, document["pretrained_cfg"]["input_size"], folder)
    return out


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A trained network's state dict, in float32 and without the auxiliary head, on the CPU.

    `path` is an exported folder, a .safetensors file, or the run folder of a retraining (its last weights).

    Raises:
        UserError: anything else.
    """
    path = user_path(path)
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        path = path / WEIGHTS_FILE
    if path.is_dir():
        return _read_checkpoint(path, "last").weights
    if not path.exists():
        raise UserError(f"'{path}' does not exist; give an exported folder, a .safetensors file or a run folder")
    check_safetensors(path)
    try:
        return _portable(load_file(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"'{path}' is not a safetensors file, or is damaged ({error})") from None


def build_network(
    architecture: str, model_args: Mapping[str, Any], weights: Mapping[str, Tensor], source: str
) -> nn.Module:
    """timm's model with these weights, in evaluation mode; UserError, naming `source`, if they do not fit."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(architecture, **model_args)
    require_same_tensors(model.state_dict(), dict(weights), source)
    model.load_state_dict(weights, assign=True)
    return model.eval()


@dataclass(frozen=True)
class _Checkpoint:
    """Weights of a run, how many epochs they were trained, and what to say of it."""

    weights: dict[str, Tensor]
    epoch: int
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Trained:
    """What a run folder holds of a trained network."""

    weights: dict[str, Tensor]
    config: EvalConfig
    genotype: Genotype
    images: Reader
    notices: tuple[str, ...]


def _read_run(run: Path, which: str) -> _Trained:
    checkpoint = _read_checkpoint(run, which)
    config = load_config(EvalConfig, run / _RUN_FILE)
    notices = [*checkpoint.notices]
    if not (run / "summary.json").exists():
        notices.append(
            f"'{run}' is unfinished: these are the weights after {checkpoint.epoch} of {config.train.epochs} epochs"
        )
    path = run / _DATASET_FILE
    if not path.exists():
        raise UserError(f"'{run}' has no {_DATASET_FILE}; repeat the training with this version, or add the file")
    images = Reader(str(path), read_json(path))
    if config.network.kind not in ARCHITECTURES:
        exported, place = " and ".join(ARCHITECTURES), run / "checkpoints"
        raise UserError(
            f"'{run}' trains network.kind={config.network.kind}, but exported are {exported}; see {place}"
        )
    return _Trained(checkpoint.weights, config, load_genotype(run / "genotype.json"), images, tuple(notices))


def _read_checkpoint(run: Path, which: str) -> _Checkpoint:
    """The newest weights of a retraining."""
    if which not in WEIGHTS:
        raise UserError(f"weights '{plain(which)}' are unknown; allowed are {', '.join(WEIGHTS)}")
    if not run.is_dir():
        raise UserError(f"'{run}' is not a folder; give the run folder of a retraining, such as runs/eval/cifar10")
    if not (run / _RUN_FILE).is_file():
        raise UserError(f"'{run}' holds no {_RUN_FILE}; it is not the folder of a run")
    state, path, damaged = CheckpointFolder(run / "checkpoints").load_newest()
    kind = kind_of(run) if state is None else state.get("kind")
    if kinds.find(kind) not in (None, kinds.find(EvalConfig.kind)):
        raise UserError(f"'{run}' is {use_of(run, kind)}")
    if state is None:
        raise UserError(f"'{run}' has no checkpoint yet, so there are no weights to take")
    reader = Reader(str(path), state)
    epoch = reader.section("position").integer("epoch", 0, 1 << 53)
    weights = reader.section("task").any("network" if which == "last" else "ema")
    if weights is None:
        raise UserError(f"'{run}' kept no average of its weights (train.ema_decay=0); use weights=last")
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{path} is not a checkpoint of a retraining")
    return _Checkpoint(_portable(weights), epoch, tuple(f"passed over: {line}" for line in damaged))


def _portable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In float32 where they are of a floating type, row-major, without the auxiliary head."""
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in weights.items()
        if not name.startswith("auxiliary.")
    }


def _timm_config(trained: _Trained) -> dict[str, Any]:
    """The content of config.json, but for `num_features`."""
    from timm.models import get_pretrained_cfg

    section, images = trained.config.network, trained.images
    classes, channels = images.names("classes"), images.integer("channels", 1, 1024)
    side, resize = images.integer("image_size", 1, LARGEST_SIDE), images.integer("resize", 0, LARGEST_RESIZE)
    if 0 < resize < side:
        raise UserError(f"{images.source} is damaged: 'resize' is below 'image_size'")
    architecture = ARCHITECTURES[section.kind]
    defaults = get_pretrained_cfg(architecture)
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


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"format onnx needs packages that are missing ({error}): pip install 'nge-search[export]'"
        ) from None


def _write_onnx(model: nn.Module, input_size: Sequence[int], folder: Path) -> None:
    import onnx
    import onnxruntime

    path = folder / "model.onnx"
    with _quiet():
        program = torch.onnx.export(
            model,
            (_random_images(2, input_size),),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        path.write_bytes(program.model_proto.SerializeToString())
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise RunFailure(f"model.onnx is not valid ONNX: {error}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    _require_agreement(
        "model.onnx", model, lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0]), input_size
    )


def _write_torch(model: nn.Module, input_size: Sequence[int], folder: Path) -> None:
    path = folder / "model.pt2"
    with _quiet():
        images = _random_images(2, input_size)
        program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        content = io.BytesIO()  # whose lack of room is told by the system, not by torch
        torch.export.save(program, content)
        path.write_bytes(content.getbuffer())
        loaded = torch.export.load(path).module()
    _require_agreement("model.pt2", model, loaded, input_size)


def _write_nothing(model: nn.Module, input_size: Sequence[int], folder: Path) -> None:
    """timm's files are always written."""


#: What can be exported, and what writes and checks it besides timm's files.
FORMATS: dict[str, Callable[[nn.Module, Sequence[int], Path], None]] = {
    "timm": _write_nothing,
    "onnx": _write_onnx,
    "torch": _write_torch,
}


def _random_images(batch: int, input_size: Sequence[int]) -> Tensor:
    return torch.randn(batch, *input_size, generator=torch.Generator().manual_seed(batch))


@torch.no_grad()
def _require_agreement(
    name: str, model: nn.Module, exported: Callable[[Tensor], Tensor], input_size: Sequence[int]
) -> None:
    """Raise RunFailure unless `exported` gives the network's logits, for one image and for several."""
    for batch in _CHECKED_BATCHES:
        images = _random_images(batch, input_size)
        expected, given = model(images), exported(images)
        limit = _TOLERANCE * max(1.0, expected.abs().max().item())
        difference = (given - expected).abs().max().item() if given.shape == expected.shape else math.inf
        if not difference <= limit:
            raise RunFailure(
                f"{name} does not compute what the network does: its outputs differ by {difference:.3g} on a batch "
                f"of {batch}, more than {limit:.3g}"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say of their own inner life."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
