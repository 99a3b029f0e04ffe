"""What the environment says of the processes of a run; `torchrun`, or whoever started them, sets it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nge_search.errors import UserError, plain

_MOST_PROCESSES = 10**6
_HIGHEST_PORT = 2**16 - 1
#: Variables that say how OpenMP's threads wait for each other.
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
#: At what else the machine does, and seconds from one to the next.
_LOOKS, _BETWEEN_LOOKS = 5, 0.005
_FOR_ONE = "unset it for a single process, or start several with torchrun"
_USUALLY = "torchrun sets both; for a single process unset"


@dataclass(frozen=True)
class Launch:
    """This process among all of the run, and among those of its machine; by default it is alone.

    Attributes:
        host, port: where the processes find each other; only where there are several.
        agent: whether a torchrun that keeps running serves that address.
        attempt: how often torchrun has started the processes anew.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str = ""
    port: int = 0
    agent: bool = False
    attempt: int = 0


def waiting(variables: Mapping[str, str], busy: int, cores: int) -> dict[str, str]:
    """Variables that say how OpenMP's threads wait for each other; they count if set before torch is loaded.

    By default a thread that waits spins for a while, which is fastest where its core has nothing else to do. Where
    other programs want it, spinning keeps them, and the thread that is waited for, from running: steps of small
    networks take three times as long. There threads sleep at once. It changes no result.

    Args:
        variables: the environment's; what they say stays.
        busy: other threads that run or want to, as `busy_threads` counts them.
        cores: of the machine.
    """
    if busy <= cores / 2 or not variables.keys().isdisjoint(WAITING):
        return {}
    return {WAITING[0]: "0"}


def busy_threads(table: str = "/proc/loadavg") -> int:
    """How many other threads of the machine run or want to: the fewest of a few looks; 0 where nothing tells."""
    found = []
    for _ in range(_LOOKS):
        try:
            found.append(int(Path(table).read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0
        if found[-1] <= 0:
            return 0
        time.sleep(_BETWEEN_LOOKS)
    return min(found)


def read_launch(variables: Mapping[str, str]) -> Launch:
    """The launch that the environment's `variables` describe.

    Empty ones count as unset. Schedulers leave a RANK behind that belongs to no WORLD_SIZE: it means nothing then.

    Raises:
        UserError: variables that are incomplete, no numbers, or contradict each other; names one of them.
    """
    given = {name: value.strip() for name, value in variables.items() if value.strip()}
    size = _number(given, "WORLD_SIZE", 1, _MOST_PROCESSES)
    rank = _number(given, "RANK", 0, _MOST_PROCESSES)
    local_size = _number(given, "LOCAL_WORLD_SIZE", 1, _MOST_PROCESSES)
    local_rank = _number(given, "LOCAL_RANK", 0, _MOST_PROCESSES)
    if local_rank is not None and local_size is not None and local_rank >= local_size:
        raise UserError(f"LOCAL_RANK={local_rank}: must be below LOCAL_WORLD_SIZE={local_size}")
    if size is None:
        _require_alone(variables, given)
        return Launch()
    if rank is not None and rank >= size:
        raise UserError(f"RANK={rank}: must be below WORLD_SIZE={size}")
    if local_size is not None and local_size > size:
        raise UserError(f"LOCAL_WORLD_SIZE={local_size}: must be at most WORLD_SIZE={size}")
    if size == 1:
        return Launch()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if name not in given:
            raise UserError(f"WORLD_SIZE={size} without {name}: {_USUALLY} WORLD_SIZE")
    if (local_rank is None) != (local_size is None):
        there, missing = ("LOCAL_RANK", "LOCAL_WORLD_SIZE")[:: 1 if local_size is None else -1]
        raise UserError(f"{there}={given[there]} without {missing}: set both, or neither for one process a machine")
    port, attempt = _number(given, "MASTER_PORT", 1, _HIGHEST_PORT), _number(given, "TORCHELASTIC_RESTART_COUNT")
    assert rank is not None
    assert port is not None
    agent = _flag(given, "TORCHELASTIC_USE_AGENT_STORE")
    return Launch(rank, size, local_rank or 0, local_size or 1, given["MASTER_ADDR"], port, agent, attempt or 0)


def _require_alone(variables: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Without WORLD_SIZE: refuse what was meant to be one of several processes."""
    master = next((name for name in ("MASTER_ADDR", "MASTER_PORT") if name in given), None)
    if "RANK" in given and master is not None:
        raise UserError(f"RANK={given['RANK']} and {master} without WORLD_SIZE: {_USUALLY} RANK")
    if "WORLD_SIZE" in variables and "RANK" in given:
        raise UserError(
            f"WORLD_SIZE is empty beside RANK={given['RANK']}: set it, or unset both for a single process"
        )


def _number(given: Mapping[str, str], name: str, least: int = 0, most: int = 10**9) -> int | None:
    """The value of a variable between the limits; None where it is not set."""
    if name not in given:
        return None
    text = given[name]
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
        raise UserError(f"{name}={plain(text)}: must be a whole number; {_FOR_ONE}")
    if not least <= int(text) <= most:
        raise UserError(f"{name}={int(text)}: must be between {least} and {most}; {_FOR_ONE}")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "False")
    if text not in ("True", "False"):
        raise UserError(f"{name}={plain(text)}: torchrun sets it to True or False; unset it")
    return text == "True"
