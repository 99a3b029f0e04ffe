"""`nge bench step`: where the time of a search's step goes."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from nge_search.bench.measuring import Clock, heading
from nge_search.engine.environment import describe, peak_memory_mb
from nge_search.engine.logger import Logger
from nge_search.engine.loop import Loop
from nge_search.engine.session import Session, open_session
from nge_search.engine.task import Phase
from nge_search.errors import UserError
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.run import build_task
from nge_search.settings.load import import_named_plugins, load_config
from nge_search.settings.search import SearchConfig


def main(words: Sequence[str], parser_class: type[argparse.ArgumentParser]) -> None:
    parser = parser_class(
        prog="nge bench step",
        description="Time the parts of a search's step: the supernet's passes, and what surrounds them.",
    )
    parser.add_argument("--config", help="YAML file with settings of a search")
    parser.add_argument("--steps", type=int, default=7, help="number of measured steps of each kind (7)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings, which override those of the file"
    )
    options = parser.parse_intermixed_args(list(words))
    if not 1 <= options.steps <= 1000:
        raise UserError(f"--steps={options.steps}: must be between 1 and 1000")
    with tempfile.TemporaryDirectory() as folder:
        run = (f"run.dir={folder}/run", "run.progress=none")
        import_named_plugins(options.config, options.settings, "search")
        config = load_config(SearchConfig, options.config, [*options.settings, *run])
        with open_session(config) as session:
            result = measure_step(session, options.steps)
    print(json.dumps(result, indent=2) if options.json else "\n".join(_lines(result)))


def measure_step(session: Session, steps: int) -> dict[str, Any]:
    """Median seconds of the parts of weight and architecture steps, and what the rest costs per step.

    The supernet's share is its forward and backward passes, with the loss and its figures, timed inside each
    step; the rest of that step is the embedding, clipping and the optimisers.
    """
    task = build_task(session)
    if session.folder:
        session.folder.begin()
    device, config = session.world.device, task.config
    clock = Clock(device)
    phases = {phase.name: _measure_phase(task, phase, steps, clock) for phase in task.phases if phase.trains}
    loop = Loop(task, session.folder, config, session.world)
    logger = Logger(session.folder, config.run)
    save = clock.median(loop.save)
    log = clock.median(lambda: loop.log(task.phases[0], "bench", 1, logger))
    logger.close()
    shares = {name: _shares(parts, log / config.run.log_every, save, config) for name, parts in phases.items()}
    return {
        "benchmark": "step",
        "n": steps,
        "environment": describe(device, session.world.size, config.seed),
        "settings": {
            "dataset": config.data.name,
            "batch_size": config.search.batch_size,
            "channels": config.supernet.channels,
            "cells": config.supernet.cells,
        },
        "phases": phases,
        "log_seconds": log,
        "checkpoint_seconds": save,
        "shares_of_step": shares,
        "peak_memory_mb": peak_memory_mb(device),
    }


def _measure_phase(task: BilevelSearch, phase: Phase, steps: int, clock: Clock) -> dict[str, float]:
    """Seconds of a phase's parts: data, the whole step, and the supernet's passes within the step."""
    phase.start(0)
    batches = _endless(phase.batches)
    data, step, passes = [], [], []
    with clock.inside(task, "loss", "differentiate"):
        for number in range(-2, steps):  # two to warm up
            clock.start()
            taken = next(batches)
            seconds = clock.lap()
            phase.step(*taken)
            if number >= 0:
                data.append(seconds)
                step.append(clock.lap())
                passes.append(clock.within)
    whole = statistics.median(step) + statistics.median(data)
    return {
        "step_seconds": statistics.median(step),
        "step_spread": max(step) - min(step),
        "supernet_seconds": statistics.median(passes),
        "other_seconds": statistics.median(total - part for total, part in zip(step, passes)),
        "data_seconds": statistics.median(data),
        "images_per_second": task.config.search.batch_size / whole,
    }


def _endless(batches: Callable[[int, int], Any]) -> Any:
    epoch = 0
    while True:
        yield from batches(epoch, 0)
        epoch += 1


def _shares(parts: dict[str, float], log: float, save: float, config: SearchConfig) -> dict[str, float]:
    """What fraction of a step's whole time each part takes; log and checkpoint spread over their intervals."""
    step = parts["step_seconds"]
    whole = parts["data_seconds"] + step + log
    return {
        "data": parts["data_seconds"] / whole,
        "optimisers": parts["other_seconds"] / whole,
        "logging": log / whole,
        "checkpoints": save / max(config.run.checkpoint_seconds, whole),
        "supernet": parts["supernet_seconds"] / whole,
    }


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [heading(result)]
    for name, parts in result["phases"].items():
        lines.append(
            f"{name}: {parts['step_seconds']:.3f} s a step (spread {parts['step_spread']:.3f}), supernet's passes "
            f"{parts['supernet_seconds']:.3f} s, {parts['images_per_second']:.1f} images/s"
        )
        shares = ", ".join(f"{part} {100 * share:.2f} %" for part, share in result["shares_of_step"][name].items())
        lines.append(f"  of a step: {shares}")
    lines.append(
        f"a log step {1000 * result['log_seconds']:.2f} ms, "
        f"a checkpoint {1000 * result['checkpoint_seconds']:.1f} ms, peak memory {result['peak_memory_mb']:.0f} MB"
    )
    return lines
