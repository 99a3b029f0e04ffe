"""The loop that every training shares: epochs of phases of steps, resumable at any step.

A `Task` says what the phases do; the loop owns the position in the run, checkpoints, interruptions,
log steps and the watch for non-finite numbers. The host reads from the device only at log steps, at the
end of a phase and when it saves.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.engine import environment
from nge_search.engine.checkpoint import random_state, restore_random_state
from nge_search.engine.checkpoint_parts import json_section, read_parts, read_stopped
from nge_search.engine.distributed import World
from nge_search.engine.given import OnEpoch
from nge_search.engine.interrupt import Interrupted, InterruptedUnsaved, Interrupts
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import RunFolder, Stopwatch
from nge_search.engine.task import Counts, Phase, Task
from nge_search.engine.watched_run import Run
from nge_search.errors import RunFailure, UserError, plain, shorten
from nge_search.json_reader import Reader
from nge_search.kinds import current_name
from nge_search.settings.load import to_dict
from nge_search.settings.run import RunningConfig

FORMAT = "nge-checkpoint/2"


@dataclass
class Position:
    """Where in the run the next step is: epoch, phase within it, step within that; `total` counts all steps."""

    epoch: int = 0
    phase: int = 0
    step: int = 0
    total: int = 0


class Loop:
    """Runs a task from its last checkpoint, or from the start, to the end."""

    def __init__(
        self,
        task: Task,
        folder: RunFolder | None,
        config: RunningConfig,
        world: World,
        on_epoch: OnEpoch | None = None,
    ):
        """
        Args:
            folder: None on all ranks but the first.
            on_epoch: is called on rank 0, after every epoch and once it is saved; other ranks' is not called.
        """
        self.task, self.folder, self.config, self.world, self.on_epoch = task, folder, config, world, on_epoch
        self.position = Position()
        self.watch = Stopwatch()
        self.rows = 0
        self.last_row: dict[str, Any] = {}
        self.trained, self.train_seconds = 0, 0.0
        self._epoch_trained, self._epoch_seconds = 0, 0.0
        self._last_save = time.monotonic()
        self._notes: list[str] = []
        self._resumed = ""
        self.stopped = ""

    def resume(self) -> None:
        """Take up the newest undamaged checkpoint, if there is one."""

        def load() -> tuple[dict[str, Any] | None, str, list[str]]:
            assert self.folder is not None
            state, path, damaged = self.folder.checkpoints.load_newest()
            if state is not None:
                self._require_own(state, f"checkpoint {path}")
            return state, str(path), damaged

        def truncate_metrics() -> None:
            assert self.folder is not None
            self.folder.truncate_metrics(self.rows)

        state, source, damaged = self.world.on_main(load)
        self._notes = [f"{line}; using the one before it" for line in damaged]
        if state is not None:
            self.world.everywhere(lambda: self._restore(state, source))
        self.world.on_main(truncate_metrics)
        if state is not None:
            self._resumed = source
            self._notes.append(
                f"resuming at epoch {self.position.epoch + 1}, step {self.position.total} ({source})"
            )

    def _require_own(self, state: Any, source: str) -> None:
        """Raise UserError unless `state` is of this kind of run, its settings and its data."""
        form = state.get("format") if isinstance(state, dict) else None
        if form != FORMAT:
            raise UserError(f"{source} has the format {shorten(form)}; this version reads '{FORMAT}'")
        if current_name(state.get("kind")) != self.config.kind:
            raise UserError(f"{source} is one of a {shorten(state.get('kind'))} run; set another run.dir=")
        assert self.folder is not None
        reader = Reader(source, state)
        self.folder.refuse_other_config(json_section(reader, "config"), source, state)
        if reader.text("data") != self.task.fingerprint:
            raise UserError(
                f"{source} was trained on other {self.task.unit} than {self.task.origin} holds now; "
                f"restore them, set another run.dir=, or run.overwrite=true"
            )

    def run(self) -> None:
        """Train to the last epoch, or to one after which `on_epoch` stops it.

        Raises:
            Interrupted: after SIGTERM or SIGINT, once the step is finished and the state is saved.
            InterruptedUnsaved: after a signal, where the batches of the step do not come.
            RunFailure: a loss or gradient is not finite, or ranks have drifted apart.
        """
        logger = Logger(self.folder, self.config.run, self._first_unshown())
        try:
            for note in self._notes:
                logger.say(note)
            watched = any(self.world.agree(self.on_epoch is not None))
            with Interrupts() as interrupts:
                while self.position.epoch < self.task.epochs:
                    self._run_epoch(logger, interrupts)
                    if watched:
                        self._show_epoch()
        except InterruptedUnsaved as stopped:
            logger.end_phase()
            missing = f"no {self.task.unit} came"
            logger.say(f"{stopped} while {missing}; the same command goes on from the last checkpoint")
            raise
        finally:
            logger.close()

    def _first_unshown(self) -> int:
        """The first step whose figures are still to be shown.

        An epoch's figures are shown at its last step, after that step's own. Between epochs both were shown. Inside
        an epoch `_run_phase` shows the step's again, as a run that was killed may have shown the epoch's too.
        """
        total = self.position.total
        return total if self.position.step or not total else total + 1

    def _run_epoch(self, logger: Logger, interrupts: Interrupts) -> None:
        epoch = self.position.epoch
        for index in range(self.position.phase, len(self.task.phases)):
            phase = self.task.phases[index]
            steps = phase.steps(epoch)
            if steps:
                self._run_phase(phase, steps, logger, interrupts)
            self.position.phase, self.position.step = index + 1, 0
        self._end_epoch(logger)

    def _run_phase(self, phase: Phase, steps: int, logger: Logger, interrupts: Interrupts) -> None:
        position = self.position
        title = f"epoch {position.epoch + 1}/{self.task.epochs} {phase.name}"
        logger.start_phase(title, steps, position.step)
        phase.start(position.epoch)
        if position.step and position.total % self.config.run.log_every == 0:
            self._show_step(phase, logger)
        clock = time.perf_counter()
        for batches in phase.batches(position.epoch, position.step):
            phase.step(*batches)
            position.step += 1
            position.total += 1
            if phase.trains:
                self._epoch_trained += sum(batch.total for batch in batches)
            logger.advance()
            if position.total % self.config.run.log_every == 0:
                self.log(phase, title, steps, logger)
            due = bool(self.folder) and time.monotonic() - self._last_save >= self.config.run.checkpoint_seconds
            stop, save = self.world.agree(interrupts.received is not None, due)
            if stop or save:
                now = time.perf_counter()
                self._epoch_seconds += now - clock if phase.trains else 0.0
                clock = now
                logger.flush()
                path = self.save()
            if stop:
                stopped = Interrupted(interrupts.received or 15)
                logger.end_phase()
                logger.say(f"{stopped}; state saved to {path}; the same command goes on from there")
                raise stopped
        phase.finish(position.epoch)
        self._require_finite()
        if phase.trains:
            self._epoch_seconds += time.perf_counter() - clock
        logger.end_phase()

    def log(self, phase: Phase, title: str, steps: int, logger: Logger) -> None:
        """A log step: read the phase's figures back and show them."""
        self._require_finite()
        values = self._show_step(phase, logger)
        logger.progress(title, self.position.step, steps, values)

    def _show_step(self, phase: Phase, logger: Logger) -> dict[str, float]:
        """Show the phase's figures so far in TensorBoard; returns them."""
        meter = self.task.meters[phase.name]
        result = meter.result(self.world)
        values = {name: result[name] for name in meter.shown if name in result}
        logger.scalars({f"{phase.name}_steps/{name}": value for name, value in values.items()}, self.position.total)
        return values

    def _end_epoch(self, logger: Logger) -> None:
        self.world.assert_identical(named_tensors(self.task.state_dict()))
        self.trained += self._epoch_trained
        self.train_seconds += self._epoch_seconds
        row = {
            "epoch": self.position.epoch,
            "step": self.position.total,
            "seconds": round(self.watch.seconds, 3),
            f"{self.task.unit}_per_second": round(self._epoch_trained / max(self._epoch_seconds, 1e-9), 2),
            "peak_memory_mb": round(environment.peak_memory_mb(self.world.device), 1),
            **self.task.epoch_row(self.position.epoch),
        }
        for meter in self._counts():
            meter.reset()
        self._epoch_trained, self._epoch_seconds = 0, 0.0
        logger.row(row)
        self.rows += 1
        self.last_row = row
        if self.folder:
            self.task.publish(logger, row, self.position.total)
        logger.flush()
        self.position = Position(self.position.epoch + 1, 0, 0, self.position.total)
        self.save()

    def _show_epoch(self) -> None:
        """Let the caller see the epoch that has just ended, without a trace in what follows."""
        asked = False
        if self.folder is not None and self.on_epoch is not None:
            modules = self.task.modules()
            run = Run(self.folder.path, copy.deepcopy(self.last_row), modules)
            with _looked_at(list(modules.values())):
                self.on_epoch(run)
            asked = run.stopped
        if not any(self.world.agree(asked)) or self.stopped:
            return
        epoch, epochs = self.position.epoch, self.task.epochs
        evaluated = all(phase.steps(epoch - 1) for phase in self.task.phases if not phase.trains)
        self.task.epochs = min(epoch if evaluated else epoch + 1, epochs)
        if self.task.epochs < epochs:
            self.stopped = f"stopped after epoch {self.task.epochs} of {epochs}, as on_epoch asked"
            self.save()

    def _require_finite(self, state: Any = None) -> None:
        """Raise RunFailure if a step, or a tensor of `state`, was not finite on any rank."""
        finite = self.task.finite
        tensors = [tensor for tensor in named_tensors(state).values() if tensor.is_floating_point()]
        for device in {tensor.device for tensor in tensors}:
            norms = torch.stack(torch._foreach_norm([tensor for tensor in tensors if tensor.device == device]))
            finite = finite & norms.isfinite().all().to(finite.device)
        if any(self.world.agree(not bool(finite))):
            last = self.folder.checkpoints.newest_first() if self.folder else []
            good = f"the last good checkpoint is {last[0]}" if last else "there is no checkpoint yet"
            raise RunFailure(
                f"loss or gradient is not finite in epoch {self.position.epoch + 1}, at or before step "
                f"{self.position.total}; {good}; lower the learning rate, or use precision=fp32",
                shared=True,
            )

    def save(self) -> str:
        """Write a checkpoint of this moment (rank 0; the others contribute); returns its path."""
        task_state = self.task.state_dict()
        self._require_finite(task_state)
        meters = torch.cat([meter.sums.cpu() for meter in self._counts()])
        buffers = _flatten(self.task.local_buffers())
        meters_RN, buffers_RN = self.world.gather_rows(meters), None
        if self.world.size > 1:
            buffers_RN = self.world.gather_rows(buffers)
        self._last_save = time.monotonic()
        if self.folder is None:
            return ""
        state = {
            "format": FORMAT,
            "kind": self.config.kind,
            "data": self.task.fingerprint,
            "config": to_dict(self.config),
            "position": asdict(self.position),
            "rows": self.rows,
            "last_row": self.last_row,
            "seconds": self.watch.seconds,
            "train": [self.trained, self.train_seconds, self._epoch_trained, self._epoch_seconds],
            "task": task_state,
            "meters": meters_RN,
            "buffers": buffers_RN,
            "random": random_state(),
            "exactness": self._exactness(),
            **({"stopped": [self.task.epochs, self.stopped]} if self.stopped else {}),
        }
        self.folder.require_present()
        return str(self.folder.checkpoints.save(state, self.position.total))

    def _counts(self) -> list[Counts]:
        """Everything that is counted and adds up over ranks."""
        outcomes = [] if self.task.outcomes is None else [self.task.outcomes]
        return [*self.task.meters.values(), *outcomes]

    def _exactness(self) -> dict[str, Any]:
        """What has to stay the same for a resumed run to repeat bit for bit."""
        return {**environment.exactness(self.world.device, self.world.size), **self.task.exactness()}

    def _restore(self, state: dict[str, Any], source: str) -> None:
        """Take up a checkpoint; UserError, naming the part, where one is missing or of another form."""
        sums, buffers = [meter.sums for meter in self._counts()], self.task.local_buffers()
        sizes = [sum(tensor.numel() for tensor in tensors) for tensors in (sums, buffers)]
        parts = read_parts(state, source, self.task.epochs, len(self.task.phases), *sizes)
        self.position = Position(**parts.position)
        self.task.load_state_dict(parts.task, source)
        begun = self.position.epoch + bool(self.position.phase or self.position.step)
        stopped = read_stopped(state, source, self.position.epoch)
        settings = json_section(Reader(source, state), "config")
        replanned = self.task.take_up(settings, begun, source, stopped[0] if stopped else None)
        if replanned:
            self._notes.append(replanned)
        elif stopped:
            self.task.epochs, self.stopped = stopped
        self._require_place(source)  # how many steps a phase has may hang on what the task has just loaded
        self.rows, self.last_row = parts.rows, parts.last_row
        self.watch.restore(parts.seconds)
        self.trained, self.train_seconds, self._epoch_trained, self._epoch_seconds = parts.train
        restore_random_state(parts.random, source)
        now = self._exactness()
        before = {**now, **parts.exactness}
        changed = [
            f"{plain(key)} was {plain(old)}, is {now.get(key)}"
            for key, old in before.items()
            if old != now.get(key)
        ]
        if changed:
            self._notes.append(f"note: the run will not repeat bit for bit, since {'; '.join(changed)}")
        same_ranks = len(parts.meters_RN) == self.world.size
        own = parts.meters_RN[self.world.rank] if same_ranks else parts.meters_RN.sum(dim=0) * self.world.is_main
        _unflatten(own, sums)
        if parts.buffers_RM is not None:
            row = parts.buffers_RM[self.world.rank] if same_ranks else parts.buffers_RM.mean(dim=0)
            _unflatten(row, buffers)

    def _require_place(self, source: str) -> None:
        """Raise UserError unless the position is one that this run comes by."""
        epoch, phase, step = self.position.epoch, self.position.phase, self.position.step
        steps = 0
        if epoch < self.task.epochs and phase < len(self.task.phases):
            steps = self.task.phases[phase].steps(epoch)
        if step > steps or (epoch == self.task.epochs and phase):
            place = f"step {step} of {steps} in phase {phase} of epoch {epoch}"
            raise UserError(f"{source} is damaged: 'position' is {place}")

    @contextlib.contextmanager
    def closing(self) -> Iterator[dict[str, Any]]:
        """The last epoch's row. UserError where a checkpoint brought one that lacks what the body takes from it."""
        try:
            yield self.last_row
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if not self._resumed:
                raise
            raise UserError(
                f"{self._resumed} is damaged: its 'last_row' lacks what a result needs ({shorten(error)})"
            ) from None


