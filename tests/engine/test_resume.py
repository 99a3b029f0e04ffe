"""Killed, interrupted and resumed runs end exactly as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nge_search.cli import main
from nge_search.engine.checkpoint import CheckpointFolder

LONGER = ("data.limit=256", "search.epochs=3", "run.checkpoint_seconds=0")


def start(checkout: Path, words: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(checkout / "train_search.py"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def final_state(run: Path) -> dict:
    state, _, damaged = CheckpointFolder(run / "checkpoints").load_newest()
    assert damaged == []
    return state


def assert_same_end(run: Path, reference: Path) -> None:
    """Weights, embedding, optimisers, statistics, random states, genotype and recorded losses, bit for bit."""
    ours, theirs = final_state(run), final_state(reference)
    assert_equal(ours["task"], theirs["task"], "task")
    assert_equal(ours["random"], theirs["random"], "random")
    assert ours["position"] == theirs["position"]
    assert (run / "genotype.json").read_bytes() == (reference / "genotype.json").read_bytes()
    assert rows(run) == rows(reference)


def rows(run: Path) -> list[dict]:
    measured = ("seconds", "images_per_second", "peak_memory_mb")
    parsed = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in measured} for row in parsed]


def assert_equal(one, other, path):
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for position, pair in enumerate(zip(one, other)):
            assert_equal(*pair, f"{path}/{position}")
    else:
        assert one == other, path


def newest(run: Path) -> str:
    found = CheckpointFolder(run / "checkpoints").newest_first()
    return found[0].name if found else ""


def kill_often(checkout: Path, words: list[str], run: Path, kills: int, seed: int) -> set[int]:
    """Kill the run that many times, each time a random moment after it made progress; then let it end.

    Returns the phases (0 weights, 1 architecture, 2 evaluation) in which it was when it was killed.
    """
    chance, phases = random.Random(seed), set()
    for _ in range(kills):
        before = newest(run)
        process = start(checkout, words)
        while newest(run) == before:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        phases.add(final_state(run)["position"]["phase"])
    process = start(checkout, words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resuming at epoch" in output
    assert "will not repeat" not in output
    return phases


@pytest.fixture
def words_for(tmp_path, tiny_search):
    def words(name: str, *settings: str) -> list[str]:
        return [*tiny_search, *LONGER, "run.progress=lines", f"run.dir={tmp_path / name}", *settings]

    return words


def test_killed_at_random_moments(checkout, tmp_path, words_for):
    assert main(["search", *words_for("reference")]) == 0
    kill_often(checkout, words_for("run"), tmp_path / "run", kills=3, seed=0)
    assert_same_end(tmp_path / "run", tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["epochwise", "batchwise"])
def test_killed_twenty_times(checkout, tmp_path, words_for, loop):
    extra = (f"search.loop={loop}", "search.order=second", "search.epochs=12", "data.limit=384")
    assert main(["search", *words_for("reference", *extra)]) == 0
    phases = kill_often(checkout, words_for("run", *extra), tmp_path / "run", kills=20, seed=1)
    assert phases >= ({0, 1} if loop == "epochwise" else {0})
    assert_same_end(tmp_path / "run", tmp_path / "reference")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_signal_saves_and_leaves(checkout, tmp_path, words_for, number, code):
    """Without periodic checkpoints: only the one that the signal causes is there to resume from."""
    run, once = tmp_path / "run", "run.checkpoint_seconds=1000000"
    assert main(["search", *words_for("reference", once)]) == 0
    process = start(checkout, words_for("run", once, "run.log_every=1"))
    for line in process.stdout:
        if "architecture 3/" in line:
            process.send_signal(number)
            break
    output = process.stdout.read()
    assert process.wait() == code, output
    assert f"stopped by {signal.Signals(number).name}; state saved to {run}" in output
    assert not (run / "summary.json").exists()
    position = final_state(run)["position"]
    assert (position["epoch"], position["phase"]) == (0, 1)
    assert main(["search", *words_for("run", once)]) == 0
    assert_same_end(run, tmp_path / "reference")


@pytest.mark.parametrize("setting", ["data.resident=never", "run.checkpoint_seconds=1000000", "run.log_every=3"])
def test_what_does_not_matter_does_not_matter(tmp_path, words_for, setting, capsys):
    """Streaming instead of resident images, or other intervals: the same run, bit for bit."""
    assert main(["search", *words_for("reference")]) == 0
    assert main(["search", *words_for("run", setting, "data.workers=1")]) == 0
    assert_same_end(tmp_path / "run", tmp_path / "reference")


def test_other_threads_are_said_to_end_exactness(tmp_path, words_for, monkeypatch, capsys):
    import nge_search.engine.loop as loop

    class Stop(Exception):
        pass

    original = loop.Loop._end_epoch

    def stop_after_first(self, logbook):
        original(self, logbook)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_end_epoch", stop_after_first)
        with pytest.raises(Stop):
            main(["search", *words_for("run")])
    assert main(["search", *words_for("run", "threads=2")]) == 0
    torch.set_num_threads(1)
    assert "will not repeat bit for bit, since threads was 1, is 2" in capsys.readouterr().out


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank(checkout, tmp_path, words_for):
    """`--max-restarts` takes up the last checkpoint; the end is that of an undisturbed two-rank run."""

    def launch(name: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command += ["--max-restarts=3", str(checkout / "train_search.py"), *words_for(name, "search.epochs=6")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    reference = launch("reference")
    output, _ = reference.communicate(timeout=300)
    assert reference.returncode == 0, output
    disturbed, run = launch("run"), tmp_path / "run"
    while newest(run) < "000010":
        assert disturbed.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{disturbed.pid}/task/{disturbed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output, _ = disturbed.communicate(timeout=300)
    assert disturbed.returncode == 0, output
    assert "resuming at epoch" in output
    assert_same_end(run, tmp_path / "reference")
