"""The processes of one run: `torchrun` gives each a rank; without it there is a single one."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nge_search.errors import RunFailure, UserError, from_os_error

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """This process's place among all. Every method is a no-op or the identity for a single process."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, with one collective per type."""
        if self.size > 1:
            sum_over_ranks(tensors)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        self.sum_tensors([p.grad for p in parameters if p.grad is not None])

    def agree(self, *flags: bool) -> list[bool]:
        """Which flags are set on any rank. Host memory only: a GPU is not waited for."""
        if self.size == 1:
            return list(flags)
        votes = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return [bool(vote) for vote in votes]

    def gather_rows(self, row_N: Tensor) -> Tensor:
        """[ranks, N] on the CPU: the 1-d tensor of every rank, which must agree in length."""
        row_N = row_N.cpu()
        if self.size == 1:
            return row_N[None]
        rows = [torch.empty_like(row_N) for _ in range(self.size)]
        dist.all_gather(rows, row_N)
        return torch.stack(rows)

    def gather_objects(self, value: Result) -> list[Result]:
        """The (picklable) value of every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def on_main(self, action: Callable[[], Result]) -> Result:
        """Run `action` on rank 0 and hand its (picklable) result, or its UserError, to all ranks."""
        if self.size == 1:
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
        dist.broadcast_object_list(outcome, src=0)
        if outcome[2] is not None:
            raise (RunFailure if outcome[1] else UserError)(outcome[2], shared=True)
        return outcome[0]

    def everywhere(self, action: Callable[[], Result]) -> Result:
        """Run `action` on every rank; the first rank's UserError, in their order, becomes everybody's."""
        if self.size == 1:
            return action()
        result, message = None, None
        try:
            result = action()
        except UserError as error:
            message = str(error)
        for other in self.gather_objects(message):
            if other is not None:
                raise UserError(other, shared=True)
        return result  # type: ignore[return-value]

    def assert_identical(self, tensors: dict[str, Tensor]) -> None:
        """Raise RunFailure, naming the first difference, unless all ranks hold the same bits."""
        if self.size == 1:
            return
        digests = {name: _digest(tensor) for name, tensor in tensors.items()}
        everyone = self.gather_objects(digests)
        for name in digests:
            if len({other.get(name) for other in everyone}) > 1:
                why = f"ranks have drifted apart: '{name}' differs between them; please report this"
                raise RunFailure(why, shared=True)


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
    return hashlib.sha256(data.reshape(-1).view(torch.uint8).numpy()).hexdigest()


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
def join_world(wanted_device: str) -> Iterator[World]:
    """Join the processes that `torchrun` started (gloo for host tensors, NCCL for GPU ones), or run alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = choose_device(wanted_device, local_rank, local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # Optimisers import torch.distributed.nn, whose functions keep the group of that moment as a default argument.
    # It would outlive destroy_process_group, and its threads could abort Python's shutdown. So import it before.
    importlib.import_module("torch.distributed.nn")
    store = dist.PrefixStore(f"group_{next(_groups)}", _meeting_store(size, local_size))
    dist.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=size, timeout=_PATIENCE)
    try:
        yield World(device, dist.get_rank(), size)
        dist.barrier()  # nobody closes a connection that another still reads from
    except RuntimeError as error:
        if not any(words in str(error).casefold() for words in _LOST):
            raise
        failure = RunFailure("lost the connection to another process; its own message says why it left")
        failure.rank = dist.get_rank()
        raise failure from error
    finally:
        dist.destroy_process_group()


#: How gloo and NCCL say that the process at the other end is gone.
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "remote process exited")

#: How long processes wait for each other.
_PATIENCE = timedelta(minutes=30)

#: Groups that this process joined: each finds the addresses of its own members only.
_groups = itertools.count()


def _agent_store() -> dist.Store:
    """The store that torchrun's agent serves, as if it were new after each restart."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=_PATIENCE)
    return dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _has_agent_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _meeting_store(size: int, local_size: int) -> dist.Store:
    """Where the processes find each other; on one machine, restarts of torchrun are safe.

    A restarted group would find the addresses of its dead predecessor in the agent's store, and wait for them
    (pytorch issue 135712). Agents of several machines do not count restarts alike: there torch's own way is kept.
    """
    if _has_agent_store() and size == local_size:
        return _agent_store()
    return next(dist.rendezvous("env://", timeout=_PATIENCE))[0]


def first_of_all(action: Callable[[], None]) -> None:
    """Of all processes that `torchrun` started and that call this, one runs `action`; the others wait for it.

    It needs no process group: processes that have not begun to join one, or have left it, may call it.
    """
    if not _has_agent_store():  # the store lives in a process of the run
        if os.environ.get("RANK", "0") == "0":
            action()
        return
    try:
        store = _agent_store()
        attempt = "nge_search/first"
        if store.add(attempt, 1) == 1:
            action()
            store.set(f"{attempt}/done", "")
        else:
            store.wait([f"{attempt}/done"])
    except RuntimeError:  # the agent is gone, so there is nobody left who could print it instead
        action()
