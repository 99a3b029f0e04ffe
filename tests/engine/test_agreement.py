"""What ranks compare before they train, with the other ranks' answers given."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import nge_search
from nge_search.engine import agreement
from nge_search.engine.agreement import (
    PER_MACHINE,
    first_disagreement,
    require_same_settings,
    require_same_start,
)
from nge_search.engine.distributed import World
from nge_search.errors import UserError
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import flatten, to_dict
from nge_search.settings.search import SearchConfig


class Two(World):
    """Rank 0 of two; the other one has answered what is in `others`."""

    others: list[Any] = []  # noqa: RUF012

    def gather_objects(self, value: Any) -> list[Any]:
        self.others.append(value)
        return [self.others[0], value]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(Two, "others", [])
    return Two(torch.device("cpu"), 0, 2)


def changed(config: EvalConfig, key: str, value: Any) -> EvalConfig:
    section, _, name = key.rpartition(".")
    if not section:
        return dataclasses.replace(config, **{name: value})
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: value})})


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 1), ("data.limit", 7), ("train.epochs", 9), ("run.log_every", 3), ("precision", "bf16")],
)
def test_another_setting_is_named_with_its_rank(two: World, key: str, value: Any) -> None:
    require_same_settings(two, EvalConfig())
    with pytest.raises(UserError, match=rf"rank 1 differs from rank 0 in {key}: '?{value}'?,") as refused:
        require_same_settings(two, changed(EvalConfig(), key, value))
    assert refused.value.shared


@pytest.mark.parametrize(("key", "value"), [("data.root", "/elsewhere"), ("threads", 3), ("data.workers", 9)])
def test_what_fits_a_machine_may_differ(two: World, key: str, value: Any) -> None:
    require_same_settings(two, EvalConfig())
    require_same_settings(two, changed(EvalConfig(), key, value))


def test_another_kind_of_run_is_named(two: World) -> None:
    require_same_settings(two, EvalConfig())
    with pytest.raises(UserError, match="the kind of run: 'search', on rank 0 'eval'"):
        require_same_settings(two, SearchConfig())


def test_settings_that_may_differ_exist() -> None:
    known = {name for schema in (EvalConfig, SearchConfig) for name, _ in flatten(to_dict(schema()))}
    assert known >= PER_MACHINE


def test_other_code_is_named(two: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(
        Path(nge_search.__file__).parent, tmp_path / "nge_search", ignore=shutil.ignore_patterns("__pycache__")
    )
    digest = agreement.code_digest.__wrapped__
    own = digest()
    monkeypatch.setattr(agreement, "__file__", str(copy / "engine" / "agreement.py"))
    assert digest() == own  # wherever it is installed
    (copy / "data" / "split.py").write_text("changed = True\n")
    assert digest() != own
    require_same_settings(two, EvalConfig())
    monkeypatch.setattr(agreement, "code_digest", digest)
    with pytest.raises(UserError, match=r"rank 1 differs from rank 0 in the code of nge_search"):
        require_same_settings(two, EvalConfig())


def test_another_genotype_or_other_weights_are_named(two: World) -> None:
    state = {"network": {"weight": torch.ones(3)}}
    require_same_start(two, {"genotype.json": {"a": 1}}, lambda: state)
    with pytest.raises(UserError, match=r"rank 1 differs from rank 0 in genotype\.json"):
        require_same_start(two, {"genotype.json": {"a": 2}}, lambda: state)
    state["network"]["weight"] = torch.ones(3).nextafter(torch.tensor(2.0))
    with pytest.raises(UserError, match="in the tensor '/network/weight'"):
        require_same_start(two, {"genotype.json": {"a": 1}}, lambda: state)


def test_the_first_rank_that_differs_is_named() -> None:
    assert first_disagreement([{"a": 1}, {"a": 1}, {"a": 1}]) is None
    assert first_disagreement([{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 0}]) == (2, "b", 3, 2)
    assert first_disagreement([{"a": 1}, {"a": 1, "c": 4}]) == (1, "c", 4, None)


def test_a_single_process_compares_nothing() -> None:
    world = World(torch.device("cpu"))
    require_same_settings(world, EvalConfig())
    require_same_start(world, {}, lambda: pytest.fail("no state is asked for"))
