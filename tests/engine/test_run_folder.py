"""Run folders: what is ours there, what never is, the lock, and what is left of a run that never began."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.engine import environment, run_lock
from nge_search.engine.run_files import LOCK, MARK, files_of_run, is_run, read_mark, write_mark
from nge_search.engine.run_folder import RunFolder
from nge_search.errors import RunFailure, UserError
from nge_search.files import write_atomic
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config
from nge_search.training.classification import ClassifierTraining

WORDS = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "data.limit=40", "device=cpu", "network.channels=2",
    "network.cells=2", "train.batch_size=20", "train.epochs=1", "network.genotype=darts_v2",
)  # fmt: skip
CHECKPOINT = "checkpoints/000001-step-4-0123456789abcdef.pt"

Tree = dict[str, bytes | str | None]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened(place: str = "run", *words: str) -> RunFolder:
    return RunFolder(load_config(EvalConfig, None, [f"run.dir={place}", *words]))


def begun(place: str = "run") -> RunFolder:
    """A new run that has written what a run writes at its start."""
    folder = opened(place)
    folder.begin()
    folder.truncate_metrics(0)
    folder.write_config()
    folder.write_json("environment.json", environment.describe(torch.device("cpu"), 1, 0))
    return folder


def from_before(place: str = "run") -> Path:
    """The same without a mark, as earlier versions left it."""
    begun(place).close()
    (Path(place) / MARK).unlink()
    config = Path(place) / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    del settings["run"]["stall_seconds"], settings["plugins"]  # which are younger than the mark
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    return Path(place)


def tree(root: Path) -> Tree:
    """Content of every file, target of every link, None for a folder."""
    return {
        str(path.relative_to(root)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in root.rglob("*")
    }


def foreign(**files: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for name, content in files.items():
            (root / name.replace("__", ".")).write_text(content)

    return make


def linked_lock(root: Path) -> None:
    (root.parent / "victim").write_text("precious")
    (root / LOCK).symlink_to("../victim")


def linked_mark(root: Path) -> None:
    (root.parent / "victim").write_text(json.dumps({"format": "nge-run/1"}))
    (root / MARK).symlink_to("../victim")


def settings_of_mine(root: Path) -> None:
    """A file of settings that somebody keeps with his remarks, and his own description of the machine."""
    before = from_before("other")
    (root / "config.yaml").write_text("# tuned by hand\n" + (before / "config.yaml").read_text())
    shutil.copy(before / "environment.json", root)
    shutil.rmtree(before)


def settings_alone(root: Path) -> None:
    before = from_before("other")
    shutil.copy(before / "config.yaml", root)
    shutil.rmtree(before)


#: Folders of others, each in some way like a run's.
FOREIGN: dict[str, Callable[[Path], object]] = {
    "a photo": foreign(holiday__jpg="photo"),
    "another tool's": foreign(config__yaml="seed: 1\nrun: {id: 7}\n", metrics__jsonl='{"mine": 1}\n'),
    "a config that is no YAML": foreign(config__yaml="seed: [", environment__json="{}"),
    "settings with remarks": settings_of_mine,
    "settings alone": settings_alone,
    "a genotype": foreign(genotype__json="{}"),
    "a draft": foreign(__draft__tmp="mine"),
    "a pipe": lambda root: os.mkfifo(root / "config.yaml"),
    "a linked lock": linked_lock,
    "a lock with content": foreign(__lock="precious"),
    "a linked mark": linked_mark,
    "a mark of another kind": lambda root: (root / MARK).write_text('{"format": "other"}'),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_run_is_not_touched(name: str, overwrite: bool, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    FOREIGN[name](root)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"holds no run|not the lock of a run"):
        opened("mine", f"run.overwrite={overwrite}")
    assert tree(tmp_path) == before


def test_a_mark_says_whose_the_folder_is() -> None:
    folder = begun()
    mark = read_mark(folder.path)
    assert mark is not None
    assert (mark["kind"], mark["adopted"]) == ("eval", False)
    folder.close()
    (folder.path / "notes.txt").write_text("mine")
    opened().close()


def test_a_mark_says_what_kind_of_run_is_there_now() -> None:
    folder = begun()
    folder.close()
    before = read_mark(folder.path)
    assert before is not None
    write_mark(folder.path, "search")
    assert read_mark(folder.path) == {**before, "kind": "search"}
    content = (folder.path / MARK).stat()
    write_mark(folder.path, "search")
    assert (folder.path / MARK).stat() == content


def test_folders_from_before_are_marked_on_first_use() -> None:
    path = from_before()
    before = tree(path)
    opened().close()
    assert tree(path) == before  # only looked at
    folder = opened()
    folder.begin()
    folder.close()
    mark = read_mark(path)
    assert mark is not None
    assert mark["adopted"] is True
    assert tree(path) == before | {MARK: (path / MARK).read_bytes()}


def test_a_checkpoint_tells_an_old_run_too() -> None:
    path = from_before()
    (path / "environment.json").unlink()
    assert not is_run(path)
    (path / "checkpoints").mkdir()
    (path / CHECKPOINT).touch()
    assert is_run(path)


def test_overwriting_deletes_what_runs_write_and_nothing_else() -> None:
    folder = begun()
    folder.close()
    path, scratch = folder.path, Path("scratch")
    mine = [path / "segmentation.json", path / "genotype_normal.png", path / CHECKPOINT]
    mine += [path / ".config.yaml.0123abcd.nge-tmp", path / "tensorboard/events.out.tfevents.1700000000.host.7.nge"]
    others = [path / name for name in ("notes.txt", ".draft.tmp", "genotype_best.svg", "checkpoints/best.pt")]
    others += [path / "tensorboard/events.out.tfevents.1700000000.host.7.0", path / "tensorboard/mine/profile"]
    scratch.mkdir()
    (path / "checkpoints").symlink_to("../scratch")
    (path / "tensorboard" / "mine").mkdir(parents=True)
    for file in (*mine, *others):
        file.write_text("x")
    folder = opened("run", "run.overwrite=true")
    assert all(file.exists() for file in mine)  # until data and settings are known to be usable
    folder.begin()
    folder.close()
    assert not any(file.exists() for file in mine)
    assert all(file.exists() for file in others)
    assert not files_of_run(path)
    assert {entry.name for entry in path.iterdir() if entry.is_file()} == {
        *(MARK, LOCK, "notes.txt", ".draft.tmp", "genotype_best.svg"),
    }


def test_event_files_of_old_runs_are_deleted_with_them() -> None:
    path = from_before()
    (path / "tensorboard").mkdir()
    events = path / "tensorboard/events.out.tfevents.1700000000.host.7.0"
    events.touch()
    folder = opened("run", "run.overwrite=true")
    folder.begin()
    folder.close()
    assert not events.exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "checkpoints", "tensorboard", LOCK])
def test_links_are_refused_before_anything_is_deleted(name: str, tmp_path: Path) -> None:
    """Of a file, also to an ordinary one; of a folder, to nowhere."""
    folder = begun()
    folder.write_json("summary.json", {"kind": "eval"})
    folder.close()
    (tmp_path / "victim").write_text("precious")
    target = "nowhere" if name in ("checkpoints", "tensorboard") else "../victim"
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(target)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=name):
        opened("run", "run.overwrite=true").begin()
    assert tree(tmp_path) == before


def test_a_lock_is_not_free_before_its_file_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the file takes the kernel's lock from all threads of the process."""
    folder, held = opened(), []
    close = os.close

    def look(descriptor: int) -> None:
        held.append(folder._lock._key in run_lock._held)
        close(descriptor)

    monkeypatch.setattr(run_lock.os, "close", look)
    folder.close()
    monkeypatch.undo()
    assert held == [True, True]


