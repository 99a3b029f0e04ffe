"""Processes with a GPU each: NCCL's start and collectives, and all three tasks under `torchrun`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nge_search.engine.distributed import World, _group, sum_over_ranks
from nge_search.engine.launch import Launch
from nge_search.engine.sync_batchnorm import SyncedBatchNorm2d

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]

#: Seconds after which processes are taken to hang.
PATIENCE = 300
TRAINING = ("network.channels=4", "network.cells=3", "train.epochs=1", "train.batch_size=16")


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@pytest.fixture
def one_process():
    """A group of this process alone, which runs make for several: NCCL for the device, gloo for the host."""
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    launch = Launch(0, 1, 0, 1, "127.0.0.1", free_port())
    with _group(launch, device, 60.0) as group:
        yield World(device, group=group)


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
    shared, own = SyncedBatchNorm2d(4).cuda(), torch.nn.BatchNorm2d(4).cuda()
    ends = []
    for norm in (shared, own):
        given = x.clone().requires_grad_()
        y = norm(given)
        y.square().sum().backward()
        assert y.dtype == given.grad.dtype == dtype
        ends.append([y, given.grad, norm.running_mean, norm.running_var])
    for one, other in zip(*ends):
        torch.testing.assert_close(
            one.float(), other.float(), rtol=2e-2, atol=2e-2 if dtype != torch.float32 else 1e-4
        )


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["search", "classification", "segmentation"])
def test_under_torchrun(kind, processes, tiny_search, checkout, voc_tree, tmp_path):
    if torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} GPUs, there are {torch.cuda.device_count()}")
    common = [
        "run.progress=none",
        "run.tensorboard=false",
        "device=cuda",
        "precision=fp64",
        f"run.dir={tmp_path}/run",
    ]
    words = {
        "search": ["train_search.py", *tiny_search, "supernet.sync_statistics=true"],
        "classification": ["train_eval.py", *TRAINING, "data.limit=64", "train.sync_statistics=true"],
        "segmentation": [
            "train_eval.py", "task=segmentation", *TRAINING, "data.name=voc", f"data.root={voc_tree(8, 4)}",
            "data.crop=48", "data.workers=0", "network.head_channels=8", "train.sync_statistics=true",
        ],
    }[kind]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    own = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(checkout / words[0]), *words[1:], *common],
        env=own, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((Path(tmp_path) / "run" / "summary.json").read_text())["device"]
    assert json.loads((Path(tmp_path) / "run" / "environment.json").read_text())["world_size"] == processes
