"""Variables of launchers and schedulers around the commands: refused by name, or without effect."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from nge_search.cli import main
from nge_search.engine import distributed

MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def no_master(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*MASTER, "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "2", **MASTER}, "RANK=2"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE=many"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "search", "search task=queries"])
def test_impossible_environment(
    command: str,
    variables: dict[str, str],
    named: str,
    refuse: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refuse(*command.split(), says=(named,), creates="nothing")


def test_a_scheduler_s_rank_hides_no_result(
    small_eval: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.delenv("WORLD_SIZE")
    assert main(["eval", *small_eval, "train.epochs=1", "run.dir=run"]) == 0
    assert capsys.readouterr().out.startswith("test error")


def test_nobody_at_the_address(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded by run.stall_seconds, and by five minutes."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", **MASTER}.items():
        monkeypatch.setenv(name, value)
    refuse("eval", "run.stall_seconds=1", says=("MASTER_ADDR=127.0.0.1 MASTER_PORT=1", "1 s"), creates="nothing")
    monkeypatch.setattr(distributed, "_PATIENCE_FOR_ADDRESS", 0.0)
    refuse("eval", says=("nobody answered for 0 s",), creates="nothing")
    monkeypatch.setenv("MASTER_ADDR", "a" * 70 + ".")
    refuse("eval", says=("MASTER_ADDR=aaa",), creates="nothing")


def test_the_others_do_not_come(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", **MASTER, "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    refuse(
        "eval", "run.stall_seconds=1", says=("rank 1 of 2 did not come", "run.stall_seconds=1"), creates="nothing"
    )


def test_the_address_is_taken(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {"WORLD_SIZE": "2", "RANK": "0", **MASTER, "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        refuse("eval", "run.stall_seconds=1", says=(f"MASTER_PORT={port}", "free port"), creates="nothing")