def test_the_lock_holds_between_threads() -> None:
    first, errors = begun(), []

    def open_too() -> None:
        try:
            opened()
        except UserError as error:
            errors.append(str(error))

    thread = threading.Thread(target=open_too)
    thread.start()
    thread.join()
    assert "in use by another run (this process)" in errors[0]
    Path("link").symlink_to("run")
    with pytest.raises(UserError, match="in use"):
        opened("link")
    if (child := os.fork()) == 0:  # a refusal above must not have dropped the lock against other processes
        try:
            opened()
        except UserError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    first.close()
    opened().close()


def test_a_fork_neither_holds_nor_releases_the_lock() -> None:
    first = opened("new")
    if (child := os.fork()) == 0:
        first.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert (first.path / LOCK).exists()
    with pytest.raises(UserError, match="in use"):
        opened("new")
    first.close()
    assert not first.path.exists()


@pytest.mark.parametrize("place", ["run", "new/parents/run", "there", "."])
def test_a_run_that_never_begins_leaves_nothing(place: str, tmp_path: Path) -> None:
    Path("there").mkdir()
    if place == ".":
        Path("there").rmdir()
    before = tree(tmp_path)
    opened(place).close()
    assert tree(tmp_path) == before


#: Settings that are refused, at different times.
REFUSED = {
    "data": ("data.limit=19",),
    "genotype": ("network.genotype=nowhere",),
    "head": ("network.auxiliary=true",),
    "weights": ("network.weights=nowhere.safetensors",),
    "root": ("data.name=folder", "data.root=nowhere"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_leaves_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *WORDS, "run.dir=a/b", *REFUSED[name]]) == 2
    assert not tree(tmp_path)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("layout", "refused"), [("cats dogs", True), ("train/cats test/cats", False)])
