"""The launchers as real processes: alone, under torchrun, on a full and on a read-only disk, two on one folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nge_search.genotype import load_genotype

ROOT = Path(__file__).resolve().parents[2]
SEARCH = [sys.executable, str(ROOT / "train_search.py")]
EVAL = [sys.executable, str(ROOT / "train_eval.py")]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

Refusal = Callable[[subprocess.CompletedProcess[str]], None]


def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture
def refused(require_line: Callable[..., None]) -> Callable[..., None]:
    """Check a process that ended: exit code 2 and one line on stderr."""

    def check(ended: subprocess.CompletedProcess[str], *says: str) -> None:
        assert ended.returncode == 2, ended.stderr
        require_line(ended.stderr, says)
        assert "Traceback" not in ended.stdout

    return check


def test_misspelt_key(refused: Callable[..., None]) -> None:
    refused(run([*SEARCH, "search.epoch=3"]), "'search.epoch'", "did you mean 'search.epochs'")
    assert not os.listdir()


def test_word_that_is_not_utf8(refused: Callable[..., None]) -> None:
    refused(run([*EVAL, b"\xff=3"]), "unknown key")


def test_unknown_operation(refused: Callable[..., None]) -> None:
    text = load_genotype("darts_v2").to_json().replace("sep_conv_3x3", "sep_conv3x3", 1)
    Path("my.json").write_text(text)
    refused(run([*EVAL, "network.genotype=my.json"]), "my.json", "'sep_conv3x3'", "did you mean 'sep_conv_3x3'")
    assert Path("my.json").read_text() == text
    assert os.listdir() == ["my.json"]


@pytest.mark.parametrize("content", ["a: " + "[" * 200_000, "a: " + "[" * 200_000 + "]" * 200_000, "- " * 200_000])
def test_config_nested_deep_enough_to_exhaust_the_stack(content: str, refused: Callable[..., None]) -> None:
    """In a process of its own, since a parser that recurses in C takes the process with it."""
    Path("my.yaml").write_text(content)
    refused(run([*SEARCH, "--config", "my.yaml"]), "my.yaml", "nested too deeply")


def test_setting_nested_deep_enough_to_exhaust_the_stack(refused: Callable[..., None]) -> None:
    refused(run([*SEARCH, "run.name=" + "[" * 100_000]), "run.name")


# -- torchrun


def only_error(text: str) -> str:
    """The one line among torchrun's own that is the program's."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    return lines[0]


def test_first_process_is_late() -> None:
    """torchrun ends the others as soon as one has failed: whoever fails first must have said why."""
    script = 'if [ "$RANK" = 0 ]; then sleep 2; fi; exec "$@"'
    ended = run([sys.executable, *TORCHRUN, "--no_python", "bash", "-c", script, "bash", *SEARCH, "search.epoch=3"])
    assert ended.returncode != 0
    assert "'search.epoch'" in only_error(ended.stderr)


def test_only_the_second_process_finds_the_error(
    small_search: tuple[str, ...], write_images: Callable[..., Path]
) -> None:
    """As on two nodes of which the second lacks the data."""
    write_images("cats", "dogs")
    words = [*small_search, "search.epochs=1", "data.limit=0", "data.name=folder", "run.dir=run"]
    script = 'if [ "$RANK" = 0 ]; then root=images; else root=nowhere; fi; exec "$@" data.root=$root'
    ended = run([sys.executable, *TORCHRUN, "--no_python", "bash", "-c", script, "bash", *SEARCH, *words])
    assert ended.returncode != 0
    assert "data.root=nowhere" in only_error(ended.stderr)


# -- disks


