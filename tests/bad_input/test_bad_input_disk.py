"""Disks that are full, in fact or by a limit on the size of files, and disks that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nge_search.cli import main


@pytest.mark.parametrize("written", ["config.yaml", "metrics.jsonl", "a checkpoint"])
def test_files_cannot_grow(
    written: str,
    unfinished: Path,
    resume: list[str],
    capfd: pytest.CaptureFixture[str],
    require_line: Callable[..., None],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    """Room is short when `written` is being written. Later, with room, the same command finishes the run."""
    checkpoints = {path: path.read_bytes() for path in Path("unfinished/checkpoints").iterdir()}
    config, metrics = Path("unfinished/config.yaml").read_bytes(), Path("unfinished/metrics.jsonl").read_bytes()
    sizes = {
        "config.yaml": len(config) // 2,
        "metrics.jsonl": len(metrics) + 100,
        "a checkpoint": len(min(checkpoints.values(), key=len)) // 2,
    }
    assert sizes["config.yaml"] < sizes["metrics.jsonl"] < sizes["a checkpoint"] - 2 * len(metrics)
    capfd.readouterr()
    with largest_file(sizes[written]):
        code = main(resume)
    out, err = capfd.readouterr()
    assert code == 2
    require_line(err, ("unfinished", os.strerror(errno.EFBIG), "file-size limit"))
    assert "Traceback" not in out
    assert {path: path.read_bytes() for path in Path("unfinished/checkpoints").iterdir()} == checkpoints
    assert Path("unfinished/config.yaml").read_bytes() == config
    assert Path("unfinished/metrics.jsonl").read_bytes().startswith(metrics)
    assert not list(unfinished.rglob("*tmp"))
    assert main(resume) == 0
    rows = [json.loads(line) for line in Path("unfinished/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]


@pytest.mark.parametrize("words", [("report", "finished"), ("derive", "finished", "--out", "found.json")])
def test_nothing_is_left_and_the_next_try_succeeds(
    words: tuple[str, ...],
    finished: Path,
    capfd: pytest.CaptureFixture[str],
    require_line: Callable[..., None],
    take_snapshot: Callable[[Path], object],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    before = take_snapshot(Path())
    capfd.readouterr()
    with largest_file(100):
        assert main([*words]) == 2
    name = "found.json" if words[0] == "derive" else "finished/report.html"
    require_line(capfd.readouterr().err, (f"'{name}'", os.strerror(errno.EFBIG)))
    assert take_snapshot(Path()) == before
    assert main([*words]) == 0


@pytest.fixture(scope="module")
def may_mount(run_command: Callable[..., subprocess.CompletedProcess[str]]) -> list[str]:
    """What to put before a command so that it may mount file systems that nobody else sees."""
    reasons = []
    for words in (["unshare", "--mount", "--map-root-user"], ["unshare", "--mount"]):
        if shutil.which("unshare"):
            tried = run_command([*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            if tried.returncode == 0:
                return words
            reasons.append(tried.stderr.strip())
    pytest.skip(f"this machine lets nobody mount a file system: {reasons}")


#: Where the script below leaves what a run has written on a disk with 24 KB of room.
LEFT = Path("left")

ON_FULL_DISK = """
set -e
mount -t tmpfs -o size=2m tmpfs disk
cp -a unfinished disk/run
free=$(df --output=avail --block-size=1K disk | tail -n 1)
head -c $((free - 24))K /dev/zero > disk/filler
set +e
"$@"
code=$?
cp -a disk/run left
exit $code
"""


def test_full_disk(
    may_mount: list[str],
    unfinished: Path,
    train_search: list[str],
    resume: list[str],
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    require_refusal: Callable[..., None],
) -> None:
    """TensorBoard's thread is the first that finds no room; it must not print a traceback either."""
    Path("disk").mkdir()
    words = [*train_search, *resume[1:], "run.tensorboard=true", "run.dir=disk/run"]
    ended = run_command([*may_mount, "bash", "-c", ON_FULL_DISK, "bash", *words])
    require_refusal(ended, "disk/run", os.strerror(errno.ENOSPC), "free some space")
    before, after = (
        {path.name: path.read_bytes() for path in run.glob("checkpoints/*")} for run in (unfinished, LEFT)
    )
    assert after == before
    assert (LEFT / "metrics.jsonl").read_bytes().startswith((unfinished / "metrics.jsonl").read_bytes())
    assert not list(LEFT.rglob("*tmp"))


@pytest.mark.slow
def test_full_disk_under_torchrun(
    may_mount: list[str],
    unfinished: Path,
    torchrun: list[str],
    train_search: list[str],
    resume: list[str],
    run_command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """The first process says what is wrong; the other, left alone, says at most that it was."""
    Path("disk").mkdir()
    words = [*torchrun, train_search[1], *resume[1:], "run.tensorboard=true", "run.dir=disk/run"]
    ended = run_command([*may_mount, "bash", "-c", ON_FULL_DISK, "bash", *words])
    assert ended.returncode != 0
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert os.strerror(errno.ENOSPC) in "".join(errors)
    assert len(errors) == 1 or "lost the connection" in "".join(errors), errors
    assert train_search[1] + '"' not in ended.stderr  # torchrun prints a traceback of its own


def test_read_only_disk(
    may_mount: list[str],
    unfinished: Path,
    train_search: list[str],
    resume: list[str],
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    require_refusal: Callable[..., None],
    take_snapshot: Callable[[Path], object],
) -> None:
    before = take_snapshot(unfinished)
    script = 'mount --bind unfinished unfinished && mount -o remount,bind,ro unfinished && exec "$@"'
    ended = run_command([*may_mount, "bash", "-c", script, "bash", *train_search, *resume[1:]])
    require_refusal(ended, "unfinished", os.strerror(errno.EROFS), "can be written")
    assert take_snapshot(unfinished) == before
