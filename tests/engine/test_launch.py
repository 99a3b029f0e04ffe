"""What the environment says of a run's processes: read in one place, and refused by the name of a variable."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nge_search.engine.launch import Launch, busy_threads, read_launch, waiting
from nge_search.errors import UserError

WHOLE = {
    "WORLD_SIZE": "6", "RANK": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip


def test_what_torchrun_sets() -> None:
    assert read_launch(WHOLE) == Launch(4, 6, 1, 3, "node0", 29500, True, 2)


def test_one_process_a_machine_needs_no_local_rank() -> None:
    given = {name: WHOLE[name] for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    assert read_launch(given) == Launch(4, 6, 0, 1, "node0", 29500)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "3"},
        {"RANK": "3", "LOCAL_RANK": "3"},
        {"MASTER_ADDR": "node0", "MASTER_PORT": "tcp://10.0.0.1:80"},
        {"WORLD_SIZE": "", "RANK": " ", "MASTER_PORT": ""},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {**WHOLE, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
    ],
)
def test_a_single_process_is_the_first(variables: dict[str, str]) -> None:
    assert read_launch(variables) == Launch()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE=-2"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE=2.0"),
        ({"WORLD_SIZE": "1_0"}, "WORLD_SIZE=1_0"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE=999"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE"),
        ({"RANK": ""}, "WORLD_SIZE=6 without RANK"),
        ({"RANK": "6"}, "RANK=6"),
        ({"RANK": "-1"}, "RANK=-1"),
        ({"RANK": "\x1b[2J"}, "RANK=\\\\x1b"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK=x"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK=3"),
        ({"LOCAL_RANK": ""}, "LOCAL_WORLD_SIZE=3 without LOCAL_RANK"),
        ({"LOCAL_WORLD_SIZE": ""}, "LOCAL_RANK=1 without LOCAL_WORLD_SIZE"),
        ({"LOCAL_WORLD_SIZE": "7"}, "LOCAL_WORLD_SIZE=7"),
        ({"MASTER_ADDR": "  "}, "without MASTER_ADDR"),
        ({"MASTER_PORT": ""}, "without MASTER_PORT"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT=http"),
        ({"TORCHELASTIC_USE_AGENT_STORE": "maybe"}, "TORCHELASTIC_USE_AGENT_STORE=maybe"),
        ({"TORCHELASTIC_RESTART_COUNT": "often"}, "TORCHELASTIC_RESTART_COUNT=often"),
    ],
)
def test_an_impossible_launch_names_the_variable(changes: dict[str, str], named: str) -> None:
    with pytest.raises(UserError) as refused:
        read_launch({**WHOLE, **changes})
    assert named.replace("\\\\", "\\") in str(refused.value)


def test_a_number_alone_must_be_one_too() -> None:
    with pytest.raises(UserError, match="LOCAL_RANK=abc"):
        read_launch({"LOCAL_RANK": "abc"})


def test_one_of_several_without_their_number_is_not_taken_for_a_single_process() -> None:
    with pytest.raises(UserError, match="RANK=1 and MASTER_PORT without WORLD_SIZE"):
        read_launch({"RANK": "1", "MASTER_PORT": "29500"})


@pytest.mark.parametrize(
    ("variables", "busy", "passive"),
    [
        ({}, 3, True),
        ({}, 2, False),
        ({"GOMP_SPINCOUNT": "1000"}, 3, False),
        ({"OMP_WAIT_POLICY": "active"}, 3, False),
    ],
)
def test_threads_sleep_where_the_machine_has_other_work(variables, busy, passive) -> None:
    """Unless the user has said how they wait."""
    assert waiting(variables, busy, cores=4) == ({"GOMP_SPINCOUNT": "0"} if passive else {})


@pytest.mark.parametrize(
    ("text", "busy"), [("3.8 2.3 1.1 5/101 5018\n", 4), ("0.0 0.0 0.0 1/90 17", 0), ("", 0), ("a b c d", 0)]
)
def test_busy_threads_are_those_of_others(text, busy, tmp_path) -> None:
    table = tmp_path / "loadavg"
    assert busy_threads(str(table)) == 0
    table.write_text(text)
    assert busy_threads(str(table)) == busy


def test_a_command_settles_it_before_torch_is_loaded() -> None:
    """OpenMP's library reads it once, when it is loaded."""
    script = (
        "import os, sys, nge_search.cli as cli; cli.busy_threads = lambda: 10**6; cli.main(['--help']); "
        "assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    )
    left_out = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "0"
