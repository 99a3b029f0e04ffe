"""A short training as a run of its own: in a folder, resumable; started alone, or within a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nge_search.architecture.load import Architecture, load_architecture
from nge_search.counting import sizes_of
from nge_search.data import load_dataset
from nge_search.data.distributed import load_everywhere
from nge_search.data.workers import worker_failure
from nge_search.engine.session import Session, run, run_inside
from nge_search.errors import UserError
from nge_search.kinds import DATASET, GENOTYPE, REPORT
from nge_search.settings.names import SIGNALS
from nge_search.settings.trial import TrialConfig
from nge_search.training.run import require_same_architecture
from nge_search.training.short import ShortTraining, TrialImages, build_network, describe_images


def run_trial(config: TrialConfig) -> dict[str, Any]:
    """Train `config.network.genotype` for a short time, or take that up again; return the summary.

    Raises:
        UserError: a genotype, images or a run folder that cannot be used.
        RunFailure: numbers are no longer finite.
        Interrupted: SIGTERM or SIGINT, after the state was saved.
    """
    architecture = load_architecture(config.network.genotype)
    config.evaluator.check_space(architecture.space)

    def body(session: Session) -> dict[str, Any]:
        images = TrialImages.load(
            config, session.world.device, lambda data: load_everywhere(session, data, load_dataset)
        )
        return _train(session, config, architecture, images)

    def check(session: Session) -> None:
        require_same_architecture(session, architecture, config.network.genotype)

    return run(config, body, check)


def run_trial_inside(
    config: TrialConfig, architecture: Architecture, images: TrialImages, device: torch.device
) -> dict[str, Any]:
    """As `run_trial`, within another run, on images that are there already.

    Raises:
        As `run_trial`; UserError also where the folder holds the training of other images.
    """
    summary = run_inside(config, device, lambda session: _train(session, config, architecture, images))
    if summary["data"] != images.dataset.fingerprint:
        raise UserError(
            f"'{config.run.dir}' holds a training on other images than data.root={config.data.root} has now; "
            "restore them, or start the search anew with run.overwrite=true"
        )
    return summary


def why(error: BaseException) -> str:
    """What a training died of, in one line."""
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]


def death(name: str, reason: str, left: int) -> str:
    """What the user is told of a training that died, with so many attempts left."""
    return f"training {name} died: {reason}; {'it is started once more' if left else 'it counts as failed'}"


def _train(
    session: Session, config: TrialConfig, architecture: Architecture, images: TrialImages
) -> dict[str, Any]:
    dataset = images.dataset
    network = build_network(config, architecture, dataset)
    shape = (1, dataset.channels, dataset.image_size, dataset.image_size)
    size = sizes_of(network, shape)
    session.explain = worker_failure
    task = ShortTraining(config, network, images, session.world)
    loop = session.train(task, {GENOTYPE: architecture.document, DATASET: describe_images(dataset)})
    with loop.closing() as row:
        found = session.summary(loop, **{signal: float(row[signal]) for signal in SIGNALS}, **size)
    steps = config.evaluator.steps
    return {**found, "epochs": steps, "data": dataset.fingerprint, "genotype": architecture.document}


def closing_lines(config: TrialConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished short training."""
    return [
        f"validation loss {summary['valid_loss']:.4f}, validation top-1 {summary['valid_top1']:.2f} %, sum of "
        f"training losses {summary['train_losses']:.3f} after {summary['epochs']} steps, "
        f"{summary['params']:,} parameters, {summary['macs'] / 1e6:.2f}M mult-adds, {summary['seconds']:.1f} s",
        f"report {Path(config.run.dir) / REPORT}",
    ]
