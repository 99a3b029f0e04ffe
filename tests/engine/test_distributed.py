"""Two processes under torchrun: equal ranks, and equality with a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nge_search.engine.distributed import World, choose_device
from nge_search.errors import UserError

WORKER = Path(__file__).with_name("worker.py")


def launch(processes: int, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    """Run the worker in so many processes; torchrun also for one, so that the environments agree."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, str(WORKER), *words], capture_output=True, text=True, timeout=300, env=environment
    )
    if check:
        assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def relative_difference(name: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """||a - b|| / ||b||, for a running mean in units of its standard deviation: a mean may be zero by symmetry."""
    a, b = found[name].double(), expected[name].double()
    scale = b.norm()
    if name.endswith("running_mean"):
        scale = expected[name.replace("running_mean", "running_var")].double().sqrt().norm()
    return float((a - b).norm() / scale.clamp_min(1e-30))


def named(state, prefix=""):
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {name: t for key, value in items for name, t in named(value, f"{prefix}/{key}").items()}


@pytest.mark.parametrize("loop", ["epochwise", "batchwise"])
def test_ranks_are_bit_identical_after_every_epoch(tmp_path, tiny_search, loop):
    launch(2, "epochs", str(tmp_path), "0", *tiny_search, f"run.dir={tmp_path / 'run'}", f"search.loop={loop}")
    first, second = (torch.load(tmp_path / f"epochs-{rank}.pt") for rank in range(2))
    assert len(first) == len(second) == 2
    for one, other in zip(first, second):
        assert one.keys() == other.keys()
        groups = {name.split("/")[1] for name in one}
        assert groups == {"supernet", "embedding", "weight_optimiser", "embedding_optimiser"}
        assert any("running_mean" in name for name in one)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(first[0][name], first[1][name]) for name in first[0])


@pytest.mark.parametrize(
    ("kernel", "precision", "steps", "order", "tolerance"),
    [
        ("reference", "fp64", 20, "first", 1e-9),
        ("reference", "fp64", 4, "second", 1e-9),
        ("reference", "fp32", 1, "first", 1e-4),
        ("fused", "fp64", 20, "first", 1e-9),
        ("fused", "fp64", 4, "second", 1e-9),
    ],
)
def test_two_ranks_with_shared_statistics_equal_one(
    tmp_path, tiny_search, kernel, precision, steps, order, tolerance
):
    words = [
        *tiny_search,
        f"supernet.kernel={kernel}",
        "supernet.channels=4",
        f"precision={precision}",
        f"search.order={order}",
        "supernet.sync_statistics=true",
        "data.limit=402",
        "search.batch_size=21",  # slices of 10 and 11 images, and a last batch of 12
    ]
    for processes in (1, 2):
        run = f"run.dir={tmp_path / f'run{processes}'}"
        launch(processes, "steps", str(tmp_path), str(steps), *words, run)
    alone = named(torch.load(tmp_path / "1-0.pt"))
    for rank in range(2):
        together = named(torch.load(tmp_path / f"2-{rank}.pt"))
        assert together.keys() == alone.keys()
        assert max(relative_difference(name, together, alone) for name in alone) < tolerance


def test_without_shared_statistics_two_ranks_differ_from_one(tmp_path, tiny_search):
    """The comparison above has teeth: local statistics give other numbers."""
    words = [*tiny_search, "precision=fp64", "data.limit=402", "search.batch_size=20"]
    for processes in (1, 2):
        launch(processes, "steps", str(tmp_path), "2", *words, f"run.dir={tmp_path / f'run{processes}'}")
    alone, together = (named(torch.load(tmp_path / name)) for name in ("1-0.pt", "2-0.pt"))
    assert relative_difference("/supernet/stem.0.weight", together, alone) > 1e-6


SMALL_TRAINING = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "precision=fp64", "network.channels=4",
    "network.cells=3", "train.eval_batch_size=250",
)  # fmt: skip


@pytest.mark.parametrize("more", [(), ("train.ema_decay=0.9", "train.mixup=0.4", "train.cutmix=1")])
def test_two_ranks_equal_one_that_accumulates(tmp_path, more):
    """20 steps over several epochs, with drop-path; parts of 10 and 11 images, and a smaller last batch."""
    words = [
        *SMALL_TRAINING,
        *more,
        "data.limit=150",
        "train.batch_size=42",
        "train.epochs=9",
        "network.drop_path=0.5",
    ]
    for processes, parts in ((1, 4), (2, 2)):
        run = f"run.dir={tmp_path / f'run{processes}'}"
        launch(processes, "train", str(tmp_path), "20", *words, f"train.accumulate={parts}", run)
    alone = torch.load(tmp_path / "1-0.pt")
    assert alone["state"]["updates"] == 20
    expected = named(alone["state"])
    for rank in range(2):
        own = torch.load(tmp_path / f"2-{rank}.pt")
        together = named(own["state"])
        assert together.keys() == expected.keys()
        assert any("running_var" in name for name in together)
        assert max(relative_difference(name, together, expected) for name in expected) < 1e-9
        assert own["figures"][0] == pytest.approx(alone["figures"][0], rel=1e-9)


def test_evaluation_does_not_depend_on_the_number_of_ranks(tmp_path):
    """599 test images in batches of 250 divide neither by two nor by three."""
    found = []
    for processes in (1, 2, 3):
        words = [*SMALL_TRAINING, "precision=fp32", f"run.dir={tmp_path / f'run{processes}'}"]
        launch(processes, "train", str(tmp_path), "0", *words)
        for rank in range(processes):
            own = torch.load(tmp_path / f"{processes}-{rank}.pt")
            found.append(own["figures"])
    counts, predicted_N, losses_N = found[0]
    assert (predicted_N >= 0).all()
    assert len(predicted_N) == 599
    for other, other_predicted_N, other_losses_N in found[1:]:
        assert (other["top1"], other["top5"]) == (counts["top1"], counts["top5"])
        assert other["loss"] == pytest.approx(counts["loss"], rel=1e-6)
        assert torch.equal(other_predicted_N, predicted_N)
        torch.testing.assert_close(other_losses_N, losses_N, rtol=1e-5, atol=1e-6)


def test_drifting_ranks_are_noticed(tmp_path, tiny_search):
    finished = launch(2, "drift", "-", "0", *tiny_search, f"run.dir={tmp_path / 'run'}", check=False)
    assert finished.returncode != 0
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: ranks have drifted apart: '/supernet/stem.0.weight' differs between them; please report this"
    ]


def test_retraining_runs_on_two_ranks(tmp_path, checkout):
    """The last batches, of training and of test images, do not divide by two."""
    words = [
        "threads=1", "run.progress=none", "run.tensorboard=false", f"run.dir={tmp_path / 'run'}", "data.limit=101",
        "network.channels=2", "network.cells=3", "network.drop_path=0.2", "train.epochs=2", "train.batch_size=15",
        "train.eval_batch_size=299",
    ]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    finished = subprocess.run(
        [*command, str(checkout / "train_eval.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("test error") == 1
    error = json.loads((tmp_path / "run" / "summary.json").read_text())["top1_error"]
    assert error * 599 / 100 == pytest.approx(round(error * 599 / 100))  # of exactly 599 test images


def test_a_single_process_is_a_world_of_one():
    world = World(torch.device("cpu"))
    tensor = torch.arange(3.0)
    world.sum_tensors([tensor])
    assert torch.equal(tensor, torch.arange(3.0))
    assert world.agree(True, False) == [True, False]
    assert torch.equal(world.gather_rows(tensor), tensor[None])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device=cuda"):
        choose_device("cuda")
