"""Configs that ship: found by name behind paths, described, complete, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nge_search import kinds
from nge_search.api import configure
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.settings import shipped
from nge_search.settings.load import kind_for, load_config, schema_of
from nge_search.settings.shipped import config_lines, find_config, shipped_configs

ROOT = Path(__file__).parents[2]


def test_every_config_says_what_it_is_and_what_it_takes() -> None:
    found = shipped_configs()
    assert sorted(config.path for config in found) == sorted((ROOT / "configs").glob("*/*.yaml"))
    for config in found:
        assert len(config.meaning) > 5, config.path
        assert len(config.expected) > 10, config.path
    groups = {config.group for config in found}
    assert groups <= {kind.command.split()[0] for kind in kinds.KINDS}
    digits = next(config for config in found if (config.group, config.name) == ("search", "digits"))
    lines = config_lines([digits])
    assert lines[0] == "nge search ... --config NAME"
    assert digits.meaning in lines[1]
    assert "four minutes" in lines[2]


def test_only_what_asks_a_table_is_expected_to_take_minutes_beside_one() -> None:
    for config in shipped_configs("search"):
        told = "beside the table" in config.expected
        assert not told or kind_for("search", config.path).name == "queries", config.path


@pytest.mark.parametrize("command", ["search", "eval"])
def test_names_stand_behind_paths(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("digits", command) == ROOT / "configs" / command / "digits.yaml"
    kind = kind_for(command, "digits")
    config = load_config(schema_of(kind), "digits")
    assert (config.run.name, config.data.name) == ("digits", "digits")
    assert config == load_config(schema_of(kind), ROOT / "configs" / command / "digits.yaml")
    Path("digits").write_text("seed: 7\n")
    assert find_config("digits", command) == Path("digits")
    assert load_config(schema_of(kind), "digits").seed == 7
    assert find_config("digits", "predict train") == Path("digits")


@pytest.mark.parametrize("command", ["search", "eval"])
def test_commands_and_python_take_names(command, tmp_path, monkeypatch, capsys) -> None:
    """From anywhere, and with plugins, which a file may name as well."""
    monkeypatch.chdir(tmp_path)
    assert main([command, "--config", "digits", "--print-config"]) == 0
    assert "  name: digits\n" in capsys.readouterr().out
    assert configure(command, "digits", [])[1].run.name == "digits"
    assert main([command, "--config", "digits", "plugins=[nowhere]"]) == 2
    assert "no module 'nowhere'" in capsys.readouterr().err


def test_the_bench_of_a_step_takes_names(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "step", "--config", "digits", "search.epochs=0"]) == 2
    assert "search.epochs=0: must be at least 1" in capsys.readouterr().err


def test_the_recipes_for_own_images_fit_each_other() -> None:
    search = load_config(schema_of(kind_for("search")), "images")
    training = load_config(schema_of(kind_for("eval")), "images")
    assert search.data.name == training.data.name == "folder"
    assert search.data.image_size == training.data.image_size
    # 300 images leave a step to each half, and a training whole batches
    assert search.search.batch_size * 2 <= 300
    assert training.train.batch_size * 2 <= 300


def test_an_installed_package_has_its_own(tmp_path, monkeypatch) -> None:
    own = tmp_path / "configs" / "search"
    own.mkdir(parents=True)
    (own / "digits.yaml").write_text("# A config. More of it\n# Expected: a second.\nseed: 3\n")
    monkeypatch.setattr(shipped, "_PLACES", (tmp_path / "none", tmp_path / "configs"))
    (found,) = shipped_configs()
    assert (found.group, found.name, found.meaning, found.expected) == ("search", "digits", "A config", "a second.")
    monkeypatch.setattr(shipped, "_PLACES", (tmp_path / "none",))
    with pytest.raises(UserError, match="holds no configs"):
        shipped_configs()


def test_the_command_lists_them(capsys) -> None:
    assert main(["configs"]) == 0
    assert "nge retrieve ... --config NAME" in capsys.readouterr().out
    assert main(["configs", "eval", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {config["group"] for config in found} == {"eval"}
    assert "cifar100_paper" in {config["name"] for config in found}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search", "--config", "digts"], "did you mean 'digits'"),
        (["eval", "--config", "nb201_evolution"], "none of that name ships for `nge eval`"),
        (["search", "--config", "digits.yml"], "config file 'digits.yml'"),
        (["search", "--config", "search/digits"], "config file 'search/digits'"),
        (["search", "--config", "digits.yaml"], "does not exist; the name 'digits' alone is the one that ships"),
        (["eval", "--config", "configs/eval/images.yaml"], "the name 'images' alone is the one that ships"),
        (
            ["eval", "--config", "configs/eval/images_training.yaml"],
            "config file 'configs/eval/images_training.yaml'",
        ),
        (["search", "--config", "images"], "data.root"),
        (["search", "--config", "images", "data.root=folder"], "'folder' has no class folders"),
        (["eval", "--config", "images", "data.root=nowhere"], "nowhere"),
        (["search", "--config", "."], "config file '.'"),
        (["search", "--config", "folder"], "config file 'folder'"),
        (["configs", "sarch"], "did you mean 'search'"),
        (["configs", "--all"], "unrecognized arguments: --all"),
    ],
)
def test_what_is_refused(words, says, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert [path.name for path in Path().iterdir()] == ["folder"]
