"""The launchers as real processes: alone, under torchrun, and two on one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]
RequireRefusal = Callable[..., None]


def test_misspelt_key(train_search: list[str], run_command: RunCommand, require_refusal: RequireRefusal) -> None:
    ended = run_command([*train_search, "search.epoch=3"])
    require_refusal(ended, "'search.epoch'", "did you mean 'search.epochs'")
    assert not os.listdir()


def test_word_that_is_not_utf8(
    train_eval: list[str], run_command: RunCommand, require_refusal: RequireRefusal
) -> None:
    require_refusal(run_command([*train_eval, b"\xff=3"]), "unknown key")


def test_impossible_combination(
    train_eval: list[str], run_command: RunCommand, require_refusal: RequireRefusal
) -> None:
    require_refusal(
        run_command([*train_eval, "network.auxiliary=true"]), "network.auxiliary=true", "data.name=digits"
    )


@pytest.mark.parametrize("content", ["a: " + "[" * 60_000, "a: " + "[" * 60_000 + "]" * 60_000, "- " * 60_000])
def test_config_nested_deep_enough_to_exhaust_the_stack(
    content: str, train_search: list[str], run_command: RunCommand, require_refusal: RequireRefusal
) -> None:
    """In a process of its own, since a parser that recurses in C takes the process with it."""
    Path("my.yaml").write_text(content)
    require_refusal(run_command([*train_search, "--config", "my.yaml"]), "my.yaml", "nested too deeply")


def test_setting_nested_deep_enough_to_exhaust_the_stack(
    train_search: list[str], run_command: RunCommand, require_refusal: RequireRefusal
) -> None:
    typed = f"supernet.operations={'[' * 60_000}{']' * 60_000}"
    require_refusal(run_command([*train_search, typed]), "supernet.operations", "nested too deeply")


# -- torchrun


def only_error(text: str) -> str:
    """The one line among torchrun's own that is the program's."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    return lines[0]


def test_first_process_is_late(torchrun: list[str], train_search: list[str], run_command: RunCommand) -> None:
    """torchrun ends the others as soon as one has failed: whoever fails first must have said why."""
    script = 'if [ "$RANK" = 0 ]; then sleep 6; fi; exec "$@"'
    ended = run_command([*torchrun, "--no_python", "bash", "-c", script, "bash", *train_search, "search.epoch=3"])
    assert ended.returncode != 0
    assert "'search.epoch'" in only_error(ended.stderr)


def test_only_the_second_process_finds_the_error(
    small_search: tuple[str, ...],
    torchrun: list[str],
    train_search: list[str],
    run_command: RunCommand,
    write_images: Callable[..., Path],
) -> None:
    """As on two nodes of which the second lacks the data."""
    write_images("cats", "dogs")
    words = [*small_search, "search.epochs=1", "data.limit=0", "data.name=folder", "run.dir=run"]
    script = 'if [ "$RANK" = 0 ]; then root=images; else root=nowhere; fi; exec "$@" data.root=$root'
    ended = run_command([*torchrun, "--no_python", "bash", "-c", script, "bash", *train_search, *words])
    assert ended.returncode != 0
    assert "data.root=nowhere" in only_error(ended.stderr)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_vanishes_leaves_one_line_and_no_traceback(
    victim: int,
    small_search: tuple[str, ...],
    torchrun: list[str],
    train_search: list[str],
    run_command: RunCommand,
) -> None:
    """The other one meets a closed connection in the middle of an epoch."""
    words = [*small_search, "search.epochs=100000", "run.dir=run"]
    script = (
        f'if [ "$RANK" = {victim} ]; then "$@" & while ! ls run/checkpoints/*.pt; do sleep 0.1; done; '
        'kill -KILL $!; exec sleep 30; else exec "$@"; fi'
    )
    ended = run_command([*torchrun, "--no_python", "bash", "-c", script, "bash", *train_search, *words])
    assert ended.returncode != 0
    assert f"on rank {1 - victim}: lost the connection" in only_error(ended.stderr)
    assert train_search[1] + '"' not in ended.stderr  # torchrun prints a traceback of its own


# -- two processes


@pytest.fixture
def busy_run(train_search: list[str], small_search: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A long search in the folder `run`, held still after its first epoch."""
    process = subprocess.Popen([*train_search, *small_search, "search.epochs=100000", "run.dir=run"])
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
