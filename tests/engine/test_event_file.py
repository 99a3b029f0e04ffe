"""TensorBoard's files: nothing is shown twice over kills and resumptions; a full disk is met where it is used."""

from __future__ import annotations

import errno
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.summary import scalar

from nge_search.cli import main
from nge_search.engine.event_file import EVENTS, EventFile
from nge_search.engine.logger import Logger
from nge_search.engine.loop import Loop
from nge_search.engine.run_folder import RunFolder
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig


def shown(folder: Path) -> dict[str, list[int]]:
    """The steps at which each tag is shown, as TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    readers = {"scalars": events.Scalars, "images": events.Images, "tensors": events.Tensors}
    return {tag: [event.step for event in read(tag)] for kind, read in readers.items() for tag in tags[kind]}


def add(folder: Path, first: int, steps: range) -> None:
    events = EventFile(folder, first)
    for step in steps:
        events.add(scalar("loss", 1.0), step)
    events.close()


def test_later_figures_of_earlier_files_are_cut_off(tmp_path: Path) -> None:
    add(tmp_path, 0, range(1, 6))
    add(tmp_path, 4, range(4, 8))
    others = tmp_path / "events.out.tfevents.1700000000.host.7.0"
    others.write_bytes(b"somebody else's")
    add(tmp_path, 6, range(6, 7))
    assert others.read_bytes() == b"somebody else's"
    others.unlink()
    assert shown(tmp_path) == {"loss": [1, 2, 3, 4, 5, 6]}
    stamps = [int(EVENTS.fullmatch(path.name)[1]) for path in tmp_path.iterdir()]
    assert len(set(stamps)) == 3  # one second, three files, in an order that their names tell


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data + b"\xff" * 30])
def test_what_a_kill_left_half_written_is_cut_off(damage: Any, tmp_path: Path) -> None:
    add(tmp_path, 0, range(1, 4))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    add(tmp_path, 3, range(3, 5))
    assert whole.startswith(path.read_bytes())
    assert shown(tmp_path) == {"loss": [1, 2, 3, 4]}


def test_links_are_neither_cut_nor_written(tmp_path: Path) -> None:
    folder, victim = tmp_path / "events", tmp_path / "victim"
    add(folder, 0, range(1, 4))
    (path,) = folder.iterdir()
    path.rename(victim)
    path.symlink_to(victim)
    before = victim.read_bytes()
    add(folder, 1, range(1, 2))
    assert victim.read_bytes() == before


def test_a_full_disk_is_met_by_the_thread_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever size the disk is full: one error that names the file, no other thread, nothing at closing."""
    failures: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    threads = threading.active_count()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for size in range(200, 4200, 400):
        folder = RunFolder(load_config(SearchConfig, None, [f"run.dir={tmp_path / str(size)}"]))
        folder.begin()
        logger = Logger(folder, load_config(SearchConfig, None, ["run.progress=none"]).run)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            logger.image("p", np.zeros((40, 40, 3), np.uint8), 1)
            for step in range(1, 100):
                logger.scalars({"loss": 1.0}, step)
            with pytest.raises(OSError, match="too large") as caught:
                logger.flush()
            logger.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno == errno.EFBIG
        assert EVENTS.fullmatch(Path(caught.value.filename).name)
        folder.close()
    signal.signal(signal.SIGXFSZ, previous)
    assert threading.active_count() == threads
    assert not failures


#: When the process is killed, as (rows shown, position in the epoch), and run.checkpoint_seconds.
KILLS = {"between showing an epoch and saving it": (1, 0, 0), "inside the second epoch": (1, 2, 1000)}


@pytest.mark.parametrize("name", KILLS)
def test_nothing_is_shown_twice_after_a_kill(
    name: str, tmp_path: Path, tiny_search: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, step, seconds = KILLS[name]
    words = ["search", *tiny_search, "data.limit=40", "run.tensorboard=true", f"run.dir={tmp_path / 'run'}"]
    words += [f"run.checkpoint_seconds={seconds}", "run.log_every=1", "search.batch_size=10"]
    save, log = Loop.save, Loop.log

    class Killed(BaseException):
        """What takes the place of SIGKILL: nothing more is written."""

    def die() -> None:
        monkeypatch.setattr(EventFile, "flush", lambda events: None)
        raise Killed

    def save_or_die(loop: Loop) -> str:
        if (loop.rows, loop.position.step) == (rows, step):
            die()
        return save(loop)

    def log_or_die(loop: Loop, *rest: Any) -> None:
        log(loop, *rest)
        if (loop.rows, loop.position.step) == (rows, step):
            die()

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save", save_or_die)
        patch.setattr(Loop, "log", log_or_die)
        flush = EventFile.flush
        with pytest.raises(Killed):
            main(words)
    monkeypatch.setattr(EventFile, "flush", flush)
    assert main(words) == 0
    steps = shown(tmp_path / "run" / "tensorboard")
    assert len(steps["loss/train"]) == len(steps["genotype/text_summary"]) == len(steps["genotype"]) == 2
    assert all(len(set(found)) == len(found) for found in steps.values()), steps
    whole = sorted(step for tag in steps if tag.endswith("_steps/loss") for step in steps[tag])
    assert whole == list(range(1, max(whole) + 1))