def test_run_folders_among_class_folders(
    layout: str, refused: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in layout.split():
        (tmp_path / "ds" / name).mkdir(parents=True)
    before = tree(tmp_path)
    assert main(["eval", *WORDS, "run.dir=ds/run", "data.name=folder", "data.root=ds"]) == 2
    assert ("where it would count as a class" in capsys.readouterr().err) == refused
    assert tree(tmp_path) == before


def delete(run: Path) -> None:
    shutil.rmtree(run)


def replace(run: Path) -> None:
    shutil.copytree(run, "copy")
    shutil.rmtree(run)
    Path("copy").rename(run)


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


@pytest.mark.parametrize(("loss", "tensorboard"), [(delete, "true"), (replace, "false"), (empty, "true")])
def test_a_run_whose_folder_is_lost_ends_and_makes_nothing_anew(
    loss: Callable[[Path], None],
    tensorboard: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    after: list[Tree] = []

    def publish(task: ClassifierTraining, *rest: Any) -> None:
        loss(Path("run"))
        after.append(tree(Path.cwd()))

    monkeypatch.setattr(ClassifierTraining, "publish", publish)
    assert main(["eval", *WORDS, f"run.tensorboard={tensorboard}", "run.dir=run"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: run folder 'run' was deleted or replaced while")
    assert err.count("\n") == 1
    assert "Traceback" not in out
    assert tree(Path.cwd()) == after[0]


def test_nothing_is_written_into_a_lost_folder() -> None:
    folder = begun()
    shutil.rmtree(folder.path)
    for write in (folder.write_config, lambda: folder.finish({}), lambda: folder.append_metrics({"epoch": 0})):
        with pytest.raises(RunFailure, match="deleted or replaced"):
            write()
    with pytest.raises(FileNotFoundError):
        folder.checkpoints.save({}, 1)
    folder.close()
    assert not folder.path.exists()


def test_rows_are_appended_to_no_link(tmp_path: Path) -> None:
    folder = begun()
    (tmp_path / "victim").write_text("precious")
    folder.metrics_path.unlink()
    folder.metrics_path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        folder.append_metrics({"epoch": 0})
    folder.close()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_run_lists_all_that_it_writes(require_listed: Callable[[Path], None]) -> None:
    assert main(["eval", *WORDS, "run.dir=run", "run.tensorboard=true"]) == 0
    require_listed(Path("run"))
    assert yaml.safe_load(Path("run/config.yaml").read_text())["run"]["dir"] == "run"
    kept = tree(Path("run"))
    words = ["eval", *WORDS, "run.dir=run", "run.overwrite=true", "data.name=folder", "data.root=gone"]
    assert main(words) == 2
    assert tree(Path("run")) == kept


def test_a_finished_run_whose_settings_are_lost_is_not_shown_as_that_of_others() -> None:
    folder = begun()
    folder.write_json("summary.json", {"kind": "eval", **dict.fromkeys(EvalConfig.figures, 0)})
    folder.close()
    opened().close()
    for text in (None, "", "null", "[1]"):
        (Path("run") / "config.yaml").unlink()
        if text is not None:
            (Path("run") / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="is missing or damaged, so nothing tells"):
            opened()
        (Path("run") / "config.yaml").touch()
    (Path("run") / "config.yaml").write_text("{}")
    with pytest.raises(UserError, match="epochs was 600, now 2"):
        opened("run", "train.epochs=2")


@pytest.mark.parametrize("value", ["run", "run/genotype.json", "./run/../run/"])
def test_what_overwriting_would_delete_is_not_read_from(value: str) -> None:
    folder = begun()
    folder.close()
    write_atomic(folder.path / "genotype.json", load_genotype("darts_v2").to_json())
    before = tree(folder.path)
    with pytest.raises(UserError, match=r"network.genotype=.* is in the run folder that run.overwrite=true"):
        opened("run", "run.overwrite=true", f"network.genotype={value}")
    assert tree(folder.path) == before
    opened("run", "run.overwrite=true", "network.genotype=darts_v2").close()