@pytest.fixture(scope="module")
def may_mount() -> list[str]:
    """What to put before a command so that it may mount file systems that nobody else sees."""
    reasons = []
    for words in (["unshare", "--mount", "--map-root-user"], ["unshare", "--mount"]):
        if shutil.which("unshare"):
            tried = run([*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            if tried.returncode == 0:
                return words
            reasons.append(tried.stderr.strip())
    pytest.skip(f"this machine lets nobody mount a file system: {reasons}")


ON_FULL_DISK = """
set -e
mount -t tmpfs -o size=2m tmpfs disk
cp -a unfinished disk/run
free=$(df --output=avail --block-size=1K disk | tail -n 1)
head -c $((free - $1))K /dev/zero > disk/filler
shift
set +e
"$@"
code=$?
cp -a disk/run left
exit $code
"""


@pytest.mark.parametrize(
    ("free", "tensorboard"), [(200, "false"), (24, "true")], ids=["in the checkpoint", "in TensorBoard's events"]
)
def test_full_disk(
    free: int,
    tensorboard: str,
    may_mount: list[str],
    unfinished: Path,
    small_search: tuple[str, ...],
    refused: Callable[..., None],
) -> None:
    """`free` KB are left. TensorBoard writes from a thread of its own, which must not print a traceback either."""
    Path("disk").mkdir()
    words = [*small_search, "search.epochs=3", f"run.tensorboard={tensorboard}", "run.dir=disk/run"]
    ended = run([*may_mount, "bash", "-c", ON_FULL_DISK, "bash", str(free), *SEARCH, *words])
    refused(ended, "disk/run", "No space left on device", "free some space")
    before = sorted(path.name for path in (unfinished / "checkpoints").iterdir())
    assert sorted(path.name for path in Path("left/checkpoints").iterdir()) == before
    for name in before:
        assert Path("left/checkpoints", name).read_bytes() == (unfinished / "checkpoints" / name).read_bytes()
    rows = (unfinished / "metrics.jsonl").read_bytes()
    assert Path("left/metrics.jsonl").read_bytes().startswith(rows)
    assert not list(Path("left").rglob("*.tmp"))


def test_read_only_disk(
    may_mount: list[str],
    unfinished: Path,
    tmp_path: Path,
    small_search: tuple[str, ...],
    refused: Callable[..., None],
    take_snapshot: Callable[[Path], object],
) -> None:
    before = take_snapshot(tmp_path)
    script = 'mount --bind unfinished unfinished && mount -o remount,bind,ro unfinished && exec "$@"'
    words = [*small_search, "search.epochs=3", "run.dir=unfinished"]
    ended = run([*may_mount, "bash", "-c", script, "bash", *SEARCH, *words])
    refused(ended, "unfinished", "Read-only file system", "run.dir=")
    assert take_snapshot(tmp_path) == before


# -- two processes


@pytest.fixture
def busy_run(small_search: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A long search in the folder `run`, held still after its first epoch."""
    process = subprocess.Popen([*SEARCH, *small_search, "search.epochs=100000", "run.dir=run"])
    try:
        deadline = time.monotonic() + 120
        while not list(Path("run").glob("checkpoints/*.pt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        yield process
    finally:
        process.kill()
        process.wait()


def test_two_processes_on_one_folder(
    busy_run: subprocess.Popen[bytes], small_search: tuple[str, ...], refuse: Callable[..., str]
) -> None:
    """The second is refused, even if it would start anew; the first goes on, and saves its state when it ends."""
    words = ["search", *small_search, "search.epochs=100000", "run.dir=run"]
    says = ("run folder 'run'", f"process {busy_run.pid}", "run.dir=")
    refuse(*words, says=says, creates="nothing")
    refuse(*words, "run.overwrite=true", says=says, creates="nothing")
    refuse(*words, "search.momentum=0.5", says=says, creates="nothing")
    before = {path.name for path in Path("run/checkpoints").iterdir()}
    busy_run.send_signal(signal.SIGTERM)
    busy_run.send_signal(signal.SIGCONT)
    assert busy_run.wait(timeout=60) == 128 + signal.SIGTERM
    assert {path.name for path in Path("run/checkpoints").iterdir()} - before
