"""Every part of a checkpoint, missing or mistyped: named in one line, before anything is taken from it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from nge_search.engine.checkpoint import random_state, require_same_tensors, restore_random_state
from nge_search.engine.checkpoint_parts import load_optimiser, read_best, read_parts
from nge_search.errors import UserError

SOUND: dict[str, Any] = {
    "position": {"epoch": 2, "phase": 1, "step": 3, "total": 40},
    "rows": 2,
    "last_row": {"epoch": 1, "loss": 0.5},
    "seconds": 12.5,
    "train": [640, 10.0, 32, 0.5],
    "task": {"network": {}},
    "meters": torch.zeros(2, 5, dtype=torch.float64),
    "buffers": torch.zeros(2, 7, dtype=torch.float64),
    "random": {},
    "exactness": {"torch": "2"},
}


def read(state: dict[str, Any]) -> Any:
    return read_parts(state, "checkpoint x", epochs=4, phases=2, counts=5, numbers=7)


def test_sound_parts_are_taken_as_they_are() -> None:
    parts = read(SOUND)
    assert (parts.position, parts.rows, parts.train) == (SOUND["position"], 2, (640, 10.0, 32, 0.5))
    assert read({**SOUND, "buffers": None}).buffers_RM is None
    assert read({**SOUND, "seconds": 0.0}).seconds == 0


@pytest.mark.parametrize("name", SOUND)
def test_a_part_is_missing(name: str) -> None:
    state = {key: value for key, value in SOUND.items() if key != name}
    with pytest.raises(UserError, match=f"checkpoint x is damaged: .*'{name}'"):
        read(state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position", {"epoch": 2, "phase": 99, "step": 3, "total": 40}),
        ("position", {"epoch": -1, "phase": 0, "step": 3, "total": 40}),
        ("position", {"epoch": 2, "phase": 0, "step": 3}),
        ("position", {"epoch": 2.0, "phase": 0, "step": 3, "total": 40}),
        ("position", {"epoch": 5, "phase": 0, "step": 0, "total": 40}),
        ("position", [2, 1, 3, 40]),
        ("rows", 0),
        ("rows", True),
        ("rows", torch.tensor(2)),
        ("last_row", {"loss": torch.zeros(3)}),
        ("last_row", []),
        ("seconds", math.nan),
        ("seconds", "12"),
        ("seconds", -math.inf),
        ("train", [1, 2, 3]),
        ("train", [1, 2, 3, math.inf]),
        ("train", {"images": 1}),
        ("task", None),
        ("meters", torch.zeros(2, 6, dtype=torch.float64)),
        ("meters", torch.zeros(2, 5)),
        ("meters", torch.zeros(0, 5, dtype=torch.float64)),
        ("meters", [[0.0] * 5] * 2),
        ("buffers", torch.zeros(3, 7, dtype=torch.float64)),
        ("buffers", torch.zeros(14, dtype=torch.float64)),
        ("random", 5),
        ("exactness", {"torch": torch.zeros(2)}),
    ],
)
def test_a_part_is_mistyped(name: str, value: Any) -> None:
    with pytest.raises(UserError, match="checkpoint x is damaged"):
        read({**SOUND, name: value})


# -- optimisers


def trained(kind: str) -> torch.optim.Optimizer:
    weights = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4))]
    groups = [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:]}]
    made = {
        "SGD": lambda: torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True),
        "Adam": lambda: torch.optim.Adam(groups, lr=0.1, fused=True),
    }[kind]()
    for step in range(3):
        for weight in weights:
            weight.grad = torch.full_like(weight, step + 1.0)
        made.step()
    return made


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_an_optimiser_goes_on_as_it_would_have(kind: str) -> None:
    first, second = trained(kind), trained(kind)
    second.state.clear()
    state = copy.deepcopy(first.state_dict())
    state["param_groups"][0] |= {"lr": 0.03, "weight_decay": 55, "fused": "yes", "capturable": True}
    load_optimiser(second, state, "x")
    assert [group["lr"] for group in second.param_groups] == [0.03, 0.1]
    assert second.param_groups[0]["weight_decay"] == 0.1  # the configuration's
    first.param_groups[0]["lr"] = 0.03
    for made in (first, second):
        for group in made.param_groups:
            group["params"][0].grad.fill_(2)
        made.step()
    for one, other in zip(first.param_groups, second.param_groups):
        assert torch.equal(one["params"][0], other["params"][0])


def changed(state: dict[str, Any], *keys: Any, value: Any) -> dict[str, Any]:
    state = part = copy.deepcopy(state)
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return state


@pytest.mark.parametrize(
    ("kind", "keys", "value"),
    [
        ("SGD", ("state",), None),
        ("SGD", ("state", 0), {}),
        ("SGD", ("state", 0), 5),
        ("SGD", ("state", 7), {"momentum_buffer": torch.zeros(4)}),
        ("SGD", ("state", -1), {"momentum_buffer": torch.zeros(4)}),
        ("SGD", ("state", "0"), {"momentum_buffer": torch.zeros(4)}),
        ("SGD", ("state", 0, "momentum_buffer"), torch.zeros(2, 3)),
        ("SGD", ("state", 0, "momentum_buffer"), torch.zeros(3, 2, dtype=torch.int64)),
        ("SGD", ("state", 1, "momentum_buffer"), [0.0] * 4),
        ("SGD", ("param_groups",), []),
        ("SGD", ("param_groups", 1), "x"),
        ("SGD", ("param_groups", 1, "lr"), "0.1"),
        ("SGD", ("param_groups", 1, "lr"), math.nan),
        ("Adam", ("state", 0), {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3, 2)}),
        ("Adam", ("state", 0, "step"), torch.tensor([3.0])),
        ("Adam", ("state", 0, "step"), 3),
        ("Adam", ("state", 1, "exp_avg_sq"), torch.zeros(3)),
    ],
)
def test_odd_states_of_optimisers(kind: str, keys: tuple[Any, ...], value: Any) -> None:
    made = trained(kind)
    before = copy.deepcopy(made.state_dict())
    with pytest.raises(UserError, match="checkpoint x is damaged"):
        load_optimiser(made, changed(before, *keys, value=value), "checkpoint x")
    assert str(made.state_dict()) == str(before)
    for state in (None, [], {}):
        with pytest.raises(UserError, match="checkpoint x is damaged"):
            load_optimiser(made, state, "checkpoint x")


# -- random generators, best epochs, weights


RANDOM = {
    "no generators": {},
    "of Python, cut": {"python": (3, (1, 2, 3), None)},
    "of Python, odd": {"python": (3, tuple(["x"] * 625), None)},
    "of NumPy, cut": {"numpy": ("MT19937", torch.zeros(5, dtype=torch.int64), 0, 0, 0.0)},
    "of NumPy, beyond its end": {"numpy": ("MT19937", torch.zeros(624, dtype=torch.int64), 10**6, 0, 0.0)},
    "of NumPy, another": {"numpy": ("PCG64", torch.zeros(624, dtype=torch.int64), 0, 0, 0.0)},
    "of NumPy, a list": {"numpy": [1, 2]},
    "of torch, cut": {"torch": torch.zeros(10, dtype=torch.uint8)},
    "of torch, odd": {"torch": torch.zeros(5056)},
    "of torch, zeros": {"torch": torch.zeros(5056, dtype=torch.uint8)},
    "of torch, text": {"torch": "state"},
}


@pytest.mark.parametrize("name", RANDOM)
def test_odd_random_generators(name: str) -> None:
    before = random_state()
    state = {**before, **RANDOM[name]} if RANDOM[name] else {}
    try:
        with pytest.raises(UserError, match="checkpoint x is damaged: 'random'"):
            restore_random_state(state, "checkpoint x")
    finally:
        restore_random_state(before)


def test_the_best_epoch() -> None:
    assert read_best({"best": {}}, "top1", 3, "x") == {}
    assert read_best({"best": {"epoch": 2, "top1": 5.5}}, "top1", 3, "x") == {"epoch": 2, "top1": 5.5}
    for best in (None, {"epoch": 3, "top1": 5.5}, {"epoch": 0}, {"epoch": 0, "top1": "5"}, {"top1": 5.5}):
        with pytest.raises(UserError, match="x is damaged"):
            read_best({"best": best}, "top1", 3, "x")


@pytest.mark.parametrize("given", [None, [], {"weight": [1.0]}, {"weight": None}, {"weight": torch.zeros(2), 5: 1}])
def test_weights_that_are_none(given: Any) -> None:
    with pytest.raises(UserError, match="checkpoint x"):
        require_same_tensors({"weight": torch.zeros(2)}, given, "checkpoint x")
