"""The processes of one run: `torchrun` gives each a rank; without it there is a single one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nge_search.engine.heartbeat import Heartbeats, open_book
from nge_search.engine.launch import Launch, read_launch
from nge_search.errors import RunFailure, UserError, from_os_error

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """This process's place among all. Every method is a no-op or the identity for a process that is `alone`.

    Attributes:
        group: of the processes, for what the host exchanges; None: torch's default one.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    _heartbeats: Heartbeats | None = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to; a group of one process talks to itself, which tests try."""
        return self.size == 1 and self.group is None

    def _enter(self) -> None:
        """Count a collective, so that ranks which do not come to it can be told."""
        if self._heartbeats is not None:
            self._heartbeats.entered += 1

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, with one collective per type."""
        if not self.alone:
            self._enter()
            sum_over_ranks(tensors)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        self.sum_tensors([p.grad for p in parameters if p.grad is not None])

    def agree(self, *flags: bool) -> list[bool]:
        """Which flags are set on any rank. Host memory only: a GPU is not waited for."""
        if self.alone:
            return list(flags)
        self._enter()
        votes = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.group)
        return [bool(vote) for vote in votes]

    def gather_rows(self, row_N: Tensor) -> Tensor:
        """[ranks, N] on the CPU: the 1-d tensor of every rank, which must agree in length."""
        row_N = row_N.cpu()
        if self.alone:
            return row_N[None]
        self._enter()
        rows = [torch.empty_like(row_N) for _ in range(self.size)]
        dist.all_gather(rows, row_N, group=self.group)
        return torch.stack(rows)

    def gather_objects(self, value: Result) -> list[Result]:
        """The (picklable) value of every rank."""
        if self.alone:
            return [value]
        self._enter()
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def on_main(self, action: Callable[[], Result]) -> Result:
        """Run `action` on rank 0 and hand its (picklable) result, or its UserError, to all ranks."""
        if self.alone:
            return action()
        outcome: list[Any] = [None, None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except UserError as error:
                outcome[1:] = [type(error) is RunFailure, str(error)]
            except OSError as error:
                known = from_os_error(error)
                if known is None:
                    raise
                outcome[1:] = [False, str(known)]
        self._enter()
        dist.broadcast_object_list(outcome, src=0, group=self.group)
        if outcome[2] is not None:
            raise (RunFailure if outcome[1] else UserError)(outcome[2], shared=True)
        return outcome[0]

    def everywhere(self, action: Callable[[], Result]) -> Result:
        """Run `action` on every rank; the first rank's UserError, in their order, becomes everybody's.

        It names the rank, unless all have the same.
        """
        if self.alone:
            return action()
        message = None
        try:
            result = action()
        except UserError as error:
            message = str(error)
        everyone = self.gather_objects(message)
        for rank, other in enumerate(everyone):
            if other is not None:
                where = "" if len(set(everyone)) == 1 else f"on rank {rank}: "
                raise UserError(where + other, shared=True)
        return result

    def assert_identical(self, tensors: dict[str, Tensor]) -> None:
        """Raise RunFailure, naming the first difference, unless all ranks hold the same bits."""
        if self.alone:
            return
        digests = {name: _digest(tensor) for name, tensor in tensors.items()}
        everyone = self.gather_objects(digests)
        for name in digests:
            if len({other.get(name) for other in everyone}) > 1:
                why = f"ranks have drifted apart: '{name}' differs between them; please report this"
                raise RunFailure(why, shared=True)


@torch.no_grad()
def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks of the process group, with one collective per type."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        group = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group])):
            tensor.copy_(part.view_as(tensor))


def _digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous()
    return hashlib.sha256(data.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def choose_device(wanted: str, local_rank: int = 0, processes: int = 1) -> torch.device:
    """The device that `device=auto|cpu|cuda` means for the process with this rank among those of its machine.

    Raises:
        UserError: GPUs are asked for and there are too few.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no GPU here; use device=cpu, or run `nge doctor`")
    if processes > torch.cuda.device_count():
        raise UserError(
            f"device={wanted}: {processes} processes need a GPU each, this machine has "
            f"{torch.cuda.device_count()}; lower --nproc_per_node or use device=cpu"
        )
    return torch.device("cuda", local_rank)


