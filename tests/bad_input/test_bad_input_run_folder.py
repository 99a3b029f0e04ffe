"""Run folders that cannot be used: of another configuration, damaged, or somebody else's."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.training.classification import ClassifierTraining

Damage = Callable[[Path], object]


def in_file(name: str, content: str | bytes) -> Damage:
    return lambda run: (run / name).write_bytes(content.encode() if isinstance(content, str) else content)


def file_for_folder(name: str) -> Damage:
    def damage(run: Path) -> None:
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).write_text("not a folder")

    return damage


def folder_for_file(name: str | Path) -> Damage:
    def damage(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return damage


#: How the unfinished run is damaged, and what the message must hold.
DAMAGED_RUNS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "a folder for a checkpoint": (
        lambda run: folder_for_file(max((run / "checkpoints").iterdir()).relative_to(run))(run),
        ("unfinished/checkpoints/",),
    ),
    "a file for the checkpoints": (file_for_folder("checkpoints"), ("unfinished/checkpoints",)),
    "config.yaml not YAML": (in_file("config.yaml", "seed: [1"), ("unfinished/config.yaml", "run.overwrite=true")),
    "config.yaml not UTF-8": (in_file("config.yaml", b"\xff\xfe"), ("unfinished/config.yaml", "damaged")),
    "config.yaml with no date": (
        in_file("config.yaml", "run:\n  name: 2001-99-99\n"),
        ("unfinished/config.yaml", "damaged"),
    ),
    "config.yaml nested": (
        in_file("config.yaml", "a: " + "[" * 3000 + "]" * 3000),
        ("unfinished/config.yaml", "damaged"),
    ),
    "metrics.jsonl not UTF-8": (in_file("metrics.jsonl", b"\xff\n" * 9), ("unfinished/metrics.jsonl",)),
    "a folder for metrics.jsonl": (folder_for_file("metrics.jsonl"), ("unfinished/metrics.jsonl",)),
    "a folder for config.yaml": (folder_for_file("config.yaml"), ("unfinished/config.yaml",)),
    "a folder for the lock": (folder_for_file(".lock"), ("unfinished/.lock",)),
}

#: What summary.json of a finished run is made to hold.
DAMAGED_SUMMARIES = {
    "truncated": '{"kind": "search", ',
    "empty": "",
    "a list": "[]",
    "empty object": "{}",
    "without figures": '{"kind": "search"}',
    "not UTF-8": b"\xff\xfe",
    "nested": "[" * 100_000,
}

#: What is typed, of which {} is a run folder that cannot be made or is not ours, and what the message must hold.
PLACES = {
    "/proc/run": ("'/proc/run'",),
    "a_file": ("'a_file'", "not a file"),
    "a_file/run": ("'a_file/run'", "not a directory"),
    "x" * 300: ("xxx", "too long", "shorter path"),
    "photos": ("'photos'", "not empty and holds no run", "'holiday.jpg'", "run.dir"),
    "loop": ("'loop'",),
}


#: A change of settings, and what the message must hold.
OTHER_SETTINGS = {
    "search.batch_size=8": ("search.batch_size was 16, now 8",),
    "data.limit=0": ("data.limit was 64, now 0",),
    "precision=fp64": ("precision was 'fp32', now 'fp64'",),
}


@pytest.mark.parametrize("name", DAMAGED_RUNS)
def test_damaged_run(name: str, unfinished: Path, resume: list[str], refuse: Callable[..., str]) -> None:
    damage, says = DAMAGED_RUNS[name]
    damage(unfinished)
    refuse(*resume, says=says, creates="nothing")


@pytest.mark.parametrize("name", DAMAGED_SUMMARIES)
def test_damaged_summary(
    name: str, finished: Path, small_search: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    in_file("summary.json", DAMAGED_SUMMARIES[name])(finished)
    words = ("search", *small_search, "search.epochs=1", "run.dir=finished")
    refuse(*words, says=("finished/summary.json", "damaged", "delete it"), creates="nothing")


@pytest.mark.parametrize("word", OTHER_SETTINGS)
def test_run_folder_of_another_config(
    word: str, unfinished: Path, resume: list[str], refuse: Callable[..., str]
) -> None:
    says = ("run folder 'unfinished'", *OTHER_SETTINGS[word], "run.overwrite=true")
    refuse(*resume, word, says=says, creates="nothing")


def test_finished_run_of_another_config(
    finished: Path, small_search: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    words = ("search", *small_search, "search.epochs=2", "run.dir=finished")
    refuse(*words, says=("run folder 'finished'", "search.epochs was 1, now 2"), creates="nothing")


def test_run_folder_of_another_kind(
    finished: Path, small_eval: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    words = ("eval", *small_eval, "run.dir=finished", "network.genotype=finished")
    refuse(*words, says=("run folder 'finished'", "run.dir="), creates="nothing")


def test_genotype_that_changed_under_a_run(
    small_eval: tuple[str, ...], refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two have tensors of the same shapes, so that only a comparison of the cells tells them apart."""
    text = load_genotype("darts_v2").to_json()
    Path("my.json").write_text(text)
    words = ["eval", *small_eval, "train.epochs=2", "network.genotype=my.json", "run.dir=run"]
    publish = ClassifierTraining.publish

    def publish_and_stop(task: ClassifierTraining, *rest: Any) -> None:
        publish(task, *rest)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTraining, "publish", publish_and_stop)
        assert main(words) == 128 + signal.SIGTERM
    Path("my.json").write_text(text.replace("max_pool_3x3", "avg_pool_3x3"))
    refuse(*words, says=("genotype", "run"))


