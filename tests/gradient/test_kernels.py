"""Searches with either kernel: the same numbers, and each other's checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.cli import main
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.session import open_session
from nge_search.gradient.run import build_task
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig


@pytest.fixture
def words(tmp_path, tiny_search):
    """A tiny search on noise: on digits, max pooling meets ties, which rounding decides."""
    for number in range(64):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels_HWC = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels_HWC).save(folder / f"{number}.png")
    data = ("data.name=folder", f"data.root={tmp_path / 'images'}", "data.cutout=0", "data.image_size=8")
    return [*tiny_search, "precision=fp64", "supernet.channels=4", "data.limit=0", *data]


def probabilities(words, kernel, loop, order, steps):
    """The P after so many steps of either kind."""
    settings = [f"supernet.kernel={kernel}", f"search.loop={loop}", f"search.order={order}"]
    with open_session(load_config(SearchConfig, None, [*words, *settings])) as session:
        task = build_task(session)
        phases = [phase for phase in task.phases if phase.trains]
        done = epoch = 0
        while done < steps:
            for phase in phases:
                phase.start(epoch % task.epochs)
                for batches in phase.batches(epoch, 0):
                    phase.step(*batches)
                    done += 1
            epoch += 1
        return [p_EO.clone() for p_EO in task.architecture.probabilities()]


@pytest.mark.parametrize(
    ("loop", "order", "steps", "rate"),
    [
        ("epochwise", "first", 24, 0.02),
        ("batchwise", "second", 12, 0.15),
        pytest.param("epochwise", "first", 50, 0.01, marks=pytest.mark.slow),
        pytest.param("batchwise", "second", 50, 0.01, marks=pytest.mark.slow),
    ],
)
def test_many_steps_give_the_same_probabilities(words, tmp_path, loop, order, steps, rate):
    settings = [*words, "search.epochs=30", f"embedding.learning_rate={rate}"]
    found = {
        kernel: probabilities([*settings, f"run.dir={tmp_path / kernel}"], kernel, loop, order, steps)
        for kernel in ("reference", "fused")
    }
    for one, other in zip(found["fused"], found["reference"]):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
        assert float((one - 1 / one.shape[1]).abs().max()) > 0.02  # they did move


@pytest.mark.parametrize(("first", "second"), [("reference", "fused"), ("fused", "reference")])
def test_one_kernel_goes_on_where_the_other_stopped(words, tmp_path, capsys, monkeypatch, first, second):
    """A checkpoint of one kernel, weights and momenta, loads into the other and gives the same next steps."""
    run, name = tmp_path / "run", "supernet.kernel"
    common = [*words, "run.progress=lines", "search.epochs=2"]
    saved = CheckpointFolder.save

    def stop(folder, state, step):
        path = saved(folder, state, step)
        if state["position"]["epoch"] == 1:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", stop)
        assert main(["search", *common, f"{name}={first}", f"run.dir={run}"]) == 130
    assert main(["search", *common, f"{name}={second}", f"run.dir={run}"]) == 0
    assert f"{name} was {first}, is {second}" in capsys.readouterr().out
    assert main(["search", *common, f"{name}={second}", f"run.dir={tmp_path / 'whole'}"]) == 0
    ends = [
        CheckpointFolder(folder / "checkpoints").load_newest()[0]["task"] for folder in (run, tmp_path / "whole")
    ]
    for part in ("supernet", "embedding"):
        for key, value in ends[0][part].items():
            torch.testing.assert_close(value, ends[1][part][key], rtol=1e-7, atol=1e-9)


def test_a_resumed_fast_search_ends_bit_for_bit_like_an_undisturbed_one(words, tmp_path, monkeypatch):
    common = [*words, "supernet.kernel=fused", "search.epochs=2", "run.checkpoint_seconds=0"]
    saved, counts = CheckpointFolder.save, []

    def stop(folder, state, step):
        path = saved(folder, state, step)
        counts.append(step)
        if len(counts) == 3:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", stop)
        assert main(["search", *common, f"run.dir={tmp_path / 'run'}"]) == 130
    for name in ("run", "whole"):
        assert main(["search", *common, f"run.dir={tmp_path / name}"]) == 0
    ends = [CheckpointFolder(tmp_path / name / "checkpoints").load_newest()[0]["task"] for name in ("run", "whole")]
    assert all(torch.equal(value, ends[1]["supernet"][key]) for key, value in ends[0]["supernet"].items())
    momenta = [end["weight_optimiser"]["state"] for end in ends]
    assert all(torch.equal(m["momentum_buffer"], momenta[1][n]["momentum_buffer"]) for n, m in momenta[0].items())
