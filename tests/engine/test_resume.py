"""Killed, interrupted and resumed runs end exactly as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nge_search.cli import main
from nge_search.data.sources import Dataset
from nge_search.engine import environment
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.logger import Logger
from nge_search.engine.loop import Loop

#: Seconds after which a process is taken to hang; several times what a crowded machine has needed.
PATIENCE = 1200
LONGER = ("data.limit=192", "search.epochs=3")


def start(script: Path, words: list[str]) -> subprocess.Popen:
    """The launcher as a process in a group of its own, with both outputs in one pipe."""
    return subprocess.Popen(
        [sys.executable, str(script), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def stop_at(process: subprocess.Popen, words: str, act: Callable[[], None]) -> str:
    """Do `act` once the output contains `words`; returns the rest of the output."""
    with process.stdout as output:
        for line in output:
            if words in line:
                act()
                break
        rest = output.read()
    process.wait()
    return rest


def stop_after_first_epoch(patch: pytest.MonkeyPatch) -> None:
    """Make searches end as by Ctrl-C once an epoch is over and saved."""
    end_epoch = Loop._end_epoch

    def stop(loop: Loop, logger: Logger) -> None:
        end_epoch(loop, logger)
        raise KeyboardInterrupt

    patch.setattr(Loop, "_end_epoch", stop)


def signal_at(patch: pytest.MonkeyPatch, number: int, place: tuple[int, int, int]) -> None:
    """Make runs receive a signal at the end of a step, told by its epoch, phase and number."""
    run, advance = Loop.run, Logger.advance
    running: list[Loop] = []

    def run_in_sight(loop: Loop) -> None:
        running.append(loop)
        run(loop)

    def advance_and_signal(logger: Logger) -> None:
        advance(logger)
        position = running[-1].position
        if (position.epoch, position.phase, position.step) == place:
            signal.raise_signal(number)

    patch.setattr(Loop, "run", run_in_sight)
    patch.setattr(Logger, "advance", advance_and_signal)


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
        process = start(checkout / "train_search.py", words)
        while newest(run) == before:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        phases.add(final_state(run)["position"]["phase"])
    process = start(checkout / "train_search.py", words)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert "resuming at epoch" in output
    assert "will not repeat" not in output
    return phases


@pytest.fixture
def words_for(tmp_path, tiny_search):
    def words(name: str, *settings: str) -> list[str]:
        return [*tiny_search, *LONGER, "run.progress=lines", f"run.dir={tmp_path / name}", *settings]

    return words


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_search) -> Path:
    """The run that nothing disturbed."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(["search", *tiny_search, *LONGER, f"run.dir={run}"]) == 0
    return run


def test_killed_at_random_moments(checkout, tmp_path, words_for, reference):
    """With checkpoints every 0.3 s, a resumed run repeats several steps, and recorded epochs too."""
    run = tmp_path / "run"
    kill_often(checkout, words_for("run", "run.checkpoint_seconds=0.3"), run, kills=2, seed=0)
    assert_same_end(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize(("loop", "order"), [("epochwise", "first"), ("batchwise", "second")])
def test_killed_twenty_times(checkout, tmp_path, words_for, loop, order):
    extra = [f"search.loop={loop}", f"search.order={order}", "search.epochs=12", "data.limit=384"]
    extra.append("run.checkpoint_seconds=0")
    assert main(["search", *words_for("reference", *extra)]) == 0
    phases = kill_often(checkout, words_for("run", *extra), tmp_path / "run", kills=20, seed=1)
    assert phases >= ({0, 1} if loop == "epochwise" else {0})
    assert_same_end(tmp_path / "run", tmp_path / "reference")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_signal_saves_and_leaves(tmp_path, words_for, reference, number, code, monkeypatch, capsys):
    """Without periodic checkpoints: only the one that the signal causes is there to resume from."""
    run, once = tmp_path / "run", "run.checkpoint_seconds=1000000"
    with monkeypatch.context() as patch:
        signal_at(patch, number, (0, 1, 3))
        assert main(["search", *words_for("run", once)]) == code
    assert f"stopped by {signal.Signals(number).name}; state saved to {run}" in capsys.readouterr().out
    assert not (run / "summary.json").exists()
    position = final_state(run)["position"]
    assert (position["epoch"], position["phase"], position["step"]) == (0, 1, 3)
    assert main(["search", *words_for("run", once)]) == 0
    assert_same_end(run, reference)


def test_a_signal_to_the_whole_process_group_saves_too(checkout, tmp_path, words_for):
    """As torchrun and schedulers send it: twice, and to the workers that read images as well."""
    run, once = tmp_path / "run", "run.checkpoint_seconds=1000000"
    words = words_for("run", once, "run.log_every=1", "data.resident=never", "data.workers=1")
    process = start(checkout / "train_search.py", words)

    def signal_all() -> None:
        for _ in range(2):
            os.killpg(process.pid, signal.SIGTERM)

    output = stop_at(process, "train 3/", signal_all)
    assert process.returncode == 143, output
    assert final_state(run)["position"]["phase"] == 0


def test_tensorboard_keeps_every_epoch_over_a_resume(tmp_path, words_for, monkeypatch):
    words = words_for("run", "run.tensorboard=true")
    with monkeypatch.context() as patch:
        stop_after_first_epoch(patch)
        assert main(["search", *words]) == 130
    assert main(["search", *words]) == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss/train")]
    assert losses == pytest.approx([row["train_loss"] for row in rows(tmp_path / "run")])
    assert len(events.Scalars("p_normal/0-2/skip_connect")) == 3


def test_other_images_under_the_same_settings_are_refused(tmp_path, words_for, monkeypatch, capsys):
    words = words_for("run", "search.epochs=1")
    assert main(["search", *words]) == 0
    (tmp_path / "run" / "summary.json").unlink()
    monkeypatch.setattr(Dataset, "fingerprint", property(lambda self: "other"))
    assert main(["search", *words]) == 2
    assert "was trained on other images than data.root=" in capsys.readouterr().err


def test_retraining_resumes_exactly(tmp_path, monkeypatch):
    """A retraining with drop-path, stopped by SIGTERM, ends as one that was not."""

    def words(name: str) -> list[str]:
        return [
            "threads=1", "run.progress=none", "run.tensorboard=false", "data.limit=100", "network.channels=4",
            "network.cells=3", "network.drop_path=0.3", "train.epochs=3", "train.batch_size=32",
            "train.label_smoothing=0.1", "run.checkpoint_seconds=1000000", f"run.dir={tmp_path / name}",
        ]  # fmt: skip

    assert main(["eval", *words("reference")]) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, signal.SIGTERM, (1, 0, 2))
        assert main(["eval", *words("run")]) == 143
    assert final_state(tmp_path / "run")["position"]["step"] == 2
    assert main(["eval", *words("run")]) == 0
    ours, theirs = final_state(tmp_path / "run"), final_state(tmp_path / "reference")
    assert_equal(ours["task"], theirs["task"], "task")
    assert rows(tmp_path / "run") == rows(tmp_path / "reference")


