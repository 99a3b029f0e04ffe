"""Whole training steps recorded once and replayed, without Python between their kernels: CUDA graphs.

A step of a search is thousands of small kernels; launching them one by one from Python leaves a GPU idle most of
the time. A recorded step is launched as a whole. It reads its batch from tensors of its own, into which each batch
is copied, and it repeats every number that is not a tensor: so each phase, at whose start such numbers may change
(learning rates, weights of losses), is recorded anew.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nge_search.engine.distributed import World
from nge_search.engine.task import AnyBatch
from nge_search.errors import RunFailure, UserError

#: From a step to what repeats it; the step itself need not have any effect while it is recorded.
Record = Callable[[Callable[[], None]], Callable[[], None]]

#: Steps that run one by one before a kind of step is recorded first: optimisers make their state, libraries choose
#: algorithms.
WARM_UP = 3


@functools.cache
def _recording_stream(index: int) -> torch.cuda.Stream:
    """The one stream of a device on which steps run before they are recorded, and are recorded."""
    return torch.cuda.Stream(index)


def warm_up(step: Callable[[], None]) -> None:
    """Do a step that is to be recorded: on the stream on which it will be, so that libraries are set up for it.

    PyTorch asks for a side stream: handles and workspaces of cuBLAS and cuDNN are those of a stream, and a backward
    pass goes on in the streams of its forward pass, which must not be the default one while a graph is recorded.
    """
    before = torch.cuda.current_stream()
    own = _recording_stream(torch.cuda.current_device())
    own.wait_stream(before)
    with torch.cuda.stream(own):
        step()
    before.wait_stream(own)


def record_cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step as a CUDA graph; its memory is that of all its tensors, until it is forgotten."""
    graph = torch.cuda.CUDAGraph()
    stream = _recording_stream(torch.cuda.current_device())
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):  # other threads copy batches
        step()
    return graph.replay


def choose_record(setting: str, world: World) -> Record | None:
    """What records the steps of a run, under `search.cuda_graphs=auto|always|never`; None: they run one by one.

    Raises:
        UserError: graphs are asked for where there is no GPU, or with several processes, which have to talk.
    """
    possible = world.device.type == "cuda" and world.alone
    if setting == "always" and not possible:
        why = "needs device=cuda" if world.device.type != "cuda" else "works with one process only"
        raise UserError(f"search.cuda_graphs=always {why}; use search.cuda_graphs=auto")
    return record_cuda_graph if possible and setting != "never" else None


class Recorder:
    """Runs steps, and where it can record, replays one recording for batches of the same shapes.

    Args:
        required: whether a step that cannot be recorded ends the run (RunFailure); else steps go on one by one,
            with a warning.
    """

    def __init__(self, record: Record | None, required: bool = False):
        self._record, self._required = record, required
        self._first = warm_up if record is record_cuda_graph else _at_once
        self._warm: Counter[str] = Counter()
        self.forget()

    def forget(self) -> None:
        """Drop the recording, because numbers that it repeats may change."""
        self._replay: Callable[[], None] | None = None
        self._inputs: tuple[AnyBatch, ...] = ()

    def run(self, kind: str, step: Callable[..., None], batches: tuple[AnyBatch, ...]) -> None:
        """Do a step, one of a kind; until `forget` is called all are of the same.

        Raises:
            RunFailure: it has to be recorded, and cannot.
        """
        if self._record is None:
            step(*batches)
            return
        if self._replay is None and self._warm[kind] < WARM_UP:
            self._warm[kind] += 1
            self._first(lambda: step(*batches))
            return
        if self._replay is None:
            own = tuple(_copied(batch) for batch in batches)
            try:
                self._replay = self._record(lambda: step(*own))
            except RuntimeError as error:
                self._give_up(error)
                step(*batches)
                return
            self._inputs = own
        if _shapes(batches) != _shapes(self._inputs):  # such as a last, smaller batch
            step(*batches)
            return
        for target, batch in zip(self._inputs, batches):
            for own_tensor, given in zip(target, batch):
                if isinstance(own_tensor, Tensor):
                    own_tensor.copy_(given)
        self._replay()

    def _give_up(self, error: RuntimeError) -> None:
        why = f"a step cannot be recorded as a CUDA graph ({str(error).strip().splitlines()[0]})"
        if self._required:
            raise RunFailure(f"{why}; use search.cuda_graphs=auto") from error
        warnings.warn(f"{why}; steps run one by one, which takes longer", stacklevel=3)
        self._record = None


def _at_once(step: Callable[[], None]) -> None:
    step()


def _copied(batch: AnyBatch) -> AnyBatch:
    """The same, with tensors of its own."""
    kind: Callable[..., AnyBatch] = type(batch)
    return kind(*(x.clone() if isinstance(x, Tensor) else x for x in batch))


def _shapes(batches: tuple[AnyBatch, ...]) -> list[list[Any]]:
    """Of every batch the shapes of its tensors, and its numbers."""
    return [[x.shape if isinstance(x, Tensor) else x for x in batch] for batch in batches]
