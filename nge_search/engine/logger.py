"""What a run tells while it works: metrics.jsonl, TensorBoard, and a progress bar or plain lines."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from tqdm import tqdm

from nge_search.console import show
from nge_search.engine.event_file import EventFile
from nge_search.engine.run_files import TENSORBOARD
from nge_search.engine.run_folder import RunFolder
from nge_search.errors import printable
from nge_search.settings.run import RunSection


def print_line(text: str) -> bool:
    """Print at once; False if nobody listens any more, which is no reason to end a run."""
    try:
        show(text)
    except BrokenPipeError:
        return False
    return True


class Logger:
    """Rank 0's outputs; on other ranks (`folder` None) every method does nothing."""

    def __init__(self, folder: RunFolder | None, config: RunSection, first_step: int = 0):
        """`first_step`: of the figures that are still to come; earlier runs may have shown some of them already."""
        self._folder = folder
        self._mode = self._choose_mode(config.progress) if folder else "none"
        self._bar: tqdm | None = None
        self._events: EventFile | None = None
        if folder and config.tensorboard:
            self._events = EventFile(folder.path / TENSORBOARD, first_step)

    @staticmethod
    def _choose_mode(progress: str) -> str:
        if progress == "auto":
            is_terminal = sys.stderr is not None and sys.stderr.isatty()  # None: closed by whoever started us
            return "bar" if is_terminal else "lines"
        return progress

    def say(self, text: str) -> None:
        """One line for the person at the terminal."""
        if self._mode == "bar":
            with tqdm.external_write_mode(file=sys.stdout):
                print_line(text)
        elif self._mode == "lines" and not print_line(text):
            self._mode = "none"

    def start_phase(self, title: str, steps: int, done: int) -> None:
        if self._mode == "bar":
            self._bar = tqdm(total=steps, initial=done, desc=title, unit="step", leave=False, dynamic_ncols=True)

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def progress(self, title: str, step: int, steps: int, values: dict[str, float]) -> None:
        """Numbers of a log step: beside the bar, or as a line."""
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._mode == "lines":
            self.say(f"{title} {step}/{steps}" + (f": {text}" if text else ""))

    def end_phase(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def row(self, row: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        if self._folder is not None:
            self._folder.append_metrics(row)

    def document(self, name: str, document: Any) -> None:
        """Write a JSON file of the run, in place of an earlier one of that name."""
        if self._folder is not None:
            self._folder.write_json(name, document)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self._events is not None:
            from torch.utils.tensorboard.summary import scalar

            for tag, value in values.items():
                self._events.add(scalar(printable(tag), value), step)

    def image(self, tag: str, rgb_HWC: np.ndarray, step: int) -> None:
        """A uint8 picture."""
        if self._events is not None:
            from torch.utils.tensorboard.summary import image

            self._events.add(image(printable(tag), rgb_HWC, dataformats="HWC"), step)

    def text(self, tag: str, text: str, step: int) -> None:
        if self._events is not None:
            from torch.utils.tensorboard import summary

            self._events.add(summary.text(printable(tag), printable(text, keep="\n")), step)

    @property
    def pictures(self) -> bool:
        """Whether drawing a picture for `image` is worth the time."""
        return self._events is not None

    def flush(self) -> None:
        """Write what TensorBoard is to show; called before a checkpoint that says it was shown."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        self.end_phase()
        if self._events is not None:
            self._events.close()
