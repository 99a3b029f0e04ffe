"""Two processes under torchrun: equal ranks, and equality with a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from nge_search.engine.distributed import World, choose_device
from nge_search.errors import UserError
from nge_search.settings.load import load_config
from nge_search.settings.names import SIGNALS
from nge_search.settings.trial import TrialConfig
from nge_search.training.trial_run import run_trial

WORKER = Path(__file__).with_name("worker.py")
pytestmark = pytest.mark.xdist_group("distributed")  # in one process, which launches `worlds` once


def launch(processes: int, *jobs: list[str], check: bool = True) -> subprocess.CompletedProcess:
    """Let the worker do its jobs in so many processes; torchrun also for one, so that the environments agree."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [word for job in jobs for word in (*job, "--")]
    finished = subprocess.run(
        [*command, str(WORKER), *words],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
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


def job(action: str, folder: Path, count: int, *words: str) -> list[str]:
    """What the worker shall do; the folder is made."""
    folder.mkdir(exist_ok=True)
    return [action, str(folder), str(count), *words]


#: Selections at the end of a search: five short trainings and three of baselines; decisions on a trained supernet.
CHOOSING = (
    *("search.epochs=1", "supernet.operations=[sep_conv_3x3,skip_connect]", "search.selection_convolutions=0"),
    *("evaluator.steps=3", "evaluator.batch_size=8", "evaluator.channels=2", "evaluator.cells=2"),
)
SELECTIONS = {
    "short": ("search.selection=short", "search.selection_operations=1", "search.baselines=true"),
    "perturbation": ("search.selection=perturbation", "search.perturbation_steps=1", "search.random_cells=1"),
}


def require_chosen_alike(folder: Path) -> None:
    """Both ranks have the same summary, and trainings that a process alone repeats bit for bit."""
    first, second = (json.loads((folder / f"chosen-{rank}.json").read_text()) for rank in range(2))
    assert first["genotype"] == second["genotype"]
    for part in ("selection", "baselines"):
        ours, theirs = ({**found.get(part, {}), "seconds": 0} for found in (first, second))
        assert ours == theirs
    trials = sorted((folder / "run2" / "trials").glob("*/summary.json"))
    for path in trials[:1]:
        found = json.loads(path.read_text())
        again = run_trial(load_config(TrialConfig, path.parent / "config.yaml", [f"run.dir={folder / 'again'}"]))
        assert {signal: again[signal] for signal in SIGNALS} == {signal: found[signal] for signal in SIGNALS}
    assert len(trials) >= 5 or "decisions" in first["selection"]


def test_ranks_are_bit_identical_after_every_epoch(tmp_path, tiny_search):
    """And then, in the same processes: ranks that are not alike, and one that stands still, are named."""
    loops = ("epochwise", "batchwise")
    jobs = [job("epochs", tmp_path / loop, 2, *tiny_search, f"search.loop={loop}") for loop in loops]
    for rank in range(2):
        for k, name in enumerate("ab"):
            (tmp_path / "disagree" / str(rank) / name).mkdir(parents=True)
            for i in range(8):
                picture = Image.new("RGB", (8, 8), (90 * k, i, rank if i == 6 else 0))
                picture.save(tmp_path / "disagree" / str(rank) / name / f"{i}.png")
    jobs += [job("choose", tmp_path / name, 0, *tiny_search, *CHOOSING, *own) for name, own in SELECTIONS.items()]
    jobs += [job(action, tmp_path / action, 0, *tiny_search) for action in ("disagree", "stall")]
    launch(2, *jobs)
    for loop in loops:
        first, second = (torch.load(tmp_path / loop / f"epochs-{rank}.pt") for rank in range(2))
        assert len(first) == len(second) == 2
        for one, other in zip(first, second):
            assert one.keys() == other.keys()
            groups = {name.split("/")[1] for name in one}
            assert groups == {"supernet", "embedding", "weight_optimiser", "embedding_optimiser"}
            assert any("running_mean" in name for name in one)
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert any(not torch.equal(first[0][name], first[1][name]) for name in first[0])
    for name in SELECTIONS:
        require_chosen_alike(tmp_path / name)
    told = [(tmp_path / "disagree" / f"told-{rank}").read_text().splitlines() for rank in range(2)]
    assert told[0] == told[1]
    setting, images, seed = told[0]
    assert setting.startswith("2 rank 1 differs from rank 0 in search.momentum: 0.1, on rank 0 0.0;")
    assert images.startswith("2 rank 1 differs from rank 0 in the image file 'a/6.png'")
    assert seed.startswith("2 rank 1 differs from rank 0 in seed")
    assert (tmp_path / "stall" / "told-0").read_text().startswith("rank 1 stood still for longer than run.stall")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory, tiny_search, dense_search, write_voc_tree) -> Path:
    """What the tests below compare, computed by one, two and three processes, each of which starts but once."""
    folder = tmp_path_factory.mktemp("worlds")
    images = write_voc_tree(folder / "VOC2012", 13, 11)
    for processes in (1, 2, 3):
        jobs = [evaluation_job(folder), *segmentation_jobs(folder, images, processes)]
        if processes < 3:
            jobs += statistics_jobs(folder, tiny_search, dense_search)
            jobs += accumulating_jobs(folder, 4 // processes)
        launch(processes, *jobs)
    return folder


STATISTICS_CASES = [
    ("reference", "fp64", 20, "first", 1e-9),
    ("reference", "fp64", 4, "second", 1e-9),
    ("reference", "fp32", 1, "first", 1e-4),
    ("fused", "fp64", 20, "first", 1e-9),
    ("fused", "fp64", 4, "second", 1e-9),
]


def statistics_jobs(folder: Path, tiny_search, dense_search) -> list[list[str]]:
    """In slices of 10 and 11 images, and a last batch of 12."""
    batches = ("data.limit=402", "search.batch_size=21")
    common = (*tiny_search, "supernet.channels=4", *batches)
    jobs = [job("steps", folder / "local", 2, *common, "precision=fp64")]
    dense_words = (*dense_search, *batches, "precision=fp64", "supernet.sync_statistics=true")
    jobs.append(job("steps", folder / "dense", 10, *dense_words))
    score = ("search.mixture=sampled", "search.gradient=score")
    jobs.append(job("steps", folder / "score", 10, *dense_words, *score))
    drawn = (
        "search.mixture=dirichlet",
        "search.edge_normalisation=true",
        "search.beta_weight=1",
        "embedding.edges=split",
    )
    jobs.append(job("steps", folder / "dirichlet", 10, *dense_words, *drawn))
    partial = ("supernet.kernel=reference", "supernet.partial=2", "search.temperature=0.5")
    jobs.append(job("steps", folder / "partial", 4, *dense_words, *partial))
    for kernel, precision, steps, order, _ in STATISTICS_CASES:
        words = (f"supernet.kernel={kernel}", f"precision={precision}", f"search.order={order}")
        own = folder / f"{kernel}-{precision}-{order}"
        jobs.append(job("steps", own, steps, *common, *words, "supernet.sync_statistics=true"))
    return jobs


def test_two_ranks_with_shared_statistics_equal_one(worlds):
    """Without shared statistics the numbers are others."""

    def largest_difference(name: str) -> float:
        folder = worlds / name
        alone = named(torch.load(folder / "1-0.pt"))
        ranks = [named(torch.load(folder / f"2-{rank}.pt")) for rank in range(2)]
        assert all(rank.keys() == alone.keys() for rank in ranks)
        return max(relative_difference(name, rank, alone) for rank in ranks for name in alone)

    for kernel, precision, _, order, tolerance in STATISTICS_CASES:
        assert largest_difference(f"{kernel}-{precision}-{order}") < tolerance
    assert largest_difference("dense") < 1e-9
    assert largest_difference("score") < 1e-9
    assert largest_difference("dirichlet") < 1e-9
    assert largest_difference("partial") < 1e-9
    assert largest_difference("local") > 1e-6


SMALL_TRAINING = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "precision=fp64", "network.channels=4",
    "network.cells=3", "train.eval_batch_size=250",
)  # fmt: skip


