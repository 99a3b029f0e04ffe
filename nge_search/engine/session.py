"""What surrounds a run of any kind: its processes, its folder, and the files that say how it went."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nge_search.architecture.load import read_architecture
from nge_search.engine import environment
from nge_search.engine.agreement import require_same_settings, require_same_start
from nge_search.engine.checkpoint import random_state, restore_random_state, seed_everything
from nge_search.engine.distributed import World, join_world
from nge_search.engine.given import OnEpoch
from nge_search.engine.logger import print_line
from nge_search.engine.loop import Loop
from nge_search.engine.memory import keep_freed_memory
from nge_search.engine.precision import allow_tf32
from nge_search.engine.run_folder import RunFolder
from nge_search.engine.task import Task
from nge_search.errors import UserError
from nge_search.kinds import ENVIRONMENT, GENOTYPE
from nge_search.native.announcing import announced_by
from nge_search.registry import resolve
from nge_search.settings.run import DeviceConfig, RunningConfig

Summary = dict[str, Any]


@dataclass
class Session:
    """One process's part of a run.

    Attributes:
        folder: the run folder, locked; None on all ranks but the first.
        finished: the summary of a run that had finished before; then nothing is left to do.
        on_epoch: is called after every epoch of a training, where the caller looks in.
        explain: the one line that an error of torch's comes to, or None; set by whoever knows what may fail there.
    """

    config: RunningConfig
    world: World
    folder: RunFolder | None = None
    finished: Summary | None = None
    on_epoch: OnEpoch | None = None
    explain: Callable[[RuntimeError], UserError | None] = lambda error: None

    def say(self, text: str) -> None:
        if self.world.is_main and self.config.run.progress != "none":
            print_line(text)

    def begin(self) -> RunFolder:
        """Begin what has no loop, and so no checkpoints: from the start, in its own folder; on rank 0 only."""
        assert self.folder is not None
        self.folder.begin()
        self.folder.truncate_metrics(0)
        self._describe({})
        return self.folder

    def go_on(self) -> tuple[RunFolder, list[dict[str, Any]]]:
        """As `begin`, but after the rows of metrics.jsonl that a run of the same settings left when it was stopped.

        Raises:
            UserError: rows of other settings, or a damaged file.
        """
        assert self.folder is not None
        rows = self.folder.recorded_rows()
        self.folder.begin()
        self.folder.truncate_metrics(len(rows))
        self._describe({})
        return self.folder, rows

    def train(self, task: Task, documents: Mapping[str, Any] | None = None) -> Loop:
        """Run `task` from its last checkpoint, or from the start, to its end.

        `documents` are JSON files to keep in the run folder, by name.
        """
        require_same_start(self.world, documents or {}, task.state_dict)
        self.world.on_main(lambda: self.folder.begin() if self.folder else None)
        loop = Loop(task, self.folder, self.config, self.world, self.on_epoch)
        loop.resume()
        self.world.on_main(lambda: self._describe(documents or {}))
        on_cpu = self.world.device.type == "cpu"
        with keep_freed_memory() if on_cpu else contextlib.nullcontext():
            loop.run()
        return loop

    def _describe(self, documents: Mapping[str, Any]) -> None:
        assert self.folder is not None
        for name, document in documents.items():
            self.folder.write_json(name, document)
        self.folder.write_config()
        description = environment.describe(self.world.device, self.world.size, self.config.seed)
        self.folder.write_json(ENVIRONMENT, description)

    def summary(self, loop: Loop, **figures: Any) -> Summary:
        """The figures every training's summary.json has, and then `figures`."""
        return {
            "kind": self.config.kind,
            "seconds": round(loop.watch.seconds, 2),
            "device": environment.device_name(self.world.device),
            f"{loop.task.unit}_per_second": round(loop.trained / max(loop.train_seconds, 1e-9), 2),
            "peak_memory_mb": round(environment.peak_memory_mb(self.world.device), 1),
            "epochs": loop.position.epoch,
            **({"stopped": loop.stopped} if loop.stopped else {}),
            **figures,
        }

    def finish(self, summary: Summary, found: dict[str, Any] | None) -> None:
        """Write what the run came to: the architecture it found, the report, summary.json; on rank 0 only."""
        assert self.folder is not None
        if found is not None:
            self.folder.write_json(GENOTYPE, found)
            resolve("nge_search.report:save_drawings")(read_architecture(found).graphs, self.folder.path)
        resolve("nge_search.report:write_report")(self.folder.path, summary)
        self.folder.finish(summary)


def run(
    config: RunningConfig,
    body: Callable[[Session], Summary],
    check: Callable[[Session], None] = lambda session: None,
    finds: bool = False,
    on_epoch: OnEpoch | None = None,
) -> Summary:
    """The life of a run of any kind, around the `body` that does what it is for; returns the summary.

    Args:
        body: from the session of an unfinished run to the content of summary.json.
        check: called on rank 0 once the folder is open, of a finished run, too.
        finds: the summary's `genotype` is what the run found, to be kept in genotype.json and drawn.
        on_epoch: is called after every epoch of an unfinished run.

    Raises:
        UserError: settings, data or a run folder that cannot be used.
        RunFailure: numbers are no longer finite, or a process is gone.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    with open_session(config) as session:
        session.on_epoch = on_epoch
        session.world.on_main(lambda: check(session))
        if session.finished is not None:
            return session.finished
        summary = body(session)
        session.world.on_main(lambda: session.finish(summary, summary["genotype"] if finds else None))
        return summary


def run_inside(config: RunningConfig, device: torch.device, body: Callable[[Session], Summary]) -> Summary:
    """The life of a run within another one, in a folder of its own and in this process alone; returns its summary.

    It has no report. Afterwards the random generators are as before.

    Raises:
        As `run`.
    """
    before, folder = random_state(), RunFolder(config)
    try:
        if folder.summary is None:
            seed_everything(config.seed)
            session = Session(config, World(device), folder)
            with _explained(session):
                folder.finish(body(session))
        assert folder.summary is not None
        return folder.summary
    finally:
        folder.close()
        restore_random_state(before)


@contextlib.contextmanager
def open_session(config: RunningConfig) -> Iterator[Session]:
    """Join the processes of the run, seed them, and lock its folder.

    Raises:
        UserError: no such device, or a folder that cannot be used.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device = config.device if isinstance(config, DeviceConfig) else "cpu"
    allow_tf32(isinstance(config, DeviceConfig) and config.precision == "tf32")
    with join_world(device, config.run.stall_seconds) as world:
        session = Session(config, world)

        def open_folder() -> Summary | None:
            session.folder = RunFolder(config)
            return session.folder.summary

        try:
            require_same_settings(world, config)
            session.finished = world.on_main(open_folder)
            if session.finished is not None:
                session.say(f"run '{config.run.dir}' has finished; run.overwrite=true starts it anew")
            seed_everything(config.seed)
            with announced_by(session.say), _explained(session):
                yield session
        except OSError as error:
            error.filename = error.filename or config.run.dir
            raise
        except UserError as error:
            if world.size > 1 and not error.shared:
                error.rank = world.rank
            raise
        finally:
            if session.folder:
                session.folder.close()


@contextlib.contextmanager
def _explained(session: Session) -> Iterator[None]:
    """Within it an error of torch's that the session can explain is that one line."""
    try:
        yield
    except RuntimeError as error:
        failure = session.explain(error)
        if failure is None:
            raise
        failure.rank = session.world.rank if session.world.size > 1 else None
        raise failure from None
