"""The command that a search prints must train what was searched, on the images it was searched on."""

from __future__ import annotations

import shlex

import pytest

from nge_search.config import load_config
from nge_search.recipes import retrain_command
from nge_search.schema import EvalConfig


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "tiny_imagenet", "folder"])
def test_the_command_is_a_valid_configuration_of_the_same_images(name, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    command = shlex.split(
        retrain_command("my runs/x", {"name": name, "root": "/my data", "image_size": 16 * (name == "folder")})
    )
    assert command[:3] == ["python", "train_eval.py", "--config"]
    config = load_config(EvalConfig, command[3], command[4:])
    assert config.network.genotype == "my runs/x"
    assert config.data.name == name
    assert name == "digits" or config.data.root == "/my data"
    assert config.data.image_size == (16 if name == "folder" else 0)
    assert not (name == "folder" and config.network.auxiliary)