@contextlib.contextmanager
def join_world(wanted_device: str, stall_seconds: float = 1800.0) -> Iterator[World]:
    """Join the processes that `torchrun` started (gloo for host tensors, NCCL for GPU ones), or run alone.

    Args:
        wanted_device: as the setting `device`.
        stall_seconds: how long processes wait for each other.

    Raises:
        UserError: an environment that does not describe a process of several, no such device, or processes that
            do not come.
        RunFailure: another process is gone, or stands still.
    """
    launch = read_launch(os.environ)
    device = choose_device(wanted_device, launch.local_rank, launch.local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if launch.size == 1:
        yield World(device)
        return
    # Optimisers import torch.distributed.nn, whose functions keep the group of that moment as a default argument.
    # It would outlive destroy_process_group, and its threads could abort Python's shutdown. So import it before.
    importlib.import_module("torch.distributed.nn")
    with _group(launch, device, stall_seconds) as group, _heartbeats(launch, device, stall_seconds, group) as beats:
        try:
            yield World(device, launch.rank, launch.size, group, beats)
            dist.barrier(group)  # nobody closes a connection that another still reads from
        except RuntimeError as error:
            failure = _why_alone(error, beats, launch.rank)
            if failure is None:
                raise
            raise failure from error


#: How gloo and NCCL say that the process at the other end is gone, or does not answer.
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "remote process exited")
_UNANSWERED = ("timed out", "timeout")

#: How long a process waits for the address at which all meet to answer, in seconds.
_PATIENCE_FOR_ADDRESS = 300.0

#: Between two looks at whether somebody has come, in seconds.
_PAUSE = 0.1

#: How long one process waits for another to print the error of both, in seconds.
_PATIENCE_FOR_PRINTING = 30.0

#: How much longer NCCL waits than gloo, in seconds: it ends the process without a word that a user understands.
_NCCL_GRACE = 120.0

#: Groups that this process joined: each finds the addresses of its own members only.
_groups = itertools.count()


def _why_alone(error: RuntimeError, beats: Heartbeats, rank: int) -> RunFailure | None:
    """What an error of a collective on `rank` means; None if it is of another kind."""
    words = str(error).casefold()
    lost, unanswered = (any(known in words for known in kind) for kind in (_LOST, _UNANSWERED))
    # A rank that lost its patience earlier leaves, so that the others lose the connection to it.
    if unanswered or (lost and beats.still(0.75 * beats.patience)):
        return RunFailure(beats.verdict())
    if not lost:
        return None
    failure = RunFailure("lost the connection to another process; its own message says why it left")
    failure.rank = rank
    return failure


@contextlib.contextmanager
def _group(launch: Launch, device: torch.device, stall_seconds: float) -> Iterator[dist.ProcessGroup | None]:
    """All processes, connected; gives the group of what hosts exchange, if it is not the default one."""
    on_gpu, patience = device.type == "cuda", timedelta(seconds=stall_seconds)
    store = dist.PrefixStore(f"group_{next(_groups)}", _meeting_store(launch, stall_seconds))
    if not launch.agent or _on_one_machine(launch):
        _call_roll(store, launch, device, stall_seconds)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.size,
            timeout=patience + timedelta(seconds=_NCCL_GRACE * on_gpu),
        )
        group = dist.new_group(backend="gloo", timeout=patience) if on_gpu else None
    except RuntimeError as error:
        raise _unconnected(error) from error
    assert not isinstance(group, int)  # a number is for ranks that are no members, and all are
    try:
        yield group
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _heartbeats(
    launch: Launch, device: torch.device, stall_seconds: float, group: dist.ProcessGroup | None
) -> Iterator[Heartbeats]:
    """This rank's heartbeats, under a name that no earlier attempt of torchrun has used."""
    name = [secrets.token_hex(8)]
    try:
        client = _client(launch, timedelta(seconds=min(stall_seconds, _PATIENCE_FOR_ADDRESS)))
        if launch.rank == 0:
            open_book(dist.PrefixStore(name[0], client), launch.size)
        dist.broadcast_object_list(name, src=0, group=group)
    except RuntimeError as error:
        raise _unconnected(error) from error
    store = dist.PrefixStore(name[0], client)

    def leave(verdict: str) -> NoReturn:
        """A GPU's host may wait in a call that nothing but the end of the process ends."""
        print(f"error: on rank {launch.rank}: {verdict}", file=sys.stderr, flush=True)
        os._exit(RunFailure.exit_code)

    beats = Heartbeats(
        store,
        launch.rank,
        launch.size,
        stall_seconds,
        None if launch.agent else 0,
        leave if device.type == "cuda" else None,
    )
    beats.start()
    try:
        yield beats
    finally:
        beats.stop()


