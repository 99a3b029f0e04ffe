"""A process that makes short trainings: `python -m nge_search.training.trial_worker DEVICE`.

It says when it is ready, and then takes a training's settings as a line of JSON, and answers with its summary, with
what it "died" of, or with the "error" that ends the search. It ends with whoever asks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import threading
from typing import Any

import torch

from nge_search.architecture.load import load_architecture
from nge_search.engine.interrupt import Interrupted
from nge_search.engine.precision import allow_tf32
from nge_search.errors import RunFailure, UserError
from nge_search.json_reader import parse_json
from nge_search.settings.load import import_named_plugins, load_config, to_dict
from nge_search.settings.trial import TrialConfig
from nge_search.training.short import TrialImages
from nge_search.training.trial_run import run_trial_inside, why


class Trainer:
    """Makes trainings on a device; images stay for the next one."""

    def __init__(self, device: torch.device):
        self._device = device
        self._loaded: tuple[dict[str, Any], TrialImages] | None = None

    def answer(self, line: str) -> dict[str, Any]:
        """What a training comes to."""
        try:
            given = parse_json(line, "a training")
            import_named_plugins(None, [given])  # those of the search that asks
            config = load_config(TrialConfig, None, [given])
            torch.set_num_threads(config.threads)
            allow_tf32(config.precision == "tf32")
            architecture = load_architecture(config.network.genotype)
            return run_trial_inside(config, architecture, self._images(config), self._device)
        except (RunFailure, RuntimeError, MemoryError) as error:
            return {"died": why(error)}
        except UserError as error:
            return {"error": str(error)}

    def _images(self, config: TrialConfig) -> TrialImages:
        of = to_dict(dataclasses.replace(config, run=type(config.run)(), network=type(config.network)()))
        if self._loaded is None or self._loaded[0] != of:
            self._loaded = of, TrialImages.load(config, self._device)
        return self._loaded[1]


def _listen(lines: queue.SimpleQueue[str]) -> None:
    """Hand on what comes; once nobody asks any more, end the process, whatever it is at."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    device = torch.device(sys.argv[1])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    trainer = Trainer(device)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    while True:
        try:
            print(json.dumps(trainer.answer(lines.get())), file=answers, flush=True)
        except Interrupted as stopped:
            sys.exit(stopped.exit_code)


if __name__ == "__main__":
    main()
