"""Checkpoints that are damaged, somebody else's, or of another configuration."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nge_search.cli import main

Damage = Callable[[Path], object]


def checkpoints(run: Path) -> list[Path]:
    """Oldest first."""
    return sorted((run / "checkpoints").iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_with(path: Path, content: bytes) -> None:
    """Put `content` in the place of a checkpoint, under the name that its own checksum asks for."""
    path.unlink()
    path.with_name(renamed(path, hashlib.sha256(content).hexdigest())).write_bytes(content)


def renamed(path: Path, digest: str) -> str:
    """A checkpoint's name with another checksum, of which it holds the first 16 digits."""
    return re.sub(r"[0-9a-f]{16}(?=\.pt$)", digest[:16], path.name)


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """Save a checkpoint again after `alter`, with a checksum that holds."""
    state = torch.load(path, weights_only=True)
    alter(state)
    replace_with(path, saved(state))


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


class Harmful:
    """Unpickling it creates the folder `pwned`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def all_checkpoints(damage: Damage) -> Damage:
    return lambda run: [damage(path) for path in checkpoints(run)]


def rename_tensor(state: dict[str, Any]) -> None:
    weights = state["task"]["supernet"]
    weights["renamed"] = weights.pop(next(iter(weights)))


def reshape_tensor(state: dict[str, Any]) -> None:
    weights = state["task"]["supernet"]
    weights[next(iter(weights))] = torch.zeros(3)


def without(*keys: str) -> Damage:
    """All checkpoints lack a part."""

    def alter(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return all_checkpoints(lambda path: change(path, alter))


#: How the unfinished run is damaged, and what the message must hold.
DAMAGED: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "all checkpoints truncated": (
        all_checkpoints(truncate),
        ("every checkpoint in unfinished/checkpoints is damaged", "run.overwrite=true"),
    ),
    "all checkpoints flipped": (all_checkpoints(flip_a_bit), ("every checkpoint", "damaged", "run.overwrite=true")),
    "all checkpoints empty": (all_checkpoints(empty), ("every checkpoint", "damaged", "run.overwrite=true")),
    "one truncated, one flipped": (
        lambda run: [truncate(checkpoints(run)[0]), flip_a_bit(checkpoints(run)[1])],
        ("every checkpoint", "damaged"),
    ),
    "empty, right checksum": (all_checkpoints(lambda path: replace_with(path, b"")), ("unfinished/checkpoints",)),
    "text, right checksum": (
        all_checkpoints(lambda path: replace_with(path, b"text")),
        ("unfinished/checkpoints",),
    ),
    "somebody else's dictionary": (
        all_checkpoints(lambda path: replace_with(path, saved({"epoch": 3}))),
        ("unfinished/checkpoints",),
    ),
    "somebody else's list": (
        all_checkpoints(lambda path: replace_with(path, saved([1, 2]))),
        ("unfinished/checkpoints",),
    ),
    "harmful pickle": (
        all_checkpoints(lambda path: replace_with(path, pickle.dumps(Harmful(), protocol=2))),
        ("unfinished/checkpoints",),
    ),
    "written by another version": (
        all_checkpoints(lambda path: change(path, lambda state: state.update(format="nge-checkpoint/9"))),
        ("unfinished/checkpoints", "nge-checkpoint/9", "nge-checkpoint/2"),
    ),
    "no settings": (without("config"), ("unfinished/checkpoints", "'config' is missing")),
    "no fingerprint of the data": (without("data"), ("'data' is missing",)),
    "no place": (without("position", "phase"), ("'phase' is missing",)),
    "no momenta": (without("task", "weight_optimiser", "state"), ("unfinished/checkpoints", "'state' is missing")),
    "no embedding": (without("task", "embedding"), ("unfinished/checkpoints", "damaged")),
    "no generator": (without("random", "numpy"), ("unfinished/checkpoints", "'random'")),
    "tensors among the settings": (
        all_checkpoints(lambda path: change(path, lambda state: state["config"].update(seed=torch.zeros(3)))),
        ("unfinished/checkpoints", "'config' is not of JSON's values"),
    ),
    "a step that the phase does not have": (
        all_checkpoints(lambda path: change(path, lambda state: state["position"].update(step=10**9))),
        ("unfinished/checkpoints", "'position' is step 1000000000 of"),
    ),
    "tensor of another name": (
        all_checkpoints(lambda path: change(path, rename_tensor)),
        ("tensor", "unfinished/checkpoints/", "another architecture"),
    ),
    "tensor of another shape": (
        all_checkpoints(lambda path: change(path, reshape_tensor)),
        ("tensor", "unfinished/checkpoints/", "(3,)"),
    ),
}

#: A change of settings, and what the message must hold.
OTHER_SETTINGS = {
    "search.learning_rate=0.1": ("search.learning_rate was 0.025, now 0.1",),
    "search.epochs=4": ("search.epochs was 3, now 4",),
    "seed=1": ("seed was 0, now 1",),
    "supernet.operations=[skip_connect,sep_conv_3x3]": ("supernet.operations was ['skip_connect', 'max_pool_3x3'",),
    "data.flip=false": ("data.flip was None, now False",),
    "embedding.kind=direct": ("embedding.kind was 'nge', now 'direct'",),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name: str, unfinished: Path, resume: list[str], refuse: Callable[..., str]) -> None:
    damage, says = DAMAGED[name]
    damage(unfinished)
    refuse(*resume, says=says, creates="nothing")


def test_a_refused_checkpoint_costs_no_recorded_epoch(
    unfinished: Path, resume: list[str], refuse: Callable[..., str]
) -> None:
    """Epochs that were recorded after the checkpoint are dropped when the run goes on, and not before."""
    path = unfinished / "metrics.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    without("task", "supernet")(unfinished)
    refuse(*resume, says=("unfinished/checkpoints",), creates="nothing")


@pytest.mark.parametrize("word", OTHER_SETTINGS)
def test_checkpoint_of_another_config(
    word: str, unfinished: Path, resume: list[str], refuse: Callable[..., str]
) -> None:
    """config.yaml was changed by hand and agrees; the checkpoint knows better."""
    path = unfinished / "config.yaml"
    config = yaml.safe_load(path.read_text())
    key, _, value = word.partition("=")
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(config))
    refuse(*resume, word, says=("checkpoint unfinished/checkpoints/", *OTHER_SETTINGS[word]))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
def test_damaged_newest_checkpoint(
    damage: Damage, unfinished: Path, resume: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Recovers, and says so: its checksum gives it away, and the one before it is used."""
    older, newest = checkpoints(unfinished)
    damage(newest)
    assert main([*resume, "run.progress=lines", "run.dir=unfinished"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    damaged = f"checkpoint unfinished/checkpoints/{newest.name} is damaged: its content does not match its checksum"
    position = lines.index(f"{damaged}; using the one before it")
    assert lines[position + 1].startswith("resuming at epoch 3, step ")
    assert lines[position + 1].endswith(f" (unfinished/checkpoints/{older.name})")
    assert err == ""
    assert json.loads((unfinished / "summary.json").read_text())["epochs"] == 3
