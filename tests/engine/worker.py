"""A process of a distributed test: does some steps of a search or a retraining and saves what this rank holds.

Started by torchrun: worker.py ACTION FOLDER STEPS key=value ... [-- ACTION FOLDER STEPS key=value ...] ...
The actions follow each other in the same processes, as searches and retrainings in a user's script may.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.data import Batch, load_dataset
from nge_search.data.distributed import load_everywhere
from nge_search.engine.distributed import World
from nge_search.engine.session import open_session
from nge_search.engine.task import Phase
from nge_search.errors import RunFailure, UserError
from nge_search.gradient.run import build_task, run_search
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import import_named_plugins, load_config
from nge_search.settings.search import SearchConfig
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.training.run import build_task as build_training
from nge_search.training.segmentation_run import build_task as build_segmentation
from nge_search.training.segmentation_run import load_masked


def steps(folder: Path, count: int, words: list[str]) -> None:
    """`count` steps, weights and architecture in turn; every rank saves its state."""
    with open_session(load_config(SearchConfig, None, words)) as session:
        task = build_task(session)
        loaders = [phase.batches(0, 0) for phase in task.phases[:2]]
        for phase in task.phases[:2]:
            phase.start(0)
        for step in range(count):
            index = step % 2
            task.phases[index].start(0)
            task.phases[index].step(*next(loaders[index]))
        torch.save(task.state_dict(), folder / f"{session.world.size}-{session.world.rank}.pt")
    deadline = time.monotonic() + 10  # the system lists a joined thread for a moment longer
    while group_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not group_threads(), f"threads of the process group are left: {group_threads()}"


def train(folder: Path, count: int, words: list[str]) -> None:
    """`count` steps of a retraining, and then an evaluation; every rank saves its state, rank 0 the figures too."""
    with open_session(load_config(EvalConfig, None, words)) as session:
        genotype = load_genotype(session.config.network.genotype)
        dataset = load_everywhere(session, session.config.data, load_dataset)
        task = build_training(session.config, genotype, dataset, session.world)
        training, test = task.phases[:2]
        for step, batches in enumerate(endlessly(training)):
            if step == count:
                break
            training.step(*batches)
        training.finish(0)
        test.start(0)
        for batches in test.batches(0, 0):
            test.step(*batches)
        figures = task.meters["test"].result(session.world), *task.outcomes.result(session.world)
        own = {"state": task.state_dict(), "figures": figures}
        torch.save(own, folder / f"{session.world.size}-{session.world.rank}.pt")


def segment(folder: Path, count: int, words: list[str]) -> None:
    """`count` steps of a segmentation, and then a validation; every rank saves its state and the counts."""
    with open_session(load_config(SegmentationConfig, None, words)) as session:
        genotype = load_genotype(session.config.network.genotype)
        dataset = load_everywhere(session, session.config.data, load_masked)
        task = build_segmentation(session.config, genotype, dataset, session.world)
        training, test = task.phases
        for _, batches in zip(range(count), endlessly(training)):
            training.step(*batches)
        training.finish(0)
        test.start(0)
        for batches in test.batches(0, 0):
            test.step(*batches)
        figures = task.meters["test"].result(session.world), task.outcomes.result(session.world)
        own = {"state": task.state_dict(), "figures": figures}
        torch.save(own, folder / f"{session.world.size}-{session.world.rank}.pt")


def endlessly(phase: Phase) -> Iterator[tuple[Batch, ...]]:
    """The batches of epoch after epoch."""
    epoch = 0
    while True:
        phase.start(epoch)
        yield from phase.batches(epoch, 0)
        epoch += 1


def group_threads() -> list[str]:
    """Names of the process group's threads in this process, where the system tells them."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ends while we look
            names.append(path.read_text().strip())
    return [name for name in names if "gloo" in name]


