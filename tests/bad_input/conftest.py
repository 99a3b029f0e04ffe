"""What the tests of bad input share: an empty working folder, run folders, images, and the check of a refusal."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.cli import main
from nge_search.gradient.bilevel import BilevelSearch

#: Nobody reads more than this.
LONGEST_LINE = 1000

Snapshot = dict[str, tuple[object, ...]]
RequireLine = Callable[[str, Iterable[str]], None]


@pytest.fixture(scope="session")
def small_search(tiny_search: tuple[str, ...]) -> tuple[str, ...]:
    """A search of a second on digits; `search.epochs` is left to the test."""
    return (*(word for word in tiny_search if not word.startswith("search.epochs=")), "device=cpu")


@pytest.fixture(scope="session")
def small_eval(tiny_search: tuple[str, ...]) -> tuple[str, ...]:
    """A retraining of a second on digits; `train.epochs` is left to the test."""
    common = [word for word in tiny_search if word.startswith(("threads=", "run.", "data."))]
    return (*common, "device=cpu", "network.channels=2", "network.cells=2", "train.batch_size=16")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in its own folder, as a single process."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory, small_search: tuple[str, ...]) -> Path:
    """`finished`: a search of one epoch. `unfinished`: one stopped by SIGTERM in the first step of its third."""
    root = tmp_path_factory.mktemp("run_folders")
    publish = BilevelSearch.publish

    def publish_and_stop(task: BilevelSearch, logger: object, row: dict, step: int) -> None:
        publish(task, logger, row, step)
        if row["epoch"] == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # so that run.dir reads as it will in the tests
        assert main(["search", *small_search, "search.epochs=1", "run.dir=finished"]) == 0
        patch.setattr(BilevelSearch, "publish", publish_and_stop)
        stopped = main(["search", *small_search, "search.epochs=3", "run.dir=unfinished"])
    assert stopped == 128 + signal.SIGTERM
    assert len(list((root / "unfinished" / "checkpoints").iterdir())) == 2
    return root


@pytest.fixture
def finished(run_folders: Path, tmp_path: Path) -> Path:
    """A copy of the finished search: `finished` in the working folder."""
    return shutil.copytree(run_folders / "finished", tmp_path / "finished")


@pytest.fixture
def unfinished(run_folders: Path, tmp_path: Path) -> Path:
    """A copy of the unfinished search: `unfinished` in the working folder."""
    return shutil.copytree(run_folders / "unfinished", tmp_path / "unfinished")


@pytest.fixture
def resume(small_search: tuple[str, ...]) -> list[str]:
    """The words after `nge` that go on with the unfinished search."""
    return ["search", *small_search, "search.epochs=3", "run.dir=unfinished"]


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Write `count` random images into each class folder given, below `images` in the working folder."""

    def write(*folders: str, count: int = 6, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
        root = tmp_path / "images"
        for number, folder in enumerate(folders):
            (root / folder).mkdir(parents=True)
            for position in range(count):
                pixels = np.random.default_rng([number, position]).integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(root / folder / f"{position:03}.png")
        return root

    return write


def _content(path: str) -> tuple[object, ...]:
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode):
        return "file", Path(path).read_bytes(), status.st_mtime_ns
    return (os.readlink(path),) if stat.S_ISLNK(status.st_mode) else (stat.S_IFMT(status.st_mode),)


def _snapshot(root: Path) -> Snapshot:
    """Everything below `root`, but for the lock files, which any process may rewrite."""
    found = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *(name for name in files if name != ".lock")):
            path = os.path.join(parent, name)
            found[os.path.relpath(path, root)] = _content(path)
    return found


@pytest.fixture
def take_snapshot() -> Callable[[Path], Snapshot]:
    """Path, kind, content and time of change of everything below a folder, but for lock files."""
    return _snapshot


@pytest.fixture
def require_line() -> RequireLine:
    """Check that a text is one readable line of error that holds the words given."""

    def require(text: str, says: Iterable[str]) -> None:
        assert text.startswith("error: "), text
        assert text.count("\n") == 1, text
        line = text.removesuffix("\n")
        assert line.isprintable(), repr(line)
        assert len(line) <= LONGEST_LINE, f"{len(line)} characters: {line[:200]}..."
        for words in says:
            assert words.casefold() in line.casefold(), f"{words!r} is not in {line!r}"

    return require


@pytest.fixture(scope="session")
def train_search(checkout: Path) -> list[str]:
    """The launcher as a command."""
    return [sys.executable, str(checkout / "train_search.py")]


@pytest.fixture(scope="session")
def train_eval(checkout: Path) -> list[str]:
    """The launcher as a command."""
    return [sys.executable, str(checkout / "train_eval.py")]


@pytest.fixture(scope="session")
def torchrun() -> list[str]:
    """What to put before a script to run it in two processes."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="session")
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, keeping what it prints."""
    return functools.partial(subprocess.run, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def require_refusal(require_line: RequireLine) -> Callable[..., None]:
    """Check of a process that ended: exit code 2, and one line on stderr that holds the words given."""

    def require(ended: subprocess.CompletedProcess[str], *says: str) -> None:
        assert ended.returncode == 2, ended.stderr
        require_line(ended.stderr, says)
        assert "Traceback" not in ended.stdout

    return require


@pytest.fixture
def refuse(tmp_path: Path, capfd: pytest.CaptureFixture[str], require_line: RequireLine) -> Callable[..., str]:
    """Run `nge WORDS` in this process: exit code 2, one line, existing files untouched; returns the line.

    `creates`: "nothing"; "run": the new run had begun.
    """

    def check(*words: str, says: Iterable[str], creates: str = "nothing") -> str:
        before = _snapshot(tmp_path)
        capfd.readouterr()
        code = main(words)
        out, err = capfd.readouterr()
        assert code == 2, f"exit code {code}; {err}"
        assert "Traceback" not in out
        require_line(err, says)
        after = _snapshot(tmp_path)
        assert {path: after.get(path) for path in before} == before
        created = [after[path] for path in after.keys() - before.keys()]
        if creates == "nothing":
            assert not created
            assert {path.parent for path in tmp_path.rglob(".lock")} <= {tmp_path / path for path in before}
        return err

    return check
