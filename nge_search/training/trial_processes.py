"""Short trainings in processes of this machine, side by side.

What a training comes to does not depend on the process that it runs in, nor on what runs beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nge_search.engine.interrupt import Interrupted, requested
from nge_search.engine.line_process import LineProcess
from nge_search.errors import UserError
from nge_search.settings.load import to_dict
from nge_search.settings.trial import TrialConfig
from nge_search.training.trial_run import death

#: How long a process may take to send the rest of a line; to save its training once it is asked to stop.
_LINE_SECONDS, _SAVING_SECONDS = 60.0, 30.0
#: How often whoever waits for an answer looks up, in seconds.
_GLANCE = 0.5


@dataclass(eq=False)
class _Job:
    """A training that was asked for: its settings, how often it may still be started, and what it came to."""

    config: TrialConfig
    left: int
    found: dict[str, Any] | None = None


@dataclass(eq=False)
class _Place:
    """Where a process is, or will be: the process, whether it is ready, and what it is at."""

    device: str
    process: LineProcess | None = None
    ready: bool = False
    job: _Job | None = None

    def fileno(self) -> int:
        assert self.process is not None
        return self.process.fileno()


class TrialProcesses:
    """So many processes, which start when there is work for them, and anew after one that died.

    Args:
        count: how many.
        device: that they compute on; of several GPUs each takes one in turn.
        attempts: how often a training is started whose process dies.
        say: tells the user of trainings that died.
    """

    #: What the processes are.
    module = "nge_search.training.trial_worker"

    def __init__(self, count: int, device: torch.device, attempts: int, say: Callable[[str], None]):
        gpus = torch.cuda.device_count() if device.type == "cuda" else 0
        self._places = [_Place(f"cuda:{at % gpus}" if gpus else "cpu") for at in range(count)]
        self._attempts, self._say = attempts, say
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[_Job] = deque()

    def put(self, config: TrialConfig) -> None:
        """Ask for a training, unless it was asked for before."""
        if config.run.dir not in self._jobs:
            threads = config.threads or max(1, (os.cpu_count() or 1) // len(self._places))
            job = _Job(dataclasses.replace(config, threads=threads), self._attempts)
            self._jobs[config.run.dir] = job
            self._queue.append(job)
        self._assign()

    def result(self, config: TrialConfig) -> dict[str, Any]:
        """The summary of a training once it has finished, or why it "failed".

        Raises:
            UserError: images that cannot be used, or processes that do not start.
            Interrupted: SIGTERM or SIGINT; what is not finished was saved.
        """
        self.put(config)
        job = self._jobs[config.run.dir]
        while job.found is None:
            self._assign()
            busy = [place for place in self._places if place.job is not None]
            ready, _, _ = select.select(busy, [], [], _GLANCE)
            for place in ready:
                self._hear(place)
                while place.process is not None and place.process.has_answer:
                    self._hear(place)
            number = requested()
            if number is not None:
                self.close()
                raise Interrupted(number)
        return job.found

    def close(self) -> None:
        """End all processes; trainings that they are at are saved, and would go on if they were asked for again."""
        open_ = [place for place in self._places if place.process is not None]
        for place in open_:
            assert place.process is not None
            place.process.terminate()
        for place in open_:
            self._end(place, _SAVING_SECONDS)
        for place in self._places:
            place.job = None
        self._queue.clear()
        self._jobs = {folder: job for folder, job in self._jobs.items() if job.found is not None}

    def _assign(self) -> None:
        """Hand out what waits, in its order."""
        for place in self._places:
            if place.job is None and self._queue:
                place.job = self._queue.popleft()
                if place.process is None:
                    place.process, place.ready = LineProcess(self.module, [place.device], loud=True), False
                place.process.ask(json.dumps(to_dict(place.job.config)))

    def _hear(self, place: _Place) -> None:
        """Take up what a process says."""
        assert place.process is not None
        assert place.job is not None
        try:
            said = place.process.answer(_LINE_SECONDS)
        except (EOFError, TimeoutError):
            code = self._end(place, 0.0)
            if not place.ready:
                self.close()
                raise UserError(
                    f"a process for trainings ended before it began (exit code {code}); set evaluator.processes=1"
                ) from None
            said = {"died": f"its process ended with exit code {code}, perhaps for want of memory"}
        if "ready" in said:
            place.ready = True
        elif "error" in said:
            self.close()
            raise UserError(said["error"])
        else:
            job, place.job = place.job, None
            if "died" in said:
                self._start_again(job, said["died"])
            else:
                job.found = said

    def _start_again(self, job: _Job, reason: str) -> None:
        job.left -= 1
        self._say(death(job.config.run.name, reason, job.left))
        if job.left:
            self._queue.appendleft(job)
        else:
            job.found = {"failed": reason}

    @staticmethod
    def _end(place: _Place, patience: float) -> int:
        process, place.process = place.process, None
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            return process.close(patience)
        return 0
