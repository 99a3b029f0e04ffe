"""Text settings arrive as they were typed, numbers follow one rule, and a path's `~` is the home folder: from the
command line, a file and Python alike."""

from __future__ import annotations

import datetime
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nge_search
from nge_search.architecture.load import load_architecture, load_genotype
from nge_search.cli import main
from nge_search.deploy.classify import find_images, read_exported
from nge_search.deploy.export import export_run
from nge_search.deploy.segmenter import read_trained
from nge_search.doctor import examine
from nge_search.errors import UserError
from nge_search.networks.weights import read_weights
from nge_search.recipes import retrain_command
from nge_search.report import save_drawings, write_report
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import differences, kind_for, load_config, to_dict, to_yaml
from nge_search.settings.search import SearchConfig
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.settings.strategies import QueriesConfig
from nge_search.spaces import NasBench201Space
from nge_search.tables import open_table
from nge_search.tables.table import build_table, open_folder

#: Texts that YAML, or Python, would take for a number, a date, a truth value or nothing; all are plain in YAML.
LOOKALIKES = (
    "20251231_235959",
    "0042",
    "09:05:00",
    "-2.50",
    "3e08",
    "0xBEEF",
    "0b101",
    "1_0",
    "6.0",
    ".5",
    "+1",
    "1999-12-31",
    "1999-12-31 10:00:00",
    "no",
    "True",
    "NULL",
    ".inf",
    "nan",
    "C# at 5",
    "a=b=c",
    "it's 'so'",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder; the working folder is another one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def value_of(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def three_ways(key: str, text: str, schema: type = EvalConfig, more: tuple[str, ...] = ()) -> Iterator[Any]:
    """The setting's value from a word, from a file's plain scalar, and from a Python mapping of the same text."""
    path = Path("three_ways.yaml")
    section, _, name = key.rpartition(".")
    path.write_text(f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n")
    for file, settings in ((None, f"{key}={text}"), (path, "seed=0"), (None, nested(key, text))):
        try:
            yield value_of(load_config(schema, file, [*more, settings] if file is None else more), key)
        except UserError:
            yield UserError


@pytest.mark.parametrize("key", ["run.name", "data.root"])
def test_text_is_taken_character_by_character(key: str, home: Path) -> None:
    for text in LOOKALIKES:
        assert list(three_ways(key, text)) == [text] * 3, text


def test_what_a_run_writes_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in LOOKALIKES:
        config = load_config(SegmentationConfig, None, [f"run.name={text}", f"network.weights={text}"])
        path.write_text(to_yaml(config))
        assert load_config(SegmentationConfig, path) == config
        assert differences(yaml.safe_load(to_yaml(config)), config) == ""


def test_a_name_is_never_that_of_another_run() -> None:
    folders = [
        load_config(EvalConfig, None, [f"run.name={name}"]).run.dir for name in ("2_1", "21", "2_1_", "0x15")
    ]
    assert folders == ["runs/eval/2_1", "runs/eval/21", "runs/eval/2_1_", "runs/eval/0x15"]


def test_on_the_command_line_a_hash_stays_and_in_a_file_it_begins_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("run:\n  name: third # try\n  dir: out#3\n")
    config = load_config(EvalConfig, path)
    assert (config.run.name, config.run.dir) == ("third", "out#3")
    assert load_config(EvalConfig, path, ["run.name=third # try"]).run.name == "third # try"


def test_quotes_around_a_whole_value_are_not_part_of_it() -> None:
    for typed, text in (
        ("'[1, 2]'", "[1, 2]"),
        ('"!important"', "!important"),
        ("'what''s new'", "what's new"),
        (r'"a \"b\""', 'a "b"'),
        ("''", "default"),
        ("'tis", "'tis"),
        ('5" disk', '5" disk'),
    ):
        assert load_config(EvalConfig, None, [f"run.name={typed}"]).run.name == text
    for typed in ("[1, 2]", "{a", "!important", "!!int 5", "&x y", "*x", "@x", "`x`", "%x", "| x"):
        with pytest.raises(UserError, match="quotes"):
            load_config(EvalConfig, None, [f"run.name={typed}"])
    with pytest.raises(UserError, match="quotes within quotes"):
        load_config(EvalConfig, None, ["run.name='a' and 'b'"])


def test_text_within_a_section_or_a_list_stays_text() -> None:
    config = load_config(EvalConfig, None, ["run={name: 1_1, overwrite: yes}"])
    assert (config.run.name, config.run.overwrite) == ("1_1", True)
    for names in ("[007, skip_connect]", "[skip_connect, null]", "[1.0]"):
        with pytest.raises(UserError, match=r"operations=(007|null|1\.0): allowed are"):
            load_config(SearchConfig, None, [f"supernet.operations={names}"])


@pytest.mark.parametrize("value", [7, 1.5, True, None, datetime.date(2024, 2, 1), b"name", ["name"]])
def test_python_objects_are_no_text(value: Any) -> None:
    with pytest.raises(UserError, match=r"run\.name=.*: must be text; put it in quotes"):
        load_config(EvalConfig, None, [{"run": {"name": value}}])


def test_in_a_file_a_list_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  root: [a, b]\n")
    with pytest.raises(UserError, match=r"data\.root=\[a, b\]: must be text; put it in quotes"):
        load_config(EvalConfig, path)


#: Key, what is typed, what it stands for; UserError: refused.
READINGS = [
    *(
        ("seed", text, value)
        for text, value in (("25", 25), ("+3", 3), ("-0", 0), ("60_000", 60_000), ("1_2_3", 123))
    ),
    *(
        ("seed", text, UserError)
        for text in ("007", "00", "1:30", "0x1F", "0o17", "0b1", "2e3", "4.0", "", "٣", "'")
    ),
    *(
        ("seed", text, UserError)
        for text in ("6__0", "_6", "6_", "6,000", "6 000", "1e", "yes", "null", "~", "3" * 9999)
    ),
    *(("train.clip", text, value) for text, value in (("3", 3.0), (".5", 0.5), ("1.", 1.0), ("2e-3", 0.002))),
    *(
        ("train.clip", text, value)
        for text, value in (("1E+1", 10.0), ("1_0.2_5", 10.25), ("0.50", 0.5), ("1e03", 1e3))
    ),
    *(
        ("train.clip", text, UserError)
        for text in ("010", "1:30", "0x1", "1e", ".", "nan", ".inf", "1e999", "true")
    ),
    *(("data.flip", text, True) for text in ("true", "True", "yes", "on")),
    *(("data.flip", text, False) for text in ("false", "FALSE", "no", "off")),
    *(("data.flip", text, None) for text in ("null", "~", "")),
    *(("data.flip", text, UserError) for text in ("1", "0", "y", "truth", "None")),
]


@pytest.mark.parametrize("key", ["seed", "train.clip", "data.flip"])
def test_numbers_and_truth_values_follow_one_rule(key: str, home: Path) -> None:
    for name, text, value in READINGS:
        if name == key:
            found = list(three_ways(key, text, more=("data.name=cifar10",)))
            assert found == [value] * 3, text
            assert {type(one) for one in found} == {type(value)}, text


def test_python_numbers_are_taken_as_they_are() -> None:
    config = load_config(EvalConfig, None, [{"seed": 3, "train": {"clip": 2}, "data": {"flip": None}}])
    assert (config.seed, config.train.clip, config.data.flip) == (3, 2.0, None)
    for settings in ({"seed": 3.0}, {"seed": True}, {"train": {"clip": 10**400}}, {"train": {"clip": False}}):
        with pytest.raises(UserError):
            load_config(EvalConfig, None, [settings])


@pytest.mark.parametrize(
    "name", ["a/b", "/tmp/a", ".", "..", "../a", "~", "~root", " a", "a ", "  ", "x" * 256, "é" * 128]
)
def test_a_name_that_is_no_name_of_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"run\.name="):
        load_config(EvalConfig, None, [{"run": {"name": name}}])
    assert load_config(EvalConfig, None, [{"run": {"name": name, "dir": "there"}}]).run.name == name


PATHS = {
    SearchConfig: ["run.dir", "data.root"],
    EvalConfig: ["run.dir", "data.root", "network.genotype", "network.weights"],
    SegmentationConfig: ["run.dir", "data.root", "network.genotype", "network.weights"],
    QueriesConfig: ["run.dir", "benchmark.table"],
}


@pytest.mark.parametrize("schema", PATHS)
def test_the_home_folder_is_expanded_wherever_a_setting_is_a_path(schema: type, home: Path) -> None:
    for key in PATHS[schema]:
        assert list(three_ways(key, "~/of mine/x", schema)) == [f"{home}/of mine/x"] * 3
        assert list(three_ways(key, "./a//b/~/", schema)) == ["./a//b/~/"] * 3
        assert list(three_ways(key, "~nobody-of-that-name/x", schema)) == [UserError] * 3
        assert value_of(load_config(schema, None, [nested(key, Path("~/x"))]), key) == f"{home}/x"
        for blank in (" ", "\t", "a\nb", "a\0b"):
            with pytest.raises(UserError, match=key):
                load_config(schema, None, [nested(key, blank)])


def test_only_paths_with_a_meaning_for_it_may_be_empty() -> None:
    for key in ("data.root", "network.genotype"):
        with pytest.raises(UserError, match=f"{key}='': a path is not blank"):
            load_config(EvalConfig, None, [f"{key}="])
    assert load_config(EvalConfig, None, ["run.dir=", "network.weights="]) == load_config(EvalConfig)


def test_commands_expand_the_home_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the command makes of it, it looks there, and makes no folder of that name."""
    (home / "mine.yaml").write_text("task: queries\nrun:\n  dir: ~/out\n")
    run = home / "run"
    run.mkdir()
    genotype = load_genotype("p_darts")
    (run / "metrics.jsonl").write_text(json.dumps({"epoch": 0, "genotype": genotype.to_dict()}) + "\n")
    (run / "genotype.json").write_text(genotype.to_json())
    typed = {
        "search --config ~/mine.yaml --print-config": f"dir: {home}/out",
        "search --config=~/mine.yaml benchmark.table=~/t": f"{home}/t",
        "derive ~/run --out ~/derived.json": "",
        "show ~/run --draw ~/drawings": f"drew {home}/drawings",
        "report ~/run": f"{home}/run/report.html",
        "doctor --root ~/sets": "",
        "export ~/nothing --out ~/exported": f"{home}/nothing",
        "classify ~/model ~/pictures": f"{home}/model",
        "segment ~/nothing ~/pictures --out ~/masks": f"{home}/nothing",
        "table ~/table --out ~/other": f"{home}/table",
    }
    for words, says in typed.items():
        main(shlex.split(words))
        assert says in "".join(capsys.readouterr()), words
    assert load_genotype(home / "derived.json") == load_genotype("~/run") == nge_search.derive("~/run") == genotype
    assert not list(Path.cwd().iterdir())
    assert kind_for("search", "~/mine.yaml").name == "queries"


def test_the_home_folder_is_meant_from_python_too(home: Path) -> None:
    genotype = load_genotype("darts_v1")
    assert save_drawings(genotype.graphs(), "~/drawings", "cell")[0] == home / "drawings" / "cell.svg"
    build_table(NasBench201Space(), [((1, 2, 3, 4, 0, 1), {"accuracy": 9.0})], "mine", "row").save("~/small")
    assert len(open_table("~/small")) == len(open_folder(Path("~/small"))) == 1
    (home / "photos").mkdir()
    (home / "photos/a.png").touch()
    assert find_images(["~/photos", Path("~/photos/a.png"), "./b.png"]) == [f"{home}/photos/a.png"] * 2 + [
        "./b.png"
    ]
    assert examine("~/sets")["root"] == f"{home}/sets"
    for read in (read_exported, read_trained, read_weights, write_report, lambda path: export_run(path, "~/out")):
        with pytest.raises(UserError, match=f"'{home}/nothing"):
            read("~/nothing")
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    "words",
    ["derive run --out ''", "show ''", "report ' '", "search --config ''", "doctor --root ''", "table t --find ''"],
)
def test_a_blank_path_is_refused(words: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(words)) == 2
    assert "a path is not blank" in capsys.readouterr().err


def test_an_architecture_is_found_below_the_home_folder(home: Path) -> None:
    space = NasBench201Space()
    (home / "cell.json").write_text(json.dumps(space.to_dict((1, 2, 3, 4, 0, 1))))
    assert space.code_of(load_architecture("~/cell.json")) == (1, 2, 3, 4, 0, 1)


def test_pipes_and_devices_are_no_settings(home: Path) -> None:
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero"):
        for read in (
            lambda path: load_config(EvalConfig, path),
            load_architecture,
            lambda path: nge_search.search(path),
        ):
            with pytest.raises(UserError, match="not an ordinary file"):
                read(path)


def test_what_is_neither_a_word_nor_a_mapping_is_refused() -> None:
    with pytest.raises(UserError, match="5 is not a setting"):
        load_config(EvalConfig, None, [5])
    with pytest.raises(UserError, match="5 is not a setting"):
        nge_search.evaluate(None, 5)


def test_the_line_that_retrains_is_read_as_it_was_meant() -> None:
    for root in ("set #2", "[raw]", "'old'", "0010", "a b"):
        words = shlex.split(retrain_command("@runs/a", {"name": "cifar10", "root": root}))
        config = load_config(EvalConfig, None, words[4:])
        assert (config.data.root, config.network.genotype) == (root, "@runs/a")


def test_a_configuration_given_as_an_object_is_the_same() -> None:
    config = load_config(EvalConfig, None, ["run.name=0x10", "run.dir=007", "data.crop_padding=null"])
    assert load_config(EvalConfig, None, [to_dict(config)]) == config


def test_images_may_be_as_large_as_exports_take_them() -> None:
    words = ["data.name=folder", "data.image_size=2048", "data.resize=8192"]
    data = load_config(EvalConfig, None, words).data
    assert (data.image_size, data.resize) == (2048, 8192)
    for word in ("data.image_size=2049", "data.resize=8193"):
        with pytest.raises(UserError, match=f"{word}: must be at most"):
            load_config(EvalConfig, None, [*words, word])
