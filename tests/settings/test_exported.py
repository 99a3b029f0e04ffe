"""Settings that follow from exported weights: which of them, and before which others they go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config, to_yaml
from nge_search.settings.segmentation import SegmentationConfig


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What settings read of an exported classifier."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "genotype.json").write_text("{}")
    write(folder, "nge_imagenet", {"channels": 12, "cells": 5, "genotype": {}, "num_classes": 7})
    return folder


def write(folder: Path, architecture: str, sizes: object) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "model_args": sizes}))


def test_genotype_and_sizes_are_those_of_the_export(exported):
    network = load_config(EvalConfig, None, [f"network.weights={exported}"]).network
    assert (network.genotype, network.kind, network.channels, network.cells) == (str(exported), "imagenet", 12, 5)
    assert network.stem_multiplier == 3  # of which an ImageNet network has none
    backbone = load_config(SegmentationConfig, None, [f"network.weights={exported}"]).network
    assert (backbone.genotype, backbone.channels, backbone.cells) == (str(exported), 12, 5)
    write(exported, "nge_cifar", {"channels": 12, "cells": 5, "stem_multiplier": 2})
    network = load_config(EvalConfig, None, [f"network.weights={exported}"]).network
    assert (network.kind, network.stem_multiplier) == ("cifar", 2)


def test_what_goes_before_what(exported, tmp_path):
    """Typed settings, then what follows from typed ones, then a file's, then what follows from those."""
    recipe, weights = tmp_path / "recipe.yaml", f"network.weights={exported}"
    recipe.write_text("network:\n  channels: 36\n  genotype: p_darts\n")
    network = load_config(EvalConfig, recipe, [weights, "network.cells=9"]).network
    assert (network.genotype, network.channels, network.cells) == (str(exported), 12, 9)
    recipe.write_text(f"network:\n  weights: {exported}\n  channels: 36\n")
    network = load_config(EvalConfig, recipe).network
    assert (network.genotype, network.channels, network.cells) == (str(exported), 36, 5)
    network = load_config(EvalConfig, recipe, ["network.weights="]).network
    assert (network.genotype, network.channels, network.cells) == ("darts_v2", 36, 20)


@pytest.mark.parametrize("weights", ["nowhere", "model/model.safetensors", "other", "masks"])
def test_weights_that_say_nothing(weights, exported, monkeypatch):
    monkeypatch.chdir(exported.parent)
    for name, document in (("other", {}), ("masks", {"architecture": "nge_deeplab"})):
        (exported.parent / name).mkdir()
        (exported.parent / name / "config.json").write_text(json.dumps(document))
    network = load_config(EvalConfig, None, [f"network.weights={weights}"]).network
    assert (network.genotype, network.channels, network.cells) == ("darts_v2", 36, 20)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "config.json is damaged"),
        ("[]", "not a JSON object"),
        ('{"architecture": "nge_cifar"}', "'model_args' is missing"),
        ('{"architecture": "nge_cifar", "model_args": {"cells": "5"}}', "'cells' must be an integer"),
        ('{"architecture": "nge_cifar", "model_args": {"channels": 1e9}}', "'channels' must be an integer"),
        ('{"architecture": "nge_cifar", "model_args": {"cells": 1000}}', "network.cells=1000: must be at most 200"),
    ],
)
def test_exports_that_are_damaged(content, says, exported):
    (exported / "config.json").write_text(content)
    with pytest.raises(UserError, match=says):
        load_config(EvalConfig, None, [f"network.weights={exported}"])


@pytest.mark.parametrize("schema", [EvalConfig, SegmentationConfig])
def test_the_file_of_a_run_outlives_the_export(schema, exported, tmp_path):
    """It has all that follows from the weights, which are looked at only where something does."""
    path, weights = tmp_path / "config.yaml", f"network.weights={exported}"
    path.write_text(to_yaml(load_config(schema, None, [weights])))
    for content in ("{", '{"architecture": "nge_cifar"}', None):
        (exported / "config.json").unlink() if content is None else (exported / "config.json").write_text(content)
        assert load_config(schema, path).network.cells == 5
    shutil.rmtree(exported)
    assert load_config(schema, path).network.genotype == str(exported)


def test_a_network_of_another_kind_for_a_backbone(exported):
    write(exported, "nge_cifar", {"channels": 12, "cells": 5})
    with pytest.raises(UserError, match=r"network.kind=cifar, but needed are weights of imagenet"):
        load_config(SegmentationConfig, None, [f"network.weights={exported}"])