@pytest.mark.parametrize("place", PLACES)
def test_run_folder_that_cannot_be_used(
    place: str, small_search: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    Path("a_file").write_text("a file")
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_bytes(b"photo")
    os.symlink("loop", "loop")
    refuse("search", *small_search, f"run.dir={place}", says=PLACES[place], creates="nothing")


def test_somebody_elses_folder_is_not_overwritten(
    small_search: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_bytes(b"photo")
    words = ("search", *small_search, "run.dir=photos", "run.overwrite=true")
    refuse(*words, says=("'photos'", "holds no run"), creates="nothing")


@pytest.mark.parametrize(
    "words",
    ["search search.epoch=3", "search device=cuda", "eval network.genotype=nowhere", "eval network.auxiliary=true"],
)
def test_a_run_is_not_deleted_for_settings_that_cannot_be_used(
    words: str, finished: Path, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refuse(*words.split(), "run.dir=finished", "run.overwrite=true", says=(), creates="nothing")


#: What metrics.jsonl of a finished run is made to hold, words after `nge derive finished`, and the message.
DERIVED = {
    "epoch that is not there": (
        None,
        "--epoch 5",
        ("finished/metrics.jsonl", "epochs 1 to 1, counted from 1, not 5"),
    ),
    "negative epoch": (None, "--epoch -1", ("epochs 1 to 1, counted from 1, not -1",)),
    "folder that is not there": (None, "--out nowhere/my.json", ("nowhere",)),
    "folder to write to": (None, "--out finished", ("'finished'",)),
    "no epoch": (b"", "", ("finished/metrics.jsonl", "no finished epoch")),
    "not UTF-8": (b"\xff\xfe\n", "", ("finished/metrics.jsonl",)),
    "nested": (b"[" * 100_000, "", ("finished/metrics.jsonl",)),
    "epoch is text": (b'{"epoch": "a"}\n', "", ("finished",)),
    "no genotype": (b'{"epoch": 0}\n', "", ("'finished'", "no genotype")),
    "genotype is a number": (b'{"epoch": 0, "genotype": 3}\n', "", ("finished/metrics.jsonl, epoch 1",)),
}


@pytest.mark.parametrize("name", DERIVED)
def test_derive(name: str, finished: Path, refuse: Callable[..., str]) -> None:
    rows, words, says = DERIVED[name]
    if rows is not None:
        (finished / "metrics.jsonl").write_bytes(rows)
    refuse("derive", "finished", *words.split(), says=says, creates="nothing")
