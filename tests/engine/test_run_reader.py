"""Run folders, read: what tells their kind, what a strict reader refuses and a lenient one leaves out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nge_search.architecture.load import load_genotype
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.run_files import write_mark
from nge_search.engine.run_reader import RunReader, use_of
from nge_search.errors import UserError
from nge_search.recipes import Images

GENOTYPE = load_genotype("darts_v2").to_dict()


def write(folder: Path, name: str, *documents: object) -> None:
    (folder / name).write_text("".join(json.dumps(document) + "\n" for document in documents))


#: What is in the folder, each of which tells less than those before it.
TELLING: dict[str, Callable[[Path], object]] = {
    "segmentation": lambda run: write(run, "summary.json", {"kind": "voc"}),
    "eval": lambda run: write(run, "config.yaml", {"task": "classification"}),
    "queries": lambda run: write_mark(run, "queries"),
    "search": lambda run: write(run, "metrics.jsonl", {"epoch": 0, "p_normal": [[1.0]]}),
}


@pytest.mark.parametrize("kind", TELLING)
def test_the_kind_is_told_by_what_tells_it_best(kind: str, tmp_path: Path) -> None:
    for name in list(TELLING)[list(TELLING).index(kind) :]:
        TELLING[name](tmp_path)
    assert RunReader(tmp_path).kind == RunReader(tmp_path, lenient=True).kind == kind


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"search": {}}, "search"),
        ({"network": {}, "train": {}}, "eval"),
        ({"search": {}, "train": {}}, ""),
        ({"task": "unheard of"}, ""),
        ([], ""),
    ],
)
def test_settings_without_a_task_tell_by_their_sections(config: object, kind: str, tmp_path: Path) -> None:
    write(tmp_path, "config.yaml", config)
    assert RunReader(tmp_path).kind == kind


def test_a_kind_of_another_version_keeps_its_name(tmp_path: Path) -> None:
    write(tmp_path, "summary.json", {"kind": "distillation"})
    assert RunReader(tmp_path).kind == "distillation"
    assert use_of(tmp_path) == ""


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    reader = RunReader(tmp_path)
    assert (reader.kind, reader.config, reader.environment, reader.rows) == ("", None, {}, ())
    assert (reader.summary, reader.dataset, reader.architecture, reader.checkpoint()) == (None, None, None, None)
    assert (reader.graphs, reader.genotype, reader.notation, reader.searched_images()) == (None, None, "", None)
    with pytest.raises(UserError, match=r"has no dataset\.json"):
        reader.described_images()
    with pytest.raises(UserError, match="is neither a file"):
        reader.saved_genotype()
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl"):
        reader.row()


#: A file, what it holds, what reads it, what is there without it, and what is said of it.
DAMAGED: dict[str, tuple[str, str, Callable[[RunReader], object], object, str]] = {
    "summary": ("summary.json", "{", lambda run: run.summary, None, "summary.json is damaged"),
    "environment": ("environment.json", "[]", lambda run: run.environment, {}, "environment.json is damaged"),
    "settings": ("config.yaml", "seed: [1", lambda run: run.config, None, "not valid YAML"),
    "settings nested": (
        "config.yaml",
        "a: " + "[" * 40 + "]" * 40,
        lambda run: run.config,
        None,
        "nested too deeply",
    ),
    "rows": ("metrics.jsonl", '{half\n{"epoch": 0}\n', lambda run: len(run.rows), 1, "1 line(s) are not JSON"),
    "architecture": ("genotype.json", "{}", lambda run: run.genotype, None, ""),
    "operation": (
        "genotype.json",
        json.dumps(GENOTYPE).replace("sep_conv_3x3", "sep_conv_9x9"),
        lambda run: run.genotype,
        None,
        "sep_conv_9x9",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_strict_readers_refuse_what_lenient_ones_leave_out(name: str, tmp_path: Path) -> None:
    file, text, read, otherwise, says = DAMAGED[name]
    (tmp_path / file).write_text(text)
    lenient = RunReader(tmp_path, lenient=True)
    assert read(lenient) == otherwise
    assert read(lenient) == otherwise
    assert len(lenient.notes) == (1 if says else 0)
    assert all(says in note for note in lenient.notes)
    if says:
        with pytest.raises(UserError) as refused:
            read(RunReader(tmp_path))
        assert says in str(refused.value)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "summary.json")
    lenient = RunReader(tmp_path, lenient=True)
    assert lenient.summary is None
    assert "named pipe" in lenient.notes[0]
    with pytest.raises(UserError, match="named pipe"):
        _ = RunReader(tmp_path).summary


def test_rows_count_from_1_and_once(tmp_path: Path) -> None:
    epochs = [0, 1, 2, 2, True, None, 10**400]
    write(tmp_path, "metrics.jsonl", *({"epoch": epoch, "at": at} for at, epoch in enumerate(epochs)))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 6, "cut')
    reader = RunReader(tmp_path)
    assert [(row["epoch"], row["at"]) for row in reader.rows] == [(1, 0), (2, 1), (3, 3), (4, 4), (5, 5), (6, 6)]
    assert reader.row(2) == {"epoch": 2, "at": 1}
    assert reader.row(3) == {"epoch": 3, "at": 3}
    with pytest.raises(UserError, match="records epochs 1 to 3, counted from 1, not 4"):
        reader.row(4)
    write(tmp_path, "metrics.jsonl", *({"epoch": epoch} for epoch in (4, 5)))
    assert reader.row() == {"epoch": 6}
    with pytest.raises(UserError, match="records epochs 5 to 6, counted from 1, not 1"):
        reader.row(1)
    write(tmp_path, "metrics.jsonl", {"epoch": -1}, 3)
    with pytest.raises(UserError, match="no finished epoch"):
        reader.row()


def test_too_many_rows_are_cut_off_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nge_search.engine.run_reader.MOST_VALUES", 10)
    write(tmp_path, "metrics.jsonl", *({"epoch": epoch, "x": [1, 2]} for epoch in range(3)))
    lenient = RunReader(tmp_path, lenient=True)
    assert [row["epoch"] for row in lenient.rows] == [1, 2]
    assert "first 2 rows" in lenient.notes[0]
    with pytest.raises(UserError, match="first 2 rows"):
        _ = RunReader(tmp_path).rows
    assert RunReader(tmp_path).row()["epoch"] == 3  # which holds one row at a time


def test_the_architecture_is_the_best_that_is_recorded(tmp_path: Path) -> None:
    write(tmp_path, "metrics.jsonl", {"epoch": 0, "genotype": GENOTYPE}, {"epoch": 1})
    assert RunReader(tmp_path).genotype == load_genotype("darts_v2")
    write(tmp_path, "summary.json", {"genotype": load_genotype("darts_v1").to_dict()})
    assert RunReader(tmp_path).genotype == load_genotype("darts_v1")
    write(tmp_path, "genotype.json", load_genotype("p_darts").to_dict())
    reader = RunReader(tmp_path)
    assert reader.genotype == reader.saved_genotype() == load_genotype("p_darts")
    assert sorted(reader.graphs or {}) == ["normal", "reduce"]


def test_images_of_a_search(tmp_path: Path) -> None:
    write(tmp_path, "dataset.json", {"train_images": 90, "image_size": 8, "classes": ["a", "b"]})
    write(tmp_path, "environment.json", {"device": "cpu"})
    assert RunReader(tmp_path).searched_images() == Images(90, 8, True)
    assert RunReader(tmp_path).described_images().names("classes") == ["a", "b"]
    write(tmp_path, "environment.json", {"device": "cuda"})
    assert RunReader(tmp_path).searched_images() == Images(90, 8, False)
    write(tmp_path, "environment.json", {})
    assert RunReader(tmp_path).searched_images() is None


def test_only_settings_that_can_be_shown_are_taken_leniently(tmp_path: Path) -> None:
    config = {"seed": 3, "run": {"name": "x" * 5000, "dir": "y", "big": 1 << 64, "list": [1]}, "list": [1]}
    write(tmp_path, "config.yaml", config)
    assert RunReader(tmp_path).config == config
    lenient = RunReader(tmp_path, lenient=True)
    assert lenient.config == {"seed": 3, "run": {"dir": "y"}}
    assert lenient.setting("run.dir") == "y"
    assert lenient.setting("seed.of") is lenient.setting("nothing") is None


def test_the_newest_undamaged_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    paths = [folder.save({"kind": "eval", "position": {"epoch": epoch}}, epoch) for epoch in range(2)]
    saved = RunReader(tmp_path).checkpoint()
    assert saved is not None
    assert (saved.kind, saved.damaged, saved.state.source) == ("eval", (), str(paths[1]))
    assert saved.state.section("position").integer("epoch", 0, 9) == 1
    paths[1].write_bytes(b"x")
    saved = RunReader(tmp_path).checkpoint()
    assert saved is not None
    assert saved.state.source == str(paths[0])
    assert str(paths[1]) in saved.damaged[0]