ACCUMULATING = {"plain": (), "mixing": ("train.ema_decay=0.9", "train.mixup=0.4", "train.cutmix=1")}


def accumulating_jobs(folder: Path, parts: int) -> list[list[str]]:
    """20 steps over several epochs, with drop-path; parts of 10 and 11 images, and a smaller last batch."""
    words = (
        *SMALL_TRAINING,
        "data.limit=150",
        "train.batch_size=42",
        "train.epochs=9",
        "network.drop_path=0.5",
        f"train.accumulate={parts}",
    )
    return [job("train", folder / name, 20, *words, *more) for name, more in ACCUMULATING.items()]


def test_two_ranks_equal_one_that_accumulates(worlds):
    for name in ACCUMULATING:
        alone = torch.load(worlds / name / "1-0.pt")
        assert alone["state"]["updates"] == 20
        expected = named(alone["state"])
        for rank in range(2):
            own = torch.load(worlds / name / f"2-{rank}.pt")
            together = named(own["state"])
            assert together.keys() == expected.keys()
            assert any("running_var" in name for name in together)
            assert max(relative_difference(name, together, expected) for name in expected) < 1e-9
            assert own["figures"][0] == pytest.approx(alone["figures"][0], rel=1e-9)


def evaluation_job(folder: Path) -> list[str]:
    return job("train", folder / "evaluation", 0, *SMALL_TRAINING, "precision=fp32")


