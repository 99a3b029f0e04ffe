"""Configurations: layers, the files that ship, `--help`."""

from __future__ import annotations

import pytest
import yaml

import nge_search
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import (
    differences,
    help_text,
    kind_for,
    load_config,
    schema_of,
    to_dict,
    to_yaml,
)
from nge_search.settings.search import SearchConfig
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.settings.strategies import QueriesConfig


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_defaults_then_file_then_words(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\nsearch:\n  epochs: 7\n  learning_rate: 1e-2\n")
    config = load_config(SearchConfig, path, ["search.epochs=9", "data.flip=null"])
    assert (config.seed, config.search.epochs, config.search.learning_rate) == (4, 9, 0.01)
    assert config.search.batch_size == 64
    assert config.run.name == "mine"
    assert config.run.dir == "runs/search/mine"


def test_the_default_sizes_are_the_paper_s():
    config = SearchConfig()
    assert (config.supernet.channels, config.supernet.cells, config.search.epochs) == (16, 8, 25)
    assert (config.search.learning_rate, config.search.momentum, config.search.weight_decay) == (0.025, 0.9, 3e-4)
    assert config.search.learning_rate_min == 0
    assert (config.embedding.learning_rate, config.embedding.weight_decay) == (6e-4, 1e-3)
    assert (config.embedding.input_dim, config.embedding.hidden_dim, config.embedding.output_dim) == (64, 128, 64)
    assert (config.embedding.edge_dim, config.embedding.layers) == (64, 3)


def test_the_paper_s_search_has_a_config_of_its_own(checkout):
    """Its values stay, whatever becomes of the defaults: nothing that matters is left to them."""
    path = checkout / "configs" / "search" / "cifar10_paper.yaml"
    config = load_config(SearchConfig, path)
    paper = {
        "supernet": {
            "space": "darts", "channels": 16, "cells": 8, "nodes": 4, "stem_multiplier": 3, "partial": 1,
            "operations": [
                "skip_connect", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
                "dil_conv_5x5",
            ],
        },
        "embedding": {
            "kind": "nge", "adjacency": "predecessors", "input_dim": 64, "hidden_dim": 128, "output_dim": 64,
            "edge_dim": 64, "layers": 3, "shared": True, "edges": "printed", "jumping": False,
            "uniform_start": False, "initialisation": "he", "learning_rate": 6e-4, "beta1": 0.5, "beta2": 0.999,
            "weight_decay": 1e-3, "weight_decay_on_x": True,
        },
        "search": {
            "loop": "epochwise", "order": "first", "epochs": 25, "warmup_epochs": 0, "mixture": "weighted",
            "embedding_warmup_epochs": 0, "temperature": 1, "temperature_end": None, "edge_normalisation": False,
            "batch_size": 64, "learning_rate": 0.025, "learning_rate_min": 0, "momentum": 0.9, "stop_count": 0,
            "weight_decay": 3e-4, "clip": 5, "cost_weight": 0, "entropy_weight": 0, "beta_weight": 0,
            "selection": "argmax", "average": False, "target_macs": None, "target_params": None,
        },
    }  # fmt: skip
    written = yaml.safe_load(path.read_text())
    for section, values in paper.items():
        assert {name: getattr(getattr(config, section), name) for name in values} == values
        assert set(written[section]) == set(values)
    elsewhere = {  # what those make no use of, or what does not change what is computed
        "supernet": {"kernel", "sync_statistics"},
        "embedding": {"recurrent_layers", "init_std"},
        "search": {
            "gradient", "draws", "anchor_weight", "stop_operations", "cuda_graphs", "evaluate_every", "baselines",
            "random_cells", "perturbation_steps", "selection_operations", "selection_starts",
            "selection_finalists", "selection_longer", "selection_convolutions",
            "cost", "target_network", "target_channels", "target_cells", "target_classes", "target_image_size",
        },
    }  # fmt: skip
    for section, names in elsewhere.items():
        assert set(to_dict(config)[section]) == {*paper[section], *names}
    assert config.data.name == "cifar10"


def test_every_shipped_config_is_valid(checkout):
    paths = sorted((checkout / "configs").glob("*/*.yaml"))
    assert len(paths) >= 5
    for path in paths:
        own = {"predict": "predict bench", "design": "design train", "retrieve": "retrieve bench"}
        command = own.get(path.parent.name, path.parent.name)
        load_config(schema_of(kind_for(command, path)), path)


def test_the_task_that_is_named_last_decides(checkout):
    path = checkout / "configs" / "eval" / "voc.yaml"

    def schema(*given):
        return schema_of(kind_for("eval", *given))

    assert schema() is schema(None, ["seed=1"]) is EvalConfig
    assert schema(path) is schema(None, [{"task": "segmentation"}]) is SegmentationConfig
    assert schema(path, ["task=classification"]) is EvalConfig
    with pytest.raises(UserError, match="task=x: allowed are classification, segmentation"):
        schema(None, ["task=x"])


@pytest.mark.parametrize(
    ("words", "schema"),
    [("search", SearchConfig), ("eval", EvalConfig), ("eval task=segmentation", SegmentationConfig)],
)
def test_help_lists_every_key_with_its_default(words, schema, capsys):
    assert main([*words.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert help_text(schema) in printed
    for key in leaves(to_dict(schema())):
        assert f"  {key}=" in printed
    assert "search.epochs=25" in printed or schema is not SearchConfig


def test_print_config_gives_a_config_file_back(tmp_path, capsys):
    assert main(["search", "--print-config", "search.epochs=3", "data.name=cifar10", "data.cutout=8"]) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    config = load_config(SearchConfig, path)
    assert (config.search.epochs, config.data.cutout) == (3, 8)
    assert yaml.safe_load(to_yaml(config)) == to_dict(config)


def test_only_settings_that_matter_forbid_a_resume():
    old = to_dict(load_config(SearchConfig, None, ["run.log_every=7", "data.root=/elsewhere", "threads=3"]))
    assert differences(old, load_config(SearchConfig)) == ""
    old["embedding"]["kind"] = "rnn"
    assert differences(old, load_config(SearchConfig)) == "embedding.kind was 'rnn', now 'nge'"
    changes = ("search.epochs=9", "seed=3", "search.batch_size=8", "data.image_size=16")
    listed = differences(old, load_config(SearchConfig, None, changes))
    assert [*map(str.split, listed.split("; "))][-1] == ["and", "2", "more"]
    assert listed.count(" was ") == 3


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("search.epoch=3", "did you mean 'search.epochs'?"),
        ("searh.epochs=3", "did you mean 'search.epochs'?"),
        ("epochs=3", "did you mean 'search.epochs'?"),
        ("embedding.kind=gne", "did you mean 'nge'?"),
    ],
)
def test_messages_name_the_nearest_key(word, message):
    with pytest.raises(UserError) as caught:
        load_config(SearchConfig, None, [word])
    assert message in str(caught.value)


def test_what_is_no_configuration_of_a_command_is_refused() -> None:
    for command, others in (
        (nge_search.search, (5, EvalConfig(), SegmentationConfig())),
        (nge_search.evaluate, (5, SearchConfig(), QueriesConfig())),
    ):
        for config in others:
            why = f"a configuration is a file, a mapping or a .*, not {type(config).__name__}"
            with pytest.raises(UserError, match=why):
                command(config)