@contextlib.contextmanager
def _looked_at(networks: list[nn.Module]) -> Iterator[None]:
    """Within it networks are in evaluation mode; what is then drawn, switched or differentiated is undone."""
    drawn = random_state()
    modes = {module: module.training for network in networks for module in network.modules()}
    gradients = [(weight, weight.grad) for network in networks for weight in network.parameters()]
    for weight, _ in gradients:
        weight.grad = None  # otherwise the caller's gradients would be added to it
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
        for module, training in modes.items():
            module.training = training
        restore_random_state(drawn)


def float_buffers(module: nn.Module) -> list[Tensor]:
    """The floating-point buffers of a module: batch normalisation's running statistics."""
    return [buffer for _, buffer in module.named_buffers() if buffer.is_floating_point()]


def average_buffers(module: nn.Module, world: World) -> None:
    """Replace running statistics by their mean over the ranks."""
    buffers = float_buffers(module)
    world.sum_tensors(buffers)
    if world.size > 1:
        for buffer in buffers:
            buffer.div_(world.size)


def _flatten(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().reshape(-1).cpu() for tensor in tensors] or [torch.zeros(0)])


def _unflatten(row: Tensor, tensors: list[Tensor]) -> None:
    for tensor, part in zip(tensors, row.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(part.view_as(tensor))


def named_tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor inside nested dictionaries and lists, by its path."""
    if isinstance(state, Tensor):
        return {prefix: state}
    items = (
        state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else ()
    )
    return {
        name: tensor for key, value in items for name, tensor in named_tensors(value, f"{prefix}/{key}").items()
    }
