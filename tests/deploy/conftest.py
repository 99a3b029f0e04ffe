"""Trained networks for the tests of deployment: runs, their exports, an image; and the check of a refusal."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import nge_search
import nge_search.networks.timm_models  # tells timm of the architectures
from nge_search.architecture.genotype import Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.deploy.export import export_run
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.networks.families import FAMILIES
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config, to_yaml
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.training.segmentation_run import build_network

WORDS = (
    "threads=1",
    "device=cpu",
    "run.progress=none",
    "run.tensorboard=false",
    "data.limit=64",
    "network.channels=2",
    "network.cells=3",
    "train.epochs=1",
    "train.batch_size=16",
)
WITHOUT_ONNX = next(
    (name for name in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(name)), ""
)


@pytest.fixture
def onnx_packages() -> None:
    """Skips a test of ONNX where its packages are missing."""
    if WITHOUT_ONNX:
        pytest.skip(f"{WITHOUT_ONNX} is not installed")


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """A finished retraining on digits, with averaged weights."""
    run = tmp_path_factory.mktemp("digits") / "run"
    nge_search.evaluate(None, *WORDS, f"run.dir={run}", "train.ema_decay=0.9")
    return run


@pytest.fixture(scope="session")
def digits_model(digits_run: Path, tmp_path_factory) -> Path:
    return export_run(digits_run, tmp_path_factory.mktemp("digits_model") / "model")


@pytest.fixture(scope="session")
def digits_files(digits_run: Path, tmp_path_factory) -> Path:
    """The network in all formats whose packages are there."""
    formats = ("torch",) if WITHOUT_ONNX else ("onnx", "torch")
    return export_run(digits_run, tmp_path_factory.mktemp("digits_files") / "model", formats=formats)


@pytest.fixture(scope="session")
def imagenet_run(tmp_path_factory) -> Path:
    """An unfinished retraining of an ImageNet network, with an auxiliary head, in float64, with random weights."""
    return _write_run(tmp_path_factory.mktemp("imagenet") / "run", "imagenet", side=64, resize=73)


@pytest.fixture(scope="session")
def imagenet_model(imagenet_run: Path, tmp_path_factory) -> Path:
    return export_run(imagenet_run, tmp_path_factory.mktemp("imagenet_model") / "model")


#: Few operations, which are soon exported; pools and reductions that keep their resolution among them.
_GENES = (
    ("skip_connect", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 2), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ("skip_connect", 1), ("max_pool_3x3", 3), ("skip_connect", 2),
)  # fmt: skip
_SIMPLE = Genotype(Cell(_GENES, (2, 3, 4, 5)), Cell(_GENES, (2, 3, 4, 5)))
_CLASSES = ["sky", "road", "tree", "car"]


@pytest.fixture(scope="session")
def simple_run(tmp_path_factory) -> Path:
    """As `imagenet_run`, of a network that is soon exported."""
    run = tmp_path_factory.mktemp("simple") / "run"
    return _write_run(run, "imagenet", side=64, resize=73, genotype=_SIMPLE, cells=1)


@pytest.fixture(scope="session")
def masks_run(tmp_path_factory) -> Path:
    """A run folder as a segmentation leaves it, unfinished and with random weights."""
    run = tmp_path_factory.mktemp("masks") / "run"
    run.mkdir()
    words = ["data.crop=48", "network.channels=2", "network.cells=2", "network.head_channels=4", f"run.dir={run}"]
    config = load_config(SegmentationConfig, None, [*words, "train.eval_flip=true", "network.output_stride=8"])
    torch.manual_seed(0)
    network = build_network(config.network, _SIMPLE, len(_CLASSES), auxiliary=True).double()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    blocks = torch.randn(8, 3, 4, 4).double().repeat_interleave(12, dim=2).repeat_interleave(12, dim=3)
    network(blocks)  # statistics under which several classes occur
    torch.nn.init.zeros_(network.classifier.bias)
    (run / "config.yaml").write_text(to_yaml(config))
    (run / "genotype.json").write_text(_SIMPLE.to_json())
    images = {"name": "streets", "classes": _CLASSES, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}
    (run / "dataset.json").write_text(json.dumps(images))
    state = {"kind": "segmentation", "task": {"network": network.state_dict()}, "position": {"epoch": 0}}
    CheckpointFolder(run / "checkpoints").save(state, 1)
    return run


@pytest.fixture(scope="session")
def digit(tmp_path_factory) -> Path:
    """An image file of a digit."""
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    pixels = load_digits().images[7] * (255 / 16)
    Image.fromarray(pixels.round().astype(np.uint8)).save(path)
    return path


def _write_run(
    run: Path, kind: str, side: int, resize: int, genotype: Genotype | None = None, cells: int = 3
) -> Path:
    """A run folder as a retraining leaves it: 5 classes, statistics that are not those of an untrained network."""
    torch.manual_seed(0)
    genotype = genotype or load_genotype("p_darts")
    network = FAMILIES[kind].build(genotype, 4, cells, 5, auxiliary=True).double()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 1.5)
        elif hasattr(module, "level"):  # of an operation of one's own
            module.level.fill_(0.5)
    run.mkdir()
    words = (
        *WORDS,
        f"run.dir={run}",
        f"network.kind={kind}",
        "network.channels=4",
        f"network.cells={cells}",
        "data.name=tiny_imagenet",
    )
    (run / "config.yaml").write_text(to_yaml(load_config(EvalConfig, None, words)))
    (run / "genotype.json").write_text(genotype.to_json())
    dataset = {
        "name": "somewhere",
        "classes": ["ant", "bee", "cat", "dog", "eel"],
        "image_size": side,
        "channels": 3,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
        "resize": resize,
    }
    (run / "dataset.json").write_text(json.dumps(dataset))
    state = {
        "kind": "eval",
        "task": {"network": network.state_dict(), "ema": None},
        "position": {"epoch": 0},
    }
    CheckpointFolder(run / "checkpoints").save(state, 1)
    return run


@pytest.fixture
def write_run() -> Callable[..., Path]:
    """Writes a run folder: its path, the kind of network, the images' side and `resize`, genotype and cells."""
    return _write_run


def _trained(run: Path, which: str = "network") -> dict[str, torch.Tensor]:
    state, _, _ = CheckpointFolder(run / "checkpoints").load_newest()
    return {name: tensor for name, tensor in state["task"][which].items() if not name.startswith("auxiliary.")}


@pytest.fixture
def trained() -> Callable[..., dict[str, torch.Tensor]]:
    """The weights in the newest checkpoint of a run, "network" or "ema", without the auxiliary head."""
    return _trained


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], tuple[str, ...]], None]:
    """Runs a command that must fail with one line of error that holds the words given."""

    def run(words: list[str], says: tuple[str, ...]) -> None:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        for word in says:
            assert word in err

    return run
