"""Run folders that cannot be used: of another configuration, damaged, or somebody else's."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nge_search.cli import main
from nge_search.genotype import load_genotype
from nge_search.networks.training import ClassifierTraining

Damage = Callable[[Path], object]


def checkpoints(run: Path) -> list[Path]:
    """Oldest first."""
    return sorted((run / "checkpoints").iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_with(path: Path, content: bytes) -> None:
    """Put `content` in the place of a checkpoint, under the name that its own checksum asks for."""
    path.unlink()
    path.with_name(renamed(path, hashlib.sha256(content).hexdigest())).write_bytes(content)


def renamed(path: Path, digest: str) -> str:
    """A checkpoint's name with another checksum, of which it holds the first 16 digits."""
    return re.sub(r"[0-9a-f]{16}(?=\.pt$)", digest[:16], path.name)


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """Save a checkpoint again after `alter`, with a checksum that holds."""
    state = torch.load(path, weights_only=True)
    alter(state)
    replace_with(path, saved(state))


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class Harmful:
    """Unpickling it creates the folder `pwned`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def all_checkpoints(damage: Damage) -> Damage:
    return lambda run: [damage(path) for path in checkpoints(run)]


def rename_tensor(state: dict[str, Any]) -> None:
    weights = state["task"]["supernet"]
    weights["renamed"] = weights.pop(next(iter(weights)))


def reshape_tensor(state: dict[str, Any]) -> None:
    weights = state["task"]["supernet"]
    weights[next(iter(weights))] = torch.zeros(3)


def in_file(name: str, content: str | bytes) -> Damage:
    return lambda run: (run / name).write_bytes(content.encode() if isinstance(content, str) else content)


def file_for_folder(name: str) -> Damage:
    def damage(run: Path) -> None:
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).write_text("not a folder")

    return damage


def folder_for_file(name: str) -> Damage:
    def damage(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return damage


#: How the unfinished run is damaged, and what the message must hold.
DAMAGED_RUNS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "all checkpoints truncated": (
        all_checkpoints(truncate),
        ("every checkpoint in unfinished/checkpoints is damaged", "run.overwrite=true"),
    ),
    "all checkpoints flipped": (all_checkpoints(flip_a_bit), ("every checkpoint", "damaged", "run.overwrite=true")),
    "all checkpoints empty": (all_checkpoints(empty), ("every checkpoint", "damaged", "run.overwrite=true")),
    "one truncated, one flipped": (
        lambda run: [truncate(checkpoints(run)[0]), flip_a_bit(checkpoints(run)[1])],
        ("every checkpoint", "damaged"),
    ),
    "empty, right checksum": (all_checkpoints(lambda path: replace_with(path, b"")), ("unfinished/checkpoints",)),
    "text, right checksum": (
        all_checkpoints(lambda path: replace_with(path, b"text")),
        ("unfinished/checkpoints",),
    ),
    "somebody else's dictionary": (
        all_checkpoints(lambda path: replace_with(path, saved({"epoch": 3}))),
        ("unfinished/checkpoints",),
    ),
    "somebody else's list": (
        all_checkpoints(lambda path: replace_with(path, saved([1, 2]))),
        ("unfinished/checkpoints",),
    ),
    "harmful pickle": (
        all_checkpoints(lambda path: replace_with(path, pickle.dumps(Harmful(), protocol=2))),
        ("unfinished/checkpoints",),
    ),
    "written by another version": (
        all_checkpoints(lambda path: change(path, lambda state: state.update(format="nge-checkpoint/2"))),
        ("unfinished/checkpoints", "nge-checkpoint/2", "nge-checkpoint/1"),
    ),
    "tensor of another name": (
        all_checkpoints(lambda path: change(path, rename_tensor)),
        ("tensor", "unfinished/checkpoints/", "another architecture"),
    ),
    "tensor of another shape": (
        all_checkpoints(lambda path: change(path, reshape_tensor)),
        ("tensor", "unfinished/checkpoints/", "(3,)"),
    ),
    "a folder for a checkpoint": (
        lambda run: folder_for_file(f"checkpoints/{checkpoints(run)[-1].name}")(run),
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
    "without figures": "{}",
    "not UTF-8": b"\xff\xfe",
    "nested": "[" * 100_000,
}

#: A change of settings, and what the message must hold.
OTHER_SETTINGS = {
    "search.learning_rate=0.1": ("search.learning_rate was 0.025, now 0.1",),
    "search.epochs=4": ("search.epochs was 3, now 4",),
    "seed=1": ("seed was 0, now 1",),
    "supernet.operations=[skip_connect,sep_conv_3x3]": ("supernet.operations was ['skip_connect', 'max_pool_3x3'",),
    "data.flip=false": ("data.flip was None, now False",),
    "embedding.kind=direct": ("embedding.kind was 'nge', now 'direct'",),
}

#: What is typed, of which {} is a run folder that cannot be made or is not ours, and what the message must hold.
PLACES = {
    "/proc/run": ("/proc/run", "run.dir"),
    "a_file": ("a_file", "run.dir"),
    "a_file/run": ("a_file", "run.dir"),
    "x" * 300: ("xxx", "too long", "run.dir"),
    "photos": ("'photos'", "not empty and holds no run", "'holiday.jpg'", "run.dir"),
    "loop": ("loop", "run.dir"),
}


@pytest.fixture
def resume(small_search: tuple[str, ...]) -> list[str]:
    """The words that go on with the unfinished run."""
    return ["search", *small_search, "search.epochs=3", "run.dir=unfinished"]


@pytest.mark.parametrize("name", DAMAGED_RUNS)
def test_damaged_run(name: str, unfinished: Path, resume: list[str], refuse: Callable[..., str]) -> None:
    damage, says = DAMAGED_RUNS[name]
    damage(unfinished)
    refuse(*resume, says=says, creates="nothing")


def test_a_file_for_the_tensorboard_folder(unfinished: Path, resume: list[str], refuse: Callable[..., str]) -> None:
    file_for_folder("tensorboard")(unfinished)
    for name in ("config.yaml", "environment.json"):  # a run that goes on may rewrite them
        (unfinished / name).unlink()
    refuse(*resume, "run.tensorboard=true", says=("unfinished/tensorboard",), creates="run")


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


@pytest.mark.parametrize("word", OTHER_SETTINGS)
def test_checkpoint_of_another_config(
    word: str, unfinished: Path, resume: list[str], refuse: Callable[..., str]
) -> None:
    """config.yaml agrees, since it was lost or written anew; the checkpoint knows better."""
    if "supernet" in word:
        (unfinished / "config.yaml").unlink()
    else:
        path = unfinished / "config.yaml"
        config = yaml.safe_load(path.read_text())
        key, _, value = word.partition("=")
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = yaml.safe_load(value)
        path.write_text(yaml.safe_dump(config))
    refuse(*resume, word, says=("checkpoint unfinished/checkpoints/", *OTHER_SETTINGS[word]))


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
    "epoch that is not there": (None, "--epoch 5", ("finished/metrics.jsonl", "epochs 0 to 0, not 5")),
    "negative epoch": (None, "--epoch -1", ("epochs 0 to 0, not -1",)),
    "folder that is not there": (None, "--out nowhere/my.json", ("nowhere",)),
    "folder to write to": (None, "--out finished", ("'finished'",)),
    "no epoch": (b"", "", ("finished/metrics.jsonl", "no finished epoch")),
    "not UTF-8": (b"\xff\xfe\n", "", ("finished/metrics.jsonl",)),
    "nested": (b"[" * 100_000, "", ("finished/metrics.jsonl",)),
    "epoch is text": (b'{"epoch": "a"}\n', "", ("finished/metrics.jsonl",)),
    "no genotype": (b'{"epoch": 0}\n', "", ("'finished'", "no genotype")),
    "genotype is a number": (b'{"epoch": 0, "genotype": 3}\n', "", ("finished/metrics.jsonl, epoch 0",)),
}


@pytest.mark.parametrize("name", DERIVED)
def test_derive(name: str, finished: Path, refuse: Callable[..., str]) -> None:
    rows, words, says = DERIVED[name]
    if rows is not None:
        (finished / "metrics.jsonl").write_bytes(rows)
    refuse("derive", "finished", *words.split(), says=says, creates="nothing")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty])
def test_damaged_newest_checkpoint(
    damage: Damage, unfinished: Path, resume: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Recovers, and says so: its checksum gives it away, and the one before it is used."""
    older, newest = checkpoints(unfinished)
    damage(newest)
    assert main([*resume, "run.progress=lines", "run.dir=unfinished"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    damaged = f"checkpoint unfinished/checkpoints/{newest.name} is damaged: its content does not match its checksum"
    position = lines.index(f"{damaged}; using the one before it")
    assert lines[position + 1].startswith("resuming at epoch 3, step ")
    assert lines[position + 1].endswith(f" (unfinished/checkpoints/{older.name})")
    assert err == ""
    assert json.loads((unfinished / "summary.json").read_text())["epochs"] == 3


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: writing on is an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize(
    ("size", "written"), [(500, "config.yaml"), (7000, "metrics.jsonl"), (200_000, "checkpoints")]
)
@pytest.mark.parametrize("resumes", [False, True], ids=["new", "resumed"])
def test_files_cannot_grow(
    size: int,
    written: str,
    resumes: bool,
    run_folders: Path,
    resume: list[str],
    capfd: pytest.CaptureFixture[str],
    require_line: Callable[..., None],
) -> None:
    """The disk fills while `written` is being written. Later, with room, the same command finishes the run."""
    run = Path("unfinished")
    if resumes:
        shutil.copytree(run_folders / "unfinished", run)
    before = {path: path.read_bytes() for path in run.glob("checkpoints/*")}
    metrics = (run / "metrics.jsonl").read_bytes() if resumes else b""
    capfd.readouterr()
    with largest_file(size):
        code = main(resume)
    out, err = capfd.readouterr()
    assert code == 2
    require_line(err, ("unfinished", os.strerror(27)))
    assert "Traceback" not in out
    assert {path: path.read_bytes() for path in run.glob("checkpoints/*")} == before
    if resumes:
        assert (run / "metrics.jsonl").read_bytes().startswith(metrics)
        assert (run / "config.yaml").read_bytes().startswith(b"seed: 0\n")
    assert not list(run.rglob("*.tmp"))
    assert main(resume) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