def test_evaluation_does_not_depend_on_the_number_of_ranks(worlds):
    """599 test images in batches of 250 divide neither by two nor by three."""
    found = []
    for processes in (1, 2, 3):
        for rank in range(processes):
            own = torch.load(worlds / "evaluation" / f"{processes}-{rank}.pt")
            found.append(own["figures"])
    counts, predicted_N, losses_N = found[0]
    assert (predicted_N >= 0).all()
    assert len(predicted_N) == 599
    for other, other_predicted_N, other_losses_N in found[1:]:
        assert (other["top1"], other["top5"]) == (counts["top1"], counts["top5"])
        assert other["loss"] == pytest.approx(counts["loss"], rel=1e-6)
        assert torch.equal(other_predicted_N, predicted_N)
        torch.testing.assert_close(other_losses_N, losses_N, rtol=1e-5, atol=1e-6)


def segmentation_jobs(folder: Path, images: Path, processes: int) -> list[list[str]]:
    """10 steps with dropout, an auxiliary head, and pixels that do not count; images of three sizes."""
    words = (
        "task=segmentation", "threads=1", "run.progress=none", "run.tensorboard=false", "precision=fp64",
        "data.name=voc", f"data.root={images}", "data.crop=48", "data.workers=0", "network.channels=4",
        "network.cells=3", "network.head_channels=4", "network.auxiliary=true", "train.batch_size=7",
        "train.eval_batch_size=4", "train.sync_statistics=true",
    )  # fmt: skip
    trained, untrained = folder / "segmentation", folder / "untrained"
    if processes == 3:
        return [job("segment", untrained, 0, *words)]
    jobs = [job("segment", trained, 10, *words)]
    return jobs if processes == 2 else [*jobs, job("segment", untrained, 0, *words, "train.eval_batch_size=1")]


def test_segmentation_on_two_ranks_equals_one(worlds):
    alone = torch.load(worlds / "segmentation" / "1-0.pt")
    assert alone["state"]["updates"] == 10
    expected = named(alone["state"])
    assert any("backbone.auxiliary" in name for name in expected)
    for rank in range(2):
        own = torch.load(worlds / "segmentation" / f"2-{rank}.pt")
        together = named(own["state"])
        assert together.keys() == expected.keys()
        assert max(relative_difference(name, together, expected) for name in expected) < 1e-9
        assert torch.equal(own["figures"][1], alone["figures"][1])
    untrained = [torch.load(worlds / "untrained" / name)["figures"] for name in ("1-0.pt", "3-0.pt", "3-2.pt")]
    assert int(untrained[0][1].sum()) > 0
    for figures, counts in untrained[1:]:
        assert torch.equal(counts, untrained[0][1])
        assert figures == pytest.approx(untrained[0][0], rel=1e-12)


def test_drifting_ranks_are_noticed(tmp_path, tiny_search):
    finished = launch(2, job("drift", tmp_path / "run", 2, *tiny_search), check=False)
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
