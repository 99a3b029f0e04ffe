"""Golden runs: stored losses of first steps. A change that is not meant to change numbers must not.

Most images are noise. On digits max pooling meets ties between pixels of an even background, which rounding
decides, so that two machines differ after few steps even in float64: there the tolerance is larger.

After a change that is meant to, `python tests/golden/test_golden.py` writes the new values.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.architecture.load import load_genotype
from nge_search.data import load_dataset
from nge_search.data.distributed import load_everywhere
from nge_search.engine.session import open_session
from nge_search.engine.task import Phase, Task
from nge_search.gradient.run import build_task as build_search
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig
from nge_search.training.run import build_task as build_training

STEPS = 5
SETTINGS = (
    "threads=1",
    "run.progress=none",
    "precision=fp64",  # in fp32, CPUs differ by more than a bug might
    "data.name=folder",
    "data.image_size=12",
    "data.cutout=3",
)
#: Of searches: the paper's form, and a small supernet.
SEARCH = (
    *("search.mixture=weighted", "search.warmup_epochs=0", "search.average=false", "search.selection=argmax"),
    *("embedding.edges=printed", "supernet.channels=4", "supernet.cells=3", "search.batch_size=12"),
)


def settings(folder: Path, *more: str) -> list[str]:
    """Settings of a run in `folder` on images that are written there."""
    for number in range(120):
        kind = folder / "images" / "abc"[number % 3]
        kind.mkdir(parents=True, exist_ok=True)
        pixels_HWC = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels_HWC).save(kind / f"{number}.png")
    return [*SETTINGS, f"data.root={folder / 'images'}", f"run.dir={folder / 'run'}", *more]


def first_losses(task: Task, phases: list[Phase]) -> dict[str, list[float]]:
    """Mean loss of each of the first steps of each phase, by the phase's name."""
    found: dict[str, list[float]] = {}
    for phase in phases:
        phase.start(1)  # the second epoch: its schedules have left their initial values
        meter = task.meters[phase.name]
        found[phase.name] = []
        for _, batches in zip(range(STEPS), phase.batches(1, 0)):
            meter.reset()
            phase.step(*batches)
            found[phase.name].append(meter.result(task.world)["loss"])
    return found


def search(folder: Path, kernel: str = "reference") -> dict[str, list[float]]:
    """Weight and architecture steps of a small search."""
    words = settings(folder, *SEARCH, f"supernet.kernel={kernel}")
    with open_session(load_config(SearchConfig, None, words)) as session:
        task = build_search(session)
        return first_losses(task, task.phases[:2])


def evaluate(folder: Path) -> dict[str, list[float]]:
    """Training and test steps of a small retraining, with all its regularisers but the auxiliary head."""
    small = (
        "network.genotype=darts_v2",
        "network.channels=4",
        "network.cells=3",
        "network.drop_path=0.3",
        "train.batch_size=12",
        "train.eval_batch_size=12",
        "train.epochs=4",
        "train.label_smoothing=0.1",
    )
    with open_session(load_config(EvalConfig, None, settings(folder, *small))) as session:
        genotype = load_genotype(session.config.network.genotype)
        dataset = load_everywhere(session, session.config.data, load_dataset)
        task = build_training(session.config, genotype, dataset, session.world)
        return first_losses(task, task.phases)


def digits(folder: Path) -> tuple[dict[str, list[float]], dict]:
    """The first steps of the small retraining on real digits as users run it, and the state they end in."""
    path = Path(__file__).parents[2] / "configs" / "eval" / "digits.yaml"
    words = ["run.progress=none", f"run.dir={folder / 'run'}", "network.drop_path=0.2"]
    with open_session(load_config(EvalConfig, path, words)) as session:
        genotype = load_genotype(session.config.network.genotype)
        dataset = load_everywhere(session, session.config.data, load_dataset)
        task = build_training(session.config, genotype, dataset, session.world)
        return first_losses(task, task.phases), task.state_dict()


RUNS: dict[str, Callable[[Path], dict[str, list[float]]]] = {
    "search": search,
    "eval": evaluate,
    "digits": lambda folder: digits(folder)[0],
}


def stored(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.json")


@pytest.mark.parametrize("name", RUNS)
def test_first_steps_match_the_stored_losses(name, tmp_path):
    expected = json.loads(stored(name).read_text())
    found = RUNS[name](tmp_path)
    assert found.keys() == expected.keys()
    for phase, values in expected.items():
        assert found[phase] == pytest.approx(values, rel=1e-3 if name == "digits" else 1e-6)


def test_two_runs_on_digits_are_the_same_bit_for_bit(tmp_path):
    (losses, state), (again, same) = digits(tmp_path / "one"), digits(tmp_path / "two")
    assert losses == again
    assert state["network"].keys() == same["network"].keys()
    assert all(torch.equal(tensor, same["network"][name]) for name, tensor in state["network"].items())
    assert str(state["optimiser"]) == str(same["optimiser"])


def test_the_fast_kernel_matches_them_too(tmp_path):
    expected = json.loads(stored("search").read_text())
    found = search(tmp_path, "fused")
    for phase, values in expected.items():
        assert found[phase] == pytest.approx(values, rel=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, run in RUNS.items():
        with tempfile.TemporaryDirectory() as scratch:
            stored(name).write_text(json.dumps(run(Path(scratch)), indent=2) + "\n")