def _on_one_machine(launch: Launch) -> bool:
    return launch.size == launch.local_size


def _client(launch: Launch, patience: timedelta) -> dist.Store:
    return dist.TCPStore(launch.host, launch.port, is_master=False, timeout=patience)


def _agent_store(launch: Launch, patience: timedelta) -> dist.Store:
    """The store that torchrun's agent serves, as if it were new after each restart."""
    return dist.PrefixStore(f"attempt_{launch.attempt}", _client(launch, patience))


def _meeting_store(launch: Launch, stall_seconds: float) -> dist.Store:
    """Where the processes find each other; on one machine, restarts of torchrun are safe.

    A restarted group would find the addresses of its dead predecessor in the agent's store, and wait for them
    (pytorch issue 135712). Agents of several machines do not count restarts alike: there torch's own way is kept.

    Raises:
        UserError: nobody answers at the address, or it cannot be served.
    """
    patience, serves = timedelta(seconds=stall_seconds), launch.rank == 0 and not launch.agent
    if not serves:
        _await_address(launch, min(stall_seconds, _PATIENCE_FOR_ADDRESS))
    try:
        if serves:
            return dist.TCPStore(
                launch.host, launch.port, None, True, patience, wait_for_workers=False, multi_tenant=True
            )
        return _agent_store(launch, patience) if _on_one_machine(launch) else _client(launch, patience)
    except (RuntimeError, ValueError) as error:
        what = "cannot be served from here; choose an address of this machine and a free port" * serves
        raise UserError(
            f"{_address(launch)}: {what or 'does not answer as torch does'} ({_first_line(error)})"
        ) from None


def _await_address(launch: Launch, seconds: float) -> None:
    """Return once somebody answers where the processes meet; raises UserError after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(
                (launch.host, launch.port), timeout=max(1.0, deadline - time.monotonic())
            ):
                return
        except OSError as error:
            reason = error.strerror or str(error)
        except UnicodeError:
            raise UserError(f"{_address(launch)}: MASTER_ADDR is no name of a machine") from None
        if time.monotonic() >= deadline:
            raise UserError(
                f"{_address(launch)}: nobody answered for {seconds:g} s ({reason}); start the process with RANK=0 "
                "there, or correct the address"
            )
        time.sleep(_PAUSE)


def _call_roll(store: dist.Store, launch: Launch, device: torch.device, stall_seconds: float) -> None:
    """Wait until all processes are there and know that all have been started alike.

    Raises:
        UserError: one does not come, or has another WORLD_SIZE or kind of device; names its rank.
    """
    deadline = time.monotonic() + stall_seconds
    own = {"WORLD_SIZE": str(launch.size), "device": device.type}
    store.set(f"here/{launch.rank}", " ".join(own.values()))
    for rank in range(launch.size):
        while not store.check([f"here/{rank}"]):
            if time.monotonic() >= deadline:
                raise UserError(
                    f"rank {rank} of {launch.size} did not come within run.stall_seconds={stall_seconds:g}; its "
                    "own message says why, or start it"
                )
            time.sleep(_PAUSE)
        theirs = store.get(f"here/{rank}").decode().split()
        for (name, value), other in zip(own.items(), theirs):
            if value != other:
                raise UserError(
                    f"rank {rank} has {name}={other}, rank {launch.rank} has {name}={value}; start all alike"
                )


def _address(launch: Launch) -> str:
    return f"MASTER_ADDR={launch.host} MASTER_PORT={launch.port}"


def _unconnected(error: Exception) -> UserError:
    return UserError(f"the processes cannot connect to each other ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def print_once(launch: Launch, action: Callable[[], None], shared: bool) -> None:
    """Run `action`, which prints an error, in one of the processes that were started together and call this.

    The others wait for it. It needs no process group: processes that have not begun to join one, or have left it,
    may call it. Where no torchrun's agent keeps a store, the first process prints what is `shared`, and each one
    what is its own.
    """
    if not launch.agent:  # the store lives in a process of the run
        if launch.rank == 0 or not shared:
            action()
        return
    try:
        store = _agent_store(launch, timedelta(seconds=_PATIENCE_FOR_PRINTING))
        attempt = "nge_search/first"
        if store.add(attempt, 1) == 1:
            action()
            store.set(f"{attempt}/done", "")
        else:
            store.wait([f"{attempt}/done"])
    except RuntimeError:  # the agent is gone, so there is nobody left who could print it instead
        action()