@pytest.mark.parametrize("setting", ["data.resident=never", "run.checkpoint_seconds=0", "run.log_every=3"])
def test_what_does_not_matter_does_not_matter(tmp_path, words_for, reference, setting):
    """Streaming instead of resident images, or other intervals: the same run, bit for bit."""
    assert main(["search", *words_for("run", setting, "data.workers=1")]) == 0
    assert_same_end(tmp_path / "run", reference)


def test_what_ends_exactness_is_said(tmp_path, words_for, monkeypatch, capsys):
    """Here the first epoch claims to have run with seven threads."""
    exactness = environment.exactness
    with monkeypatch.context() as patch:
        patch.setattr(environment, "exactness", lambda *place: {**exactness(*place), "threads": 7})
        stop_after_first_epoch(patch)
        assert main(["search", *words_for("run")]) == 130
    assert main(["search", *words_for("run")]) == 0
    assert "will not repeat bit for bit, since threads was 7, is 1" in capsys.readouterr().out


def launch_two(script: Path, words: list[str]) -> subprocess.Popen:
    """Two ranks that torchrun starts again when one dies."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*command, "--max-restarts=5", str(script), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_once_at(launched: subprocess.Popen, run: Path, checkpoint: str, which: int) -> None:
    """Kill one of the ranks as soon as the run has a checkpoint of that number."""
    while newest(run) < checkpoint:
        assert launched.poll() is None
        time.sleep(0.01)
    time.sleep(random.Random(checkpoint).random() / 5)  # anywhere in a step, or in what follows an epoch
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    os.kill(int(children[which]), signal.SIGKILL)


@pytest.mark.slow
def test_torchrun_restarts_a_killed_rank(checkout, tmp_path, words_for):
    """`--max-restarts` takes up the last checkpoint; the end is that of an undisturbed two-rank run."""
    script, run, often = checkout / "train_search.py", tmp_path / "run", "run.checkpoint_seconds=0"
    reference = launch_two(script, words_for("reference", often, "search.epochs=6"))
    output, _ = reference.communicate(timeout=PATIENCE)
    assert reference.returncode == 0, output
    disturbed = launch_two(script, words_for("run", often, "search.epochs=6"))
    kill_once_at(disturbed, run, "000010", -1)
    output, _ = disturbed.communicate(timeout=PATIENCE)
    assert disturbed.returncode == 0, output
    assert "resuming at epoch" in output
    assert_same_end(run, tmp_path / "reference")


@pytest.mark.xdist_group("distributed")
def test_torchrun_restarts_a_retraining_whose_ranks_are_killed(checkout, tmp_path, two_ranks, retraining_words):
    """Rank 0 and rank 1 die; the run ends by itself with the numbers of an undisturbed one, bit for bit."""
    run, reference = tmp_path / "run", two_ranks[0] / "retraining" / "run2"
    words = [*retraining_words, "run.progress=lines", "run.checkpoint_seconds=0", f"run.dir={run}"]
    disturbed = launch_two(checkout / "train_eval.py", words)
    kill_once_at(disturbed, run, "000010", 1)
    kill_once_at(disturbed, run, "000025", 0)
    output, _ = disturbed.communicate(timeout=PATIENCE)
    assert disturbed.returncode == 0, output
    assert output.count("resuming at epoch") == 2
    assert_same_end(run, reference)
    assert (run / "evaluation.json").read_bytes() == (reference / "evaluation.json").read_bytes()
    ours, theirs = (json.loads((path / "summary.json").read_text()) for path in (run, reference))
    same = [key for key in theirs if key not in ("seconds", "images_per_second", "peak_memory_mb")]
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
