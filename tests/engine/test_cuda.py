"""Processes with a GPU each: NCCL's start and collectives, and all three tasks with it and under `torchrun`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nge_search.cli import main
from nge_search.engine import distributed, session
from nge_search.engine.distributed import sum_over_ranks
from nge_search.engine.sync_batchnorm import SyncedBatchNorm2d

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]

#: Seconds after which processes are taken to hang.
PATIENCE = 300
TRAINING = ("network.channels=4", "network.cells=3", "train.epochs=1", "train.batch_size=16")


@pytest.fixture
def one_process(group_of_one):
    """A group of this process alone: NCCL for the device, gloo for the host."""
    torch.cuda.set_device(0)
    with group_of_one(torch.device("cuda", 0)) as world:
        yield world


def test_collectives_of_the_device_and_of_the_host(one_process):
    tensors = [torch.arange(6.0, device="cuda").view(2, 3), torch.ones(2, dtype=torch.float64, device="cuda")]
    before = [tensor.clone() for tensor in tensors]
    sum_over_ranks(tensors)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before))
    votes = torch.tensor([1, 0])
    dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=one_process.group)
    found = [None]
    dist.all_gather_object(found, {"host": 1}, group=one_process.group)
    dist.barrier(one_process.group)
    assert (votes.tolist(), found) == ([1, 0], [{"host": 1}])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_over_processes_equal_those_of_one(one_process, dtype):
    torch.manual_seed(0)
    x = torch.randn(8, 4, 5, 5, device="cuda").to(dtype)
    wanted = torch.randn_like(x)  # of a sum of squares behind a norm the gradient would be zero
    shared, own = SyncedBatchNorm2d(4).cuda(), torch.nn.BatchNorm2d(4).cuda()
    ends = []
    for norm in (shared, own):
        given = x.clone().requires_grad_()
        y = norm(given)
        (y * wanted).sum().backward()
        assert y.dtype == given.grad.dtype == dtype
        assert float(given.grad.abs().max()) > 0.1
        ends.append([y, given.grad, norm.running_mean, norm.running_var])
    for one, other in zip(*ends):
        torch.testing.assert_close(
            one.float(), other.float(), rtol=2e-2, atol=2e-2 if dtype != torch.float32 else 1e-4
        )


@pytest.fixture
def words(tiny_search, voc_tree) -> dict[str, list[str]]:
    """The words of a tiny run of each kind, the launcher's name first."""
    common = ["run.progress=none", "run.tensorboard=false", "device=cuda", "precision=fp64"]
    return {
        "search": ["train_search.py", *tiny_search, "supernet.sync_statistics=true", *common],
        "classification": ["train_eval.py", *TRAINING, "data.limit=64", "train.sync_statistics=true", *common],
        "segmentation": [
            "train_eval.py", "task=segmentation", *TRAINING, "data.name=voc", f"data.root={voc_tree(8, 4)}",
            "data.crop=48", "data.workers=0", "network.head_channels=8", "train.sync_statistics=true", *common,
        ],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["search", "classification", "segmentation"])
def test_runs_of_a_group_of_one_equal_those_of_a_process_alone(kind, words, group_of_one, tmp_path, monkeypatch):
    """Under torchrun one process joins no group: here NCCL sums gradients and figures, and gloo what hosts say."""
    launcher, *own = words[kind]
    command, found, sums = launcher[6:-3], [], []
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda own: (sums.append(len(own)), sum_over_ranks(own))[1])
    for name in ("alone", "group"):
        assert main([command, *own, f"run.dir={tmp_path / name}"]) == 0
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        found.append([row[name] for row in rows for name in row if name.endswith("_loss")])
        assert bool(sums) == (name == "group")
        monkeypatch.setattr(session, "join_world", lambda *_: group_of_one(torch.device("cuda", 0)))
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["search", "classification", "segmentation"])
def test_under_torchrun(kind, processes, words, checkout, tmp_path):
    """One process runs alone; several are connected by NCCL."""
    if torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} GPUs, there are {torch.cuda.device_count()}")
    launcher, *settings = words[kind]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    own = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(checkout / launcher), *settings, f"run.dir={tmp_path}/run"],
        env=own, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((Path(tmp_path) / "run" / "summary.json").read_text())["device"]
    assert json.loads((Path(tmp_path) / "run" / "environment.json").read_text())["world_size"] == processes
