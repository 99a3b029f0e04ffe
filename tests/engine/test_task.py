"""The loop trains whatever is a task: here numbers, in a run that has no device, no images and no data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from nge_search.engine.session import Session, run
from nge_search.engine.task import Phase, Task
from nge_search.errors import UserError
from nge_search.metrics.ranks import Ranks
from nge_search.settings.base import option
from nge_search.settings.run import RunningConfig, RunSection


@dataclass
class NumbersConfig(RunningConfig):
    kind: ClassVar[str] = "numbers"
    figures: ClassVar[tuple[str, ...]] = ("mean",)

    epochs: int = option(2, "Passes over the numbers.")


class Numbers(NamedTuple):
    values_B: Tensor
    total: int


class Mean:
    """The mean of numbers, their count, and a figure that no log step shows."""

    shown: ClassVar[tuple[str, ...]] = ("mean", "absent")

    def __init__(self) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64)

    def reset(self) -> None:
        self.sums.zero_()

    def result(self, ranks: Ranks) -> dict[str, float]:
        total, count = ranks.gather_rows(self.sums).sum(dim=0).tolist()
        return {"mean": total / count, "count": count} if count else {}


class Reading(Phase):
    name = "read"

    def __init__(self, task: Averaging):
        self.task = task

    def steps(self, epoch: int) -> int:
        return 3

    def start(self, epoch: int) -> None:
        self.task.found = {"epoch": epoch}

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Numbers, ...]]:
        return ((Numbers(torch.full((4,), float(step)), 4),) for step in range(first, 3))

    def step(self, *batches: Numbers) -> None:
        values_B = batches[0].values_B.double()
        self.task.meters["read"].sums += torch.stack([values_B.sum(), torch.tensor(4.0).double()])


class Averaging(Task):
    unit = "numbers"
    tags: ClassVar[dict[str, str]] = {"read_mean": "mean/read"}
    document = "found.json"
    fingerprint = "zero to two"
    origin = "numbers.from=0"

    def __init__(self, epochs: int):
        self.epochs, self.finite = epochs, torch.ones((), dtype=torch.bool)
        self.phases, self.meters = [Reading(self)], {"read": Mean()}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], source: str) -> None: ...

    def local_buffers(self) -> list[Tensor]:
        return []

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        return {"read_mean": self.meters["read"].sums[0].item() / 12}

    def line(self, row: dict[str, Any]) -> str:
        return f"mean {row['read_mean']:.2f}"


def train(config: NumbersConfig) -> dict[str, Any]:
    def body(session: Session) -> dict[str, Any]:
        loop = session.train(Averaging(config.epochs), {"input.json": [0, 1, 2]})
        return session.summary(loop, mean=loop.last_row["read_mean"])

    return run(config, body)


def config(folder: Path, **more: Any) -> NumbersConfig:
    return NumbersConfig(run=RunSection(dir=str(folder), log_every=1, progress="lines", **more))


def test_a_task_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = train(config(tmp_path / "run"))
    assert (summary["kind"], summary["mean"], summary["epochs"]) == ("numbers", 1.0, 2)
    assert summary["numbers_per_second"] > 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["read_mean"] for row in rows] == [1.0, 1.0]
    assert all(row["numbers_per_second"] > 0 for row in rows)
    assert json.loads((tmp_path / "run" / "found.json").read_text()) == {"epoch": 1}
    assert json.loads((tmp_path / "run" / "input.json").read_text()) == [0, 1, 2]
    assert "Finished" in (tmp_path / "run" / "report.html").read_text()
    out = capsys.readouterr().out
    assert "epoch 1/2 read 2/3: mean 0.5\n" in out
    assert "epoch 2/2 done, mean 1.00, numbers/s " in out
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("mean/read")] == [1.0, 1.0]
    assert [event.value for event in events.Scalars("read_steps/mean")] == [0.0, 0.5, 1.0] * 2
    assert "speed/numbers_per_second" in events.Tags()["scalars"]
    assert train(config(tmp_path / "run")) == json.loads((tmp_path / "run" / "summary.json").read_text())


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config(tmp_path / "run"))
    (tmp_path / "run" / "summary.json").unlink()
    monkeypatch.setattr(Averaging, "fingerprint", "one to three")
    with pytest.raises(UserError, match=r"was trained on other numbers than numbers\.from=0 holds now"):
        train(config(tmp_path / "run"))