def epochs(folder: Path, count: int, words: list[str]) -> None:
    """A search of `count` epochs; every rank records all tensors that it compares at the end of each."""
    seen = []
    compare = World.assert_identical

    def record(world: World, tensors: dict[str, torch.Tensor]) -> None:
        seen.append({name: tensor.clone() for name, tensor in tensors.items()})
        torch.save(seen, folder / f"epochs-{world.rank}.pt")
        compare(world, tensors)

    World.assert_identical = record
    run_search(load_config(SearchConfig, None, [*words, f"search.epochs={count}"]))
    World.assert_identical = compare


def choose(folder: Path, count: int, words: list[str]) -> None:
    """A search that selects at its end; every rank keeps its summary."""
    summary = run_search(load_config(SearchConfig, None, words))
    (folder / f"chosen-{os.environ['RANK']}.json").write_text(json.dumps(summary))


def drift(folder: Path, count: int, words: list[str]) -> None:
    """A search in which the second rank's first weight is off by one bit after the first epoch; its exit code."""
    compare = World.assert_identical

    def spoil(world: World, tensors: dict[str, torch.Tensor]) -> None:
        if world.rank == 1:
            tensors["/supernet/stem.0.weight"] = tensors["/supernet/stem.0.weight"].nextafter(torch.tensor(9.0))
        compare(world, tensors)

    World.assert_identical = spoil
    code = main(["search", *words, f"search.epochs={count}"])
    World.assert_identical = compare
    (folder / f"code-{os.environ['RANK']}").write_text(str(code))


def retrain(folder: Path, count: int, words: list[str]) -> None:
    """A retraining from beginning to end, as of a user."""
    assert main(["eval", *words]) == 0


def disagree(folder: Path, count: int, words: list[str]) -> None:
    """Sessions that begin with another setting, images or weights on rank 1; every rank keeps what it was told."""
    rank = int(os.environ["RANK"])
    run = next(word for word in words if word.startswith("run.dir="))
    told = []
    for own in (
        [f"search.momentum=0.{rank}"],
        [f"data.root={folder / str(rank)}", "data.name=folder"],
        [f"seed={rank}"],
    ):
        try:
            with open_session(load_config(SearchConfig, None, [*words, *own])) as session:
                build_task(session)
        except UserError as error:
            told.append(f"{error.exit_code} {error}")
        assert not (Path(run.partition("=")[2]) / "config.yaml").exists()
    (folder / f"told-{rank}").write_text("\n".join(told))


def stall(folder: Path, count: int, words: list[str]) -> None:
    """Rank 0 holds rank 1 still, and lets it go on once it is told that it stands still."""
    told = ""
    try:
        with open_session(load_config(SearchConfig, None, [*words, "run.stall_seconds=2"])) as session:
            woken: list[int] = []
            signal.signal(signal.SIGCONT, lambda number, frame: woken.append(number))
            victim = session.world.gather_objects(os.getpid())[1]
            if session.world.is_main:
                os.kill(victim, signal.SIGSTOP)
                try:
                    session.world.agree(False)
                finally:
                    os.kill(victim, signal.SIGCONT)
            else:
                while not woken:  # however late rank 0 holds it still
                    time.sleep(0.05)
                session.world.agree(False)
    except RunFailure as error:
        told = str(error)
    (folder / f"told-{os.environ['RANK']}").write_text(told)


def perform(action: str, folder: str, count: str, *words: str) -> None:
    """One action of those above, in a run folder for this number of processes."""
    actions = {"steps": steps, "train": train, "segment": segment, "epochs": epochs, "drift": drift}
    actions |= {"disagree": disagree, "stall": stall, "retrain": retrain, "choose": choose}
    run = Path(folder) / f"run{os.environ['WORLD_SIZE']}"
    import_named_plugins(None, words)
    actions[action](Path(folder), int(count), [*words, f"run.dir={run}"])


if __name__ == "__main__":
    for after, one in itertools.groupby(sys.argv[1:], lambda word: word == "--"):
        if not after:
            perform(*one)
