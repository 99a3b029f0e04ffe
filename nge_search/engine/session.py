"""What surrounds a training: its processes, its folder, and the files that say how it went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from nge_search.data import Dataset, load_dataset
from nge_search.data.division import TEST_NAMES, TRAIN_NAMES
from nge_search.data.segmentation.dataset import MaskedDataset
from nge_search.data.workers import worker_failure
from nge_search.engine import environment
from nge_search.engine.agreement import require_same_images, require_same_settings, require_same_start
from nge_search.engine.checkpoint import seed_everything
from nge_search.engine.distributed import World, join_world
from nge_search.engine.launch import read_launch
from nge_search.engine.logger import print_line
from nge_search.engine.loop import Loop, Task
from nge_search.engine.memory import keep_freed_memory
from nge_search.engine.precision import allow_tf32
from nge_search.engine.run_files import is_run
from nge_search.engine.run_folder import RunFolder
from nge_search.errors import UserError
from nge_search.native.announcing import announced_by
from nge_search.settings.run import CommandConfig

Loaded = TypeVar("Loaded", Dataset, MaskedDataset)


@dataclass
class Session:
    """One process's part of a run.

    Attributes:
        folder: the run folder, locked; None on all ranks but the first.
        finished: the summary of a run that had finished before; then nothing is left to do.
        fingerprint: of the dataset, once it is loaded.
        facts: what a search says of its dataset in dataset.json, once it is loaded.
    """

    config: CommandConfig
    world: World
    folder: RunFolder | None = None
    finished: dict[str, Any] | None = None
    fingerprint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        if self.world.is_main and self.config.run.progress != "none":
            print_line(text)

    def load_dataset(self, load: Callable[[Any], Loaded] = load_dataset) -> Loaded:
        """What `load` makes of the configured data; where it may download, one process of a machine goes first.

        Raises:
            UserError: data that cannot be used on a rank, or that differ between ranks.
        """
        settings = self.config.data
        first = not settings.download or read_launch(os.environ).local_rank == 0
        early = self.world.everywhere(lambda: load(settings) if first else None)
        dataset = self.world.everywhere(lambda: early or load(settings))
        self.fingerprint = dataset.fingerprint
        require_same_images(self.world, dataset)
        for notice in dataset.notices:
            self.say(notice)
        return dataset

    def train(self, task: Task, documents: Mapping[str, Any] | None = None) -> Loop:
        """Run `task` from its last checkpoint, or from the start, to its end.

        `documents` are JSON files to keep in the run folder, by name.
        """
        require_same_start(self.world, documents or {}, task.state_dict)
        self.world.on_main(lambda: self.folder.begin() if self.folder else None)
        loop = Loop(task, self.folder, self.config, self.world, self.fingerprint)
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
        self.folder.write_json("environment.json", description)

    def summary(self, loop: Loop, **figures: Any) -> dict[str, Any]:
        """The figures every summary.json has, and then `figures`."""
        return {
            "kind": self.config.kind,
            "seconds": round(loop.watch.seconds, 2),
            "device": environment.device_name(self.world.device),
            "images_per_second": round(loop.train_images / max(loop.train_seconds, 1e-9), 2),
            "peak_memory_mb": round(environment.peak_memory_mb(self.world.device), 1),
            "epochs": loop.position.epoch,
            **figures,
        }


@contextlib.contextmanager
def open_session(config: CommandConfig) -> Iterator[Session]:
    """Join the processes of the run, seed them, and lock its folder.

    Raises:
        UserError: no such device, or a folder that cannot be used.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    allow_tf32(config.precision == "tf32")
    with join_world(config.device, config.run.stall_seconds) as world:
        session = Session(config, world)

        def open_folder() -> dict[str, Any] | None:
            _refuse_place_among_images(config)
            session.folder = RunFolder(config)
            return session.folder.summary

        try:
            require_same_settings(world, config)
            session.finished = world.on_main(open_folder)
            if session.finished is not None:
                session.say(f"run '{config.run.dir}' has finished; run.overwrite=true starts it anew")
            seed_everything(config.seed)
            with announced_by(session.say):
                yield session
        except OSError as error:
            error.filename = error.filename or config.run.dir
            raise
        except UserError as error:
            if world.size > 1 and not error.shared:
                error.rank = world.rank
            raise
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            failure.rank = world.rank if world.size > 1 else None
            raise failure from None
        finally:
            if session.folder:
                session.folder.close()


def _refuse_place_among_images(config: CommandConfig) -> None:
    """Raise UserError for a new run folder among folders of images: later commands would take it for a class."""
    if config.data.name != "folder" or is_run(Path(config.run.dir)):
        return
    given = (config.data.root, config.run.dir)
    root, place = (Path(os.path.realpath(path)) for path in given)
    if root not in place.parents or not root.is_dir():
        return
    divided = any(entry.name.casefold() in TRAIN_NAMES for entry in root.iterdir())
    if not divided or place.relative_to(root).parts[0].casefold() in (*TRAIN_NAMES, *TEST_NAMES):
        raise UserError(
            f"run.dir={config.run.dir} lies among the folders of images in data.root={config.data.root}, where it "
            f"would count as a class; set run.dir to another place"
        )
