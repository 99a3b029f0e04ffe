"""The evaluator by short trainings: what is asked of an architecture is how well it learns the user's images.

Each training is a run in a folder of its own below that of the search, named after the architecture and its
length. So one that was stopped goes on, and one that has finished is read: a search that starts again with the
same questions comes, at once, to where it was.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nge_search.architecture.load import Architecture
from nge_search.data import Dataset, load_dataset
from nge_search.engine.run_files import TRIALS, write_mark
from nge_search.errors import RunFailure
from nge_search.files import write_json
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import DATASET, FAILED
from nge_search.settings.data import DataSection
from nge_search.settings.names import SIGNALS
from nge_search.settings.run import CommandConfig
from nge_search.settings.trial import TrialConfig, TrialNetworkSection, TrialSection, TrialsSection
from nge_search.spaces import Code, Evaluation, Queries, Space, Trainings
from nge_search.training.short import TrialImages, describe_images
from nge_search.training.trial_processes import TrialProcesses
from nge_search.training.trial_run import death, run_trial_inside, why

#: How often a training that dies is started.
ATTEMPTS = 2
_FIGURES = (*SIGNALS, "seconds", "params", "macs")


def open_trainings(
    config: CommandConfig,
    section: TrialsSection,
    space: Space,
    device: torch.device,
    say: Callable[[str], None],
    load: Callable[[DataSection], Dataset] = load_dataset,
) -> Trainings:
    """The evaluator of a search.

    Args:
        config: of the search, in whose folder trainings are kept.
        section: how they are made.
        device: that they compute on.
        say: tells the user of trainings that died.
        load: loads the images.

    Raises:
        UserError: images that cannot be used, or too few of them.
    """
    return TrainingEvaluator(config, section, space, device, say, load)


@dataclass(frozen=True)
class _Trial:
    """A training to be made: of which architecture, and how."""

    architecture: Architecture
    config: TrialConfig

    @property
    def folder(self) -> Path:
        return Path(self.config.run.dir)


class TrainingEvaluator:
    """See `open_trainings`.

    A training that dies is started once more, and then counts as failed: its value is that of an accuracy of 0, or
    of a loss that is twice that of a guess.
    """

    def __init__(
        self,
        config: CommandConfig,
        section: TrialsSection,
        space: Space,
        device: torch.device,
        say: Callable[[str], None],
        load: Callable[[DataSection], Dataset],
    ):
        self.space, self._say, self._device = space, say, device
        self.signal_name, self.score_name = section.signal, "valid_top1"
        self.signal_words, self.signal_sign = section.label(), 1 if section.signal == "valid_top1" else -1
        self._steps = section.steps
        self._base = _trial_config(config, section)
        self._folder = Path(config.run.dir) / TRIALS
        self._found: dict[bytes, dict[str, Any]] = {}
        self._processes: TrialProcesses | None = None
        if section.processes > 1:
            self._processes = TrialProcesses(section.processes, device, ATTEMPTS, say)
            data = dataclasses.replace(self._base.data, image_size=section.side or self._base.data.image_size)
            dataset = load(data)
        else:
            self._images = TrialImages.load(self._base, device, load)
            dataset = self._images.dataset
        self._dataset, self._classes = dataset.name, len(dataset.classes)
        self.documents = {DATASET: describe_images(dataset)}

    @property
    def provenance(self) -> dict[str, Any]:
        return {"dataset": self._dataset, "steps": self._steps}

    def queries(self, budget: int) -> Queries:
        return Queries(self.space, self, budget, self.prepare)

    def prepare(self, code: Code) -> None:
        if self._processes is not None and self.space.key(code) not in self._found:
            trial = self._trial(code)
            if _recorded_failure(trial.folder) is None:
                self._processes.put(trial.config)

    def __call__(self, code: Code) -> Evaluation:
        """Raises UserError for images that can no longer be used; Interrupted after SIGTERM or SIGINT."""
        found = self.figures(code)
        return Evaluation(self.value(found), found.get("seconds", 0.0))

    def value(self, found: dict[str, Any]) -> float:
        """What a search maximises, of the figures of a training."""
        if "failed" not in found:
            return self.signal_sign * found[self.signal_name]
        guess = math.log(self._classes)
        return {"valid_top1": 0.0, "valid_loss": -2 * guess, "train_losses": -2 * guess * self._steps}[
            self.signal_name
        ]

    def score(self, code: Code) -> float:
        return self.figures(code).get(self.score_name, 0.0)

    def best(self) -> None:
        return None

    def row(self, code: Code) -> dict[str, Any]:
        found = self.figures(code)
        return {name: found[name] for name in (*SIGNALS, "params", "macs", "failed") if name in found}

    def figures(self, code: Code) -> dict[str, Any]:
        """`SIGNALS`, seconds and size of a training, which is made if it is not there; or why it "failed"."""
        key = self.space.key(code)
        if key not in self._found:
            trial = self._trial(code)
            found = _recorded_failure(trial.folder) or self._train(trial)
            self._found[key] = {name: found[name] for name in (*_FIGURES, "failed") if name in found}
        return self._found[key]

    def close(self) -> None:
        if self._processes is not None:
            self._processes.close()

    def longer(self, times: int) -> TrainingEvaluator:
        """The same trainings with so many times the steps, on the same images and by the same processes."""
        other = copy.copy(self)
        other._steps, other._found = times * self._steps, {}
        section = dataclasses.replace(self._base.evaluator, steps=other._steps)
        other._base = dataclasses.replace(self._base, evaluator=section)
        return other

    def _trial(self, code: Code) -> _Trial:
        architecture = self.space.architecture(code)
        text = architecture.text or self.space.text(code)
        name = hashlib.sha256(f"{text} {self._steps}".encode()).hexdigest()[:16]
        run = dataclasses.replace(self._base.run, name=name, dir=str(self._folder / name))
        network = TrialNetworkSection(text)
        return _Trial(architecture, dataclasses.replace(self._base, run=run, network=network))

    def _train(self, trial: _Trial) -> dict[str, Any]:
        found = self._alone(trial) if self._processes is None else self._processes.result(trial.config)
        if "failed" in found:
            trial.folder.mkdir(parents=True, exist_ok=True)
            write_mark(trial.folder, trial.config.kind)
            write_json(trial.folder / FAILED, {"reason": found["failed"], "attempts": ATTEMPTS})
        return found

    def _alone(self, trial: _Trial) -> dict[str, Any]:
        """In this process."""
        reason = ""
        for left in reversed(range(ATTEMPTS)):
            try:
                return run_trial_inside(trial.config, trial.architecture, self._images, self._device)
            except (RunFailure, RuntimeError, MemoryError) as error:
                reason = why(error)
            self._say(death(trial.config.run.name, reason, left))
        return {"failed": reason}


def _trial_config(config: CommandConfig, section: TrialsSection) -> TrialConfig:
    """What all trainings of a search have alike: its seed, images and device, and the short training."""
    fields = {item.name: getattr(section, item.name) for item in dataclasses.fields(TrialSection)}
    run = dataclasses.replace(config.run, overwrite=False, progress="none", tensorboard=False)
    return TrialConfig(
        seed=config.seed,
        threads=config.threads,
        plugins=config.plugins,
        run=run,
        device=config.device,
        precision=config.precision,
        data=dataclasses.replace(config.data, download=False),
        evaluator=TrialSection(**fields),
    )


def _recorded_failure(folder: Path) -> dict[str, Any] | None:
    """What an earlier start has recorded of a training that failed; None if there is nothing."""
    path = folder / FAILED
    if not path.exists():
        return None
    return {"failed": Reader(str(path), read_json(path)).text("reason")}
