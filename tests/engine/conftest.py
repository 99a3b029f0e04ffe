"""What several processes compute, and one: searches and trainings whose states the tests compare."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn  # which keeps the group that there is when it is imported
from PIL import Image

from nge_search import operation_registry
from nge_search.engine.distributed import World, _group
from nge_search.engine.launch import Launch

WORKER = Path(__file__).with_name("worker.py")
EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def _group_of_one(device: torch.device) -> Iterator[World]:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    with _group(Launch(0, 1, 0, 1, "127.0.0.1", port), device, 60.0) as group:
        yield World(device, group=group or dist.group.WORLD)


@pytest.fixture
def group_of_one() -> Callable[[torch.device], AbstractContextManager[World]]:
    """A group of this process alone, as runs make it for several, in place of `join_world`."""
    return _group_of_one


SMALL_TRAINING = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "precision=fp64", "network.channels=4",
    "network.cells=3", "train.eval_batch_size=250",
)  # fmt: skip

#: Kernel, precision, steps and order of searches whose ranks share statistics.
STATISTICS = (
    ("reference", "fp64", 6, "first"),
    ("reference", "fp64", 4, "second"),
    ("reference", "fp32", 1, "first"),
    ("fused", "fp64", 6, "first"),
    ("fused", "fp64", 4, "second"),
)

ACCUMULATING = {"plain": (), "mixing": ("train.ema_decay=0.9", "train.mixup=0.4", "train.cutmix=1")}

#: Of searches whose ranks share statistics, beside the mixture as it is: drawn weights, and a part of the channels.
DIRICHLET = (
    "search.mixture=dirichlet", "search.edge_normalisation=true", "search.beta_weight=1", "embedding.edges=split",
    "search.average=true",
)  # fmt: skip
#: Operations of one's own, in examples/my_ops.py: with statistics, without any, and in `STATEFUL` with a state.
OWN = ("plugins=[my_ops]", "supernet.operations=[skip_connect,sep_conv_3x3,ghost_conv,blur]")
STATEFUL = ("plugins=[my_ops]", "supernet.operations=[skip_connect,ghost_conv,drift]")
PARTIAL = ("supernet.kernel=reference", "supernet.partial=2", "search.temperature=0.5")

#: Selections at the end of a search: five short trainings and three of baselines; decisions on a trained supernet.
CHOOSING = (
    "search.epochs=1", "supernet.operations=[sep_conv_3x3,skip_connect]", "search.selection_convolutions=0",
    "evaluator.steps=3", "evaluator.batch_size=8", "evaluator.channels=2", "evaluator.cells=2",
)  # fmt: skip
SELECTIONS = {
    "short": ("search.selection=short", "search.selection_operations=1", "search.baselines=true"),
    "perturbation": ("search.selection=perturbation", "search.perturbation_steps=1", "search.random_cells=1"),
}

#: A retraining whose last batches, of training and of test images, do not divide by two.
RETRAINING = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "data.limit=413", "network.channels=4",
    "network.cells=3", "network.drop_path=0.2", "train.epochs=3", "train.batch_size=20", "train.accumulate=2",
    "train.ema_decay=0.9", "train.mixup=0.2", "train.eval_batch_size=299",
)  # fmt: skip


def job(action: str, folder: Path, count: int, *words: str) -> list[str]:
    """What the worker shall do; the folder is made."""
    folder.mkdir(exist_ok=True)
    return [action, str(folder), str(count), *words]


def launch(processes: int, jobs: list[list[str]]) -> subprocess.CompletedProcess[str]:
    """Let the worker do its jobs under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [word for job in jobs for word in (*job, "--")]
    finished = subprocess.run(
        [*command, str(WORKER), *words],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=EXAMPLES,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def statistics_jobs(folder: Path, tiny_search: tuple[str, ...], dense_search: list[str]) -> list[list[str]]:
    """In slices of 10 and 11 images; the third batch of either kind, and last of the epoch, has 12."""
    batches = ("data.limit=108", "search.batch_size=21")
    common = (*tiny_search, "supernet.channels=4", *batches)
    jobs = [job("steps", folder / "local", 2, *common, "precision=fp64")]
    dense_words = (*dense_search, *batches, "precision=fp64", "supernet.sync_statistics=true")
    jobs.append(job("steps", folder / "dense", 6, *dense_words))
    score = ("search.mixture=sampled", "search.gradient=score")
    jobs.append(job("steps", folder / "score", 6, *dense_words, *score))
    jobs.append(job("steps", folder / "dirichlet", 6, *dense_words, *DIRICHLET))
    jobs.append(job("steps", folder / "partial", 4, *dense_words, *PARTIAL))
    shared = ("precision=fp64", "supernet.sync_statistics=true")
    jobs.append(job("steps", folder / "own", 4, *common, *shared, *OWN))
    for kernel, precision, steps, order in STATISTICS:
        words = (f"supernet.kernel={kernel}", f"precision={precision}", f"search.order={order}")
        own = folder / f"{kernel}-{precision}-{order}"
        jobs.append(job("steps", own, steps, *common, *words, "supernet.sync_statistics=true"))
    return jobs


def accumulating_jobs(folder: Path, parts: int) -> list[list[str]]:
    """8 steps over two epochs, with drop-path; parts of 10 and 11 images, and a smaller last batch."""
    words = (
        *SMALL_TRAINING,
        "data.limit=150",
        "train.batch_size=42",
        "train.epochs=9",
        "network.drop_path=0.5",
        f"train.accumulate={parts}",
    )
    return [job("train", folder / name, 8, *words, *more) for name, more in ACCUMULATING.items()]


def evaluation_job(folder: Path) -> list[str]:
    return job("train", folder / "evaluation", 0, *SMALL_TRAINING, "precision=fp32")


def segmentation_jobs(folder: Path, processes: int) -> list[list[str]]:
    """6 steps with dropout, an auxiliary head, and pixels that do not count; images of three sizes."""
    words = (
        "task=segmentation", "threads=1", "run.progress=none", "run.tensorboard=false", "precision=fp64",
        "data.name=voc", f"data.root={folder / 'VOC2012'}", "data.crop=48", "data.workers=0",
        "network.channels=4", "network.cells=3", "network.head_channels=4", "network.auxiliary=true",
        "train.batch_size=7", "train.eval_batch_size=4", "train.sync_statistics=true",
    )  # fmt: skip
    trained, untrained = folder / "segmentation", folder / "untrained"
    if processes == 3:
        return [job("segment", untrained, 0, *words)]
    jobs = [job("segment", trained, 6, *words)]
    return jobs if processes == 2 else [*jobs, job("segment", untrained, 0, *words, "train.eval_batch_size=1")]


def search_jobs(folder: Path, tiny_search: tuple[str, ...]) -> list[list[str]]:
    """Whole searches; then ranks that are not alike, that drift apart, and one that stands still."""
    loops = ("epochwise", "batchwise")
    jobs = [job("epochs", folder / loop, 2, *tiny_search, f"search.loop={loop}") for loop in loops]
    jobs.append(job("epochs", folder / "stateful", 2, *tiny_search, *STATEFUL))
    for rank in range(2):
        for k, name in enumerate("ab"):
            (folder / "disagree" / str(rank) / name).mkdir(parents=True)
            for i in range(8):
                picture = Image.new("RGB", (8, 8), (90 * k, i, rank if i == 6 else 0))
                picture.save(folder / "disagree" / str(rank) / name / f"{i}.png")
    jobs += [job("choose", folder / name, 0, *tiny_search, *CHOOSING, *own) for name, own in SELECTIONS.items()]
    jobs += [job(action, folder / action, 1, *tiny_search) for action in ("disagree", "drift", "stall")]
    return jobs


@pytest.fixture(scope="session")
def retraining_words() -> tuple[str, ...]:
    """Settings of the retraining that `two_ranks` leaves in `retraining/run2`, but for its folder."""
    return RETRAINING


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory, write_voc_tree) -> Path:
    """A folder for what one, two and three processes leave."""
    folder = tmp_path_factory.mktemp("worlds")
    write_voc_tree(folder / "VOC2012", 13, 11)
    return folder


