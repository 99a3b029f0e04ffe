"""Run folders that cannot be exported, and folders that hold no model to classify with: one line says why."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nge_search.architecture.load import load_genotype
from nge_search.engine.checkpoint import CheckpointFolder

Damage = Callable[[Path], object]


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def in_file(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def changed(name: str, *keys: str, value: object) -> Damage:
    """Sets an entry of a JSON file."""

    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / name).write_text(json.dumps(document))

    return damage


def search_checkpoint(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    CheckpointFolder(run / "checkpoints").save({"kind": "search", "task": {}, "position": {"epoch": 1}}, 1)


#: How a copy of the run is damaged, more words after `nge export run --out model`, and what the message must hold.
RUNS: dict[str, tuple[Damage, tuple[str, ...], tuple[str, ...]]] = {
    "no run": (remove("config.yaml"), (), ("'run'", "not the folder of a run")),
    "a search": (search_checkpoint, (), ("'run' is the run folder of a search", "network.genotype=run")),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoints"), (), ("'run' has no checkpoint",)),
    "damaged checkpoints": (
        lambda run: [path.write_bytes(b"x") for path in (run / "checkpoints").iterdir()],
        (),
        ("every checkpoint in run/checkpoints is damaged",),
    ),
    "config.yaml not YAML": (in_file("config.yaml", "seed: [1"), (), ("run/config.yaml", "YAML")),
    "another size": (
        lambda run: in_file("config.yaml", (run / "config.yaml").read_text().replace("channels: 4", "channels: 8"))(
            run
        ),
        (),
        ("'stem0.0.weight'", "(2, 3, 3, 3)", "(4, 3, 3, 3)"),
    ),
    "no genotype": (remove("genotype.json"), (), ("run/genotype.json",)),
    "another genotype": (
        lambda run: in_file("genotype.json", load_genotype("darts_v2").to_json())(run),
        (),
        ("tensor 'cells.0.", "run"),
    ),
    "no dataset.json": (remove("dataset.json"), (), ("dataset.json",)),
    "dataset.json not JSON": (in_file("dataset.json", "{"), (), ("run/dataset.json is damaged",)),
    "dataset.json not UTF-8": (in_file("dataset.json", b"\xff"), (), ("run/dataset.json is damaged",)),
    "dataset.json nested": (in_file("dataset.json", "[" * 100_000), (), ("run/dataset.json is damaged",)),
    "no classes": (changed("dataset.json", "classes", value=[]), (), ("'classes' must be a list of names",)),
    "no mean": (changed("dataset.json", "mean", value=[1.0]), (), ("'mean' must be 3 numbers, not [1.0]",)),
    "no spread": (changed("dataset.json", "std", value=[1, 1, 0]), (), ("'std' must be 3 numbers above 0",)),
    "other resize": (changed("dataset.json", "resize", value=63), (), ("'resize' is below 'image_size'",)),
    "weights that are no tensors": (
        lambda run: CheckpointFolder(run / "checkpoints").save(
            {"kind": "eval", "task": {"network": {"a": 5}}, "position": {"epoch": 0}}, 2
        ),
        (),
        ("not a checkpoint of a retraining",),
    ),
    "no place": (
        lambda run: CheckpointFolder(run / "checkpoints").save({"kind": "eval", "task": {}, "position": 5}, 2),
        (),
        ("'position' must be an object",),
    ),
    "an image of kilometres": (changed("dataset.json", "image_size", value=60_000), (), ("'image_size'",)),
    "more classes": (
        changed("dataset.json", "classes", value=["a", "b"]),
        (),
        ("'classifier.weight'", "(5, 64)", "(2, 64)"),
    ),
    "no average": (lambda run: None, ("--weights", "ema"), ("'run' kept no average", "ema_decay")),
    "unknown weights": (lambda run: None, ("--weights", "best"), ("weights 'best'", "last, ema")),
    "unknown format": (lambda run: None, ("--format", "onxx"), ("format 'onxx'", "did you mean 'onnx'")),
    "into a run": (lambda run: None, ("--out", "run", "--overwrite"), ("'run' is the folder of a run",)),
    "into a file": (lambda run: None, ("--out", "run/genotype.json"), ("run/genotype.json",)),
    "into nowhere": (lambda run: None, ("--out", "/proc/model"), ("/proc/model",)),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_cannot_be_exported(name, imagenet_run, tmp_path, monkeypatch, refused):
    damage, words, says = RUNS[name]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(imagenet_run, "run")
    (tmp_path / "run" / "summary.json").write_text("{}")
    damage(tmp_path / "run")
    refused(["export", "run", "--out", "model", *words], says)
    assert not (tmp_path / "model").exists()


def narrower(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["stem0.3.weight"] = torch.zeros(3, 2, 3, 3)
    save_file(weights, folder / "model.safetensors")


#: How a copy of the exported folder is damaged, and what the message must hold.
MODELS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "no folder": (shutil.rmtree, ("'model' holds no config.json", "nge export")),
    "a run": (
        lambda model: (in_file("config.yaml", "")(model), remove("config.json")(model)),
        ("'model' is a run folder", "nge export model --out"),
    ),
    "config.json not JSON": (in_file("config.json", "{"), ("model/config.json is damaged",)),
    "config.json a list": (in_file("config.json", "[]"), ("model/config.json is damaged: not a JSON object",)),
    "config.json empty": (
        in_file("config.json", "{}"),
        ("model/config.json is damaged: 'architecture' is missing",),
    ),
    "another architecture": (changed("config.json", "architecture", value="resnet18"), ("nge_cifar", "'resnet18'")),
    "channels text": (changed("config.json", "model_args", "channels", value="4"), ("'channels'", "not '4'")),
    "no genotype": (changed("config.json", "model_args", "genotype", value={}), ("key 'format' is missing",)),
    "a class less": (changed("config.json", "label_names", value=["a"]), ("'num_classes'", "not 5")),
    "not square": (changed("config.json", "pretrained_cfg", "input_size", value=[3, 64, 32]), ("square",)),
    "crop_pct": (changed("config.json", "pretrained_cfg", "crop_pct", value=0), ("'crop_pct'", "not 0")),
    "std": (changed("config.json", "pretrained_cfg", "std", value=[1, 1, None]), ("'std'",)),
    "another size": (
        changed("config.json", "model_args", "channels", value=8),
        ("model/model.safetensors", "'stem0.0.weight'", "(2, 3, 3, 3)", "(4, 3, 3, 3)"),
    ),
    "an image of kilometres": (
        changed("config.json", "pretrained_cfg", "input_size", value=[3, 1 << 14, 1 << 14]),
        ("'input_size'", "from 1 to 2048"),
    ),
    "an image without end": (
        changed("config.json", "pretrained_cfg", "input_size", value=[3, 10**30, 10**30]),
        ("'input_size'",),
    ),
    "a crop of nothing": (changed("config.json", "pretrained_cfg", "crop_pct", value=5e-324), ("'crop_pct'",)),
    "a spread of nothing": (changed("config.json", "pretrained_cfg", "std", value=[1e-300] * 3), ("'std'",)),
    "more cells than weights": (
        changed("config.json", "model_args", "cells", value=1000),
        ("'cells'", "from 1 to 3"),
    ),
    "channels without end": (changed("config.json", "model_args", "channels", value=10**12), ("'channels'",)),
    "classes without end": (
        changed("config.json", "label_names", value=["x"] * 300_000),
        ("'num_classes'", "not 5"),
    ),
    "values without end": (
        in_file("config.json", '{"a": [' + "[]," * 1_000_001 + "[]]}"),
        ("more than the 2000000",),
    ),
    "weights that are a pipe": (
        lambda model: (remove("model.safetensors")(model), os.mkfifo(model / "model.safetensors")),
        ("model.safetensors' is a named pipe",),
    ),
    "weights with a header without end": (
        in_file("model.safetensors", b"\xff" * 7 + b"\x0f" + b"{}"),
        ("its header has",),
    ),
    "weights that are not finite": (
        lambda model: save_file(
            {
                name: x * float("nan") if x.is_floating_point() else x
                for name, x in load_file(model / "model.safetensors").items()
            },
            model / "model.safetensors",
        ),
        ("not finite",),
    ),
    "another shape": (narrower, ("'stem0.3.weight'", "(3, 2, 3, 3)", "(4, 2, 3, 3)")),
    "no weights": (remove("model.safetensors"), ("'model/model.safetensors' does not exist",)),
    "damaged weights": (in_file("model.safetensors", b"x" * 99), ("'model/model.safetensors'", "damaged")),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_classify(name, imagenet_model, digit, tmp_path, monkeypatch, refused):
    damage, says = MODELS[name]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(imagenet_model, "model")
    damage(tmp_path / "model")
    refused(["classify", "model", str(digit)], says)
