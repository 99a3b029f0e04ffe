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
from safetensors.torch import save
from torch import Tensor, nn

from nge_search.architecture.genotype import Genotype
from nge_search.deploy.export_folder import README_FILE, staged
from nge_search.deploy.export_readme import readme
from nge_search.engine.checkpoint import require_same_tensors
from nge_search.engine.run_reader import RunReader
from nge_search.errors import RunFailure, UserError, nearest, plain
from nge_search.files import user_path
from nge_search.json_reader import Reader
from nge_search.kinds import CONFIG, GENOTYPE, SUMMARY
from nge_search.networks.timm_models import ARCHITECTURES
from nge_search.networks.weights import MODEL_FILE, WEIGHTS_FILE, read_run_weights
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config

#: In pixels: of the square that a network sees, and of the short side of an image that it is cropped from.
LARGEST_SIDE, LARGEST_RESIZE = 1 << 11, 1 << 13

#: Largest difference of an exported file's outputs, relative to the largest logit where that is above 1.
_TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)
#: What the exporter's operators are written for; runtimes have had it since 2022.
_OPSET = 18
#: Any number of images; torch 2.7 needs an end that it can tell from that of 64-bit integers.
_BATCHES = ({0: torch.export.Dim("batch", max=1 << 31)},)


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
        (folder / MODEL_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (folder / GENOTYPE).write_text(trained.genotype.to_json(), encoding="utf-8")
        (folder / README_FILE).write_text(readme(document, trained.config, formats), encoding="utf-8")
        for name in FORMATS:
            if name in formats:
                FORMATS[name](model, document["pretrained_cfg"]["input_size"], folder)
    return out


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


def trained_network(run: Path) -> nn.Module:
    """The network that a retraining has trained, so far or to its end, as timm's model in evaluation mode.

    Raises:
        UserError: another folder, or one without a checkpoint.
    """
    trained = _read_run(run, "last")
    document = _timm_config(trained)
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
            dynamic_shapes=_BATCHES,
            verbose=False,
        )
        assert program is not None  # with `dynamo`
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
        program = torch.export.export(model, (images,), dynamic_shapes=_BATCHES)
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