@pytest.fixture(scope="session")
def one_rank(worlds: Path, tiny_search, dense_search) -> Path:
    """In this process; files end in `1-0.pt`."""
    jobs = [evaluation_job(worlds), *segmentation_jobs(worlds, 1), *accumulating_jobs(worlds, 4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "1")
        patch.chdir(EXAMPLES)
        patch.setattr(operation_registry, "_OPERATIONS", dict(operation_registry._OPERATIONS))
        sys.modules.pop("my_ops", None)
        perform = runpy.run_path(str(WORKER))["perform"]
        for words in [*jobs, *statistics_jobs(worlds, tiny_search, dense_search)]:
            perform(*words)
        sys.modules.pop("my_ops", None)
    return worlds


@pytest.fixture(scope="session")
def two_ranks(worlds: Path, tiny_search, dense_search) -> tuple[Path, str, str]:
    """Files end in `2-0.pt` and `2-1.pt`; with what the launch printed on stdout and stderr."""
    jobs = [evaluation_job(worlds), *segmentation_jobs(worlds, 2), *accumulating_jobs(worlds, 2)]
    jobs += statistics_jobs(worlds, tiny_search, dense_search)
    jobs.append(job("retrain", worlds / "retraining", 0, *RETRAINING))
    finished = launch(2, [*jobs, *search_jobs(worlds, tiny_search)])
    return worlds, finished.stdout, finished.stderr


@pytest.fixture(scope="session")
def three_ranks(worlds: Path) -> Path:
    """Files end in `3-0.pt` to `3-2.pt`."""
    launch(3, [evaluation_job(worlds), *segmentation_jobs(worlds, 3)])
    return worlds
