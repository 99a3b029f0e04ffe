"""What all ranks must have alike before they train: settings, code, initial state. The first difference is named.

Places, and what fits a machine, may differ from node to node: `PER_MACHINE`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nge_search.engine.distributed import World
from nge_search.engine.loop import named_tensors
from nge_search.errors import UserError, shorten
from nge_search.settings.load import flatten, to_dict
from nge_search.settings.run import RunningConfig

#: Settings that may differ between ranks: where things are, and how much of its machine a rank uses. What the files
#: of `network.genotype` and `network.weights` hold is compared.
PER_MACHINE = frozenset(
    {
        "data.download", "data.resident", "data.resident_megabytes", "data.root", "data.workers",
        "evaluator.processes", "network.genotype", "network.weights", "run.dir", "run.name", "run.progress",
        "run.tensorboard", "threads",
    }
)  # fmt: skip


def require_same_settings(world: World, config: RunningConfig) -> None:
    """Raise UserError on every rank unless all run the same code with the same settings."""
    if world.size == 1:
        return
    settings = dict(flatten(to_dict(config)))
    own = {
        "the kind of run": config.kind,
        "the code of nge_search (digest)": code_digest(),
        "torch": str(torch.__version__),
        **{name: value for name, value in settings.items() if name not in PER_MACHINE},
    }
    require_same(world, own, "start all of them alike")


def require_same_start(world: World, documents: Mapping[str, Any], state: Callable[[], Any]) -> None:
    """Raise UserError on every rank unless all begin with the same documents and the same tensors in `state`."""
    if world.size == 1:
        return
    own = {name: digest(json.dumps(document, sort_keys=True).encode()) for name, document in documents.items()}
    for name, tensor in named_tensors(state()).items():
        content_N = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        own[f"the tensor '{name}'"] = digest(content_N.numpy().tobytes())
    require_same(world, own, "network.genotype and network.weights must hold the same on every machine")


def first_disagreement(everyone: Sequence[Mapping[str, Any]]) -> tuple[int, str, Any, Any] | None:
    """Rank, name, its value and that of rank 0 of the first thing in which a rank differs from rank 0."""
    first = everyone[0]
    for rank, other in enumerate(everyone):
        for name in [*first, *(name for name in other if name not in first)]:
            if first.get(name) != other.get(name):
                return rank, name, other.get(name), first.get(name)
    return None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def code_digest() -> str:
    """Of all source files of this package and their names."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\n".encode("utf-8", "surrogateescape"))
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def require_same(world: World, own: Mapping[str, Any], advice: str) -> None:
    """Raise UserError, naming the first of these things that differs, on every rank unless all have the same."""
    difference = first_disagreement(world.gather_objects(dict(own)))
    if difference is not None:
        rank, name, theirs, ours = difference
        raise UserError(
            f"rank {rank} differs from rank 0 in {name}: {shorten(theirs)}, on rank 0 {shorten(ours)}; {advice}",
            shared=True,
        )
