"""Loading a data set in a run of one or several processes, all of which must find the same images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nge_search.data.content import AnyDataset, content_of
from nge_search.data.division import TEST_NAMES, TRAIN_NAMES
from nge_search.data.segmentation.dataset import MaskedDataset
from nge_search.data.sources import Dataset
from nge_search.data.workers import worker_failure
from nge_search.engine.agreement import require_same
from nge_search.engine.distributed import World
from nge_search.engine.launch import read_launch
from nge_search.engine.run_files import is_run
from nge_search.engine.session import Session
from nge_search.errors import UserError
from nge_search.settings.data import DataSection
from nge_search.settings.segmentation import MaskedDataSection

Settings = TypeVar("Settings", DataSection, MaskedDataSection)
Loaded = TypeVar("Loaded", Dataset, MaskedDataset)


def load_everywhere(session: Session, settings: Settings, load: Callable[[Settings], Loaded]) -> Loaded:
    """What `load` makes of the settings; where it may download, one process of a machine goes first.

    From then on what torch says of a worker process that died is one line, too.

    Raises:
        UserError: data that cannot be used on a rank, or that differ between ranks.
    """
    world = session.world
    session.explain = worker_failure
    world.on_main(lambda: _refuse_place_among_images(settings, session.config.run.dir))
    first = not settings.download or read_launch(os.environ).local_rank == 0
    early = world.everywhere(lambda: load(settings) if first else None)
    dataset = world.everywhere(lambda: early or load(settings))
    require_same_images(world, dataset)
    for notice in dataset.notices:
        session.say(notice)
    return dataset


def require_same_images(world: World, dataset: AnyDataset) -> None:
    """Raise UserError on every rank unless the images of all are the same, as far as `Content` looks."""
    if world.size == 1:
        return
    content = content_of(dataset)
    everyone = world.gather_objects(content.digest())
    if len(set(everyone)) > 1:
        require_same(world, content.parts(), "data.root must hold the same images on every machine")
        raise AssertionError("digests differ, and what they are of does not")


def _refuse_place_among_images(settings: DataSection | MaskedDataSection, run_dir: str) -> None:
    """Raise UserError for a new run folder among folders of images: later commands would take it for a class."""
    if settings.name != "folder" or is_run(Path(run_dir)):
        return
    root, place = (Path(os.path.realpath(path)) for path in (settings.root, run_dir))
    if root not in place.parents or not root.is_dir():
        return
    divided = any(entry.name.casefold() in TRAIN_NAMES for entry in root.iterdir())
    if not divided or place.relative_to(root).parts[0].casefold() in (*TRAIN_NAMES, *TEST_NAMES):
        raise UserError(
            f"run.dir={run_dir} lies among the folders of images in data.root={settings.root}, where it "
            f"would count as a class; set run.dir to another place"
        )
