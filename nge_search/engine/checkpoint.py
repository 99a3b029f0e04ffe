"""Checkpoints: written atomically, named by their own checksum, the last two kept.

A file is called `<number>-step-<step>-<first 16 hex digits of its SHA-256>.pt`, so a truncated or altered one
betrays itself by its name, and the file stays an ordinary one for `torch.load(..., weights_only=True)`. The
number counts the checkpoints of a run: their order does not hang on file times, which copies lose.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nge_search.errors import UserError, plain, shorten
from nge_search.files import open_regular, require_regular, write_atomic
from nge_search.tensor_reader import load_saved, own_tensors

#: How checkpoints are named; whatever else lies in their folder is somebody else's.
NAME = re.compile(r"(\d{6})-step-(\d+)-([0-9a-f]{16})\.pt")

_LARGEST_BYTES = 1 << 33


class CheckpointFolder:
    """The `checkpoints/` folder of a run."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder
        self.keep = keep
        self._damaged: list[Path] = []

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Write `state`, then remove all but the newest `keep` undamaged checkpoints."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        existing = self.newest_first()
        number = int(existing[0].name[:6]) + 1 if existing else 1
        path = self.folder / f"{number:06d}-step-{step}-{_digest(content)}.pt"
        self.folder.mkdir(exist_ok=True)  # without its parents: a run folder that was deleted is not made anew
        write_atomic(path, content)
        good = [other for other in existing if other not in self._damaged]
        for old in (*good[self.keep - 1 :], *self._damaged):
            old.unlink(missing_ok=True)
        self._damaged = []
        return path

    def newest_first(self) -> list[Path]:
        """The checkpoint files by their numbers."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)

    def load_newest(self) -> tuple[dict[str, Any] | None, Path | None, list[str]]:
        """The newest undamaged state, its file, and a line for each damaged file that was passed over.

        (None, None, []) where there is no checkpoint.

        Raises:
            UserError: there are checkpoints and all of them are damaged, or one is no ordinary file.
        """
        damaged: list[str] = []
        paths = self.newest_first()
        for path in paths:
            require_regular(path, _LARGEST_BYTES)  # what was never a checkpoint is neither passed over nor deleted
            try:
                return read_checkpoint(path), path, damaged
            except UserError as error:
                damaged.append(str(error))
                self._damaged.append(path)
        if paths:
            raise UserError(
                f"every checkpoint in {self.folder} is damaged ({len(paths)} files); "
                f"restore one from a backup, or start anew with run.overwrite=true"
            )
        return None, None, []


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _digest_of_file(path: Path) -> str:
    found = hashlib.sha256()
    with open_regular(path, _LARGEST_BYTES) as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:16]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load one checkpoint onto the CPU.

    Raises:
        UserError: its content does not match its checksum, or is not a dictionary of tensors and plain values.
    """
    match = NAME.fullmatch(path.name)
    if match is None or _digest_of_file(path) != match[3]:
        raise UserError(f"checkpoint {path} is damaged: its content does not match its checksum")
    refusal = f"{path} is not a checkpoint of this program"
    state = load_saved(path, refusal, of_tensors=True)
    if not isinstance(state, dict):
        raise UserError(f"{refusal} (it holds {shorten(state)})")
    return own_tensors(state, refusal, path.stat().st_size)


def load_module(module: nn.Module, state: Any, source: str) -> None:
    """`module.load_state_dict` after a check that names the first tensor that differs in shape or type."""
    require_same_tensors(module.state_dict(), state, source)
    module.load_state_dict(state)


def require_same_tensors(own: dict[str, Any], state: Any, source: str) -> None:
    """Raise UserError, naming the first tensor in which they differ, unless both have the same names and shapes."""
    if not isinstance(state, dict):
        raise UserError(f"{source} is damaged: it has {shorten(state)} where weights should be")
    for name in [*own, *(name for name in state if name not in own)]:  # in the model's order
        if name not in state or name not in own:
            where = "missing from" if name not in state else "unknown to the model but present in"
            raise UserError(f"tensor '{plain(name)}' is {where} {source}; it belongs to another architecture")
        given, expected = state[name], own[name]
        if not isinstance(given, Tensor):
            raise UserError(f"{source} is damaged: '{name}' is {shorten(given)}, not a tensor")
        if given.shape != expected.shape or given.dtype != expected.dtype:
            raise UserError(
                f"{source}: tensor '{name}' is {given.dtype} {tuple(given.shape)}, "
                f"the model needs {expected.dtype} {tuple(expected.shape)}"
            )


def random_state() -> dict[str, Any]:
    """The state of every random generator, in types that `weights_only` loading accepts."""
    version, values, gauss = random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002
    assert isinstance(of_numpy, tuple)  # a dictionary only where somebody put another generator in its place
    name, keys, position, has_gauss, cached = of_numpy
    on_gpu = torch.cuda.is_initialized()  # a run on the CPU takes no GPU
    return {
        "python": (version, values, gauss),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
    }


def restore_random_state(state: dict[str, Any], source: str = "the state") -> None:
    """Undo everything drawn since `random_state` returned `state`.

    Raises:
        UserError: a state that is none; names `source`.
    """
    try:
        name, keys, position, has_gauss, cached = state["numpy"]
        on_gpu = state["cuda"]
        if not (keys.shape == (624,) and 0 <= position <= 624):  # NumPy would read beyond its keys
            raise ValueError("NumPy's has the wrong size")
        random.setstate(state["python"])
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        if on_gpu is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(on_gpu)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"{source} is damaged: 'random' holds no random generators ({shorten(error)})") from None


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
