"""Where a run lives, and what every command that leaves a run folder has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.data import DataSection

DEVICES = ("auto", "cpu", "cuda")
#: The meaning of `--device`, a flag of commands that leave no run folder.
DEVICE_HELP = "device to compute on; auto: a GPU if there is one (auto)"


@dataclass
class RunSection(Section):
    """Where a run lives and what it writes."""

    prefix: ClassVar[str] = "run"

    name: str = option("", "Name of the run; empty: the name of the config file.", free_on_resume=True)
    dir: str = option("", "Folder of the run; empty: runs/<kind>/<name>.", free_on_resume=True, path=True)
    overwrite: bool = option(
        False, "Start anew in a folder that holds a run, and delete that run.", free_on_resume=True
    )
    log_every: int = option(
        50,
        "Number of steps between log lines; only these steps read results back.",
        at_least=1,
        free_on_resume=True,
    )
    checkpoint_seconds: float = option(
        60.0,
        "Seconds between checkpoints inside an epoch; 0: after every step.",
        at_least=0,
        free_on_resume=True,
    )
    progress: str = option(
        "auto",
        "How progress is displayed; auto: a bar on a terminal, plain lines otherwise.",
        choices=("auto", "bar", "lines", "none"),
        free_on_resume=True,
    )
    tensorboard: bool = option(True, "Write event files for TensorBoard.", free_on_resume=True)
    stall_seconds: float = option(
        1800.0,
        "Seconds that the processes of a run wait for one that stands still, before it is named and the run ends; "
        "longer than its longest evaluation.",
        at_least=1,
        at_most=10**6,
        free_on_resume=True,
    )

    @property
    def worker_patience(self) -> float:
        """Seconds that one process waits for its workers: less, so that it says why before others miss it."""
        return 0.9 * self.stall_seconds


@dataclass
class RunningConfig(Section):
    """What every command that leaves a run folder has."""

    kind: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]

    seed: int = option(0, "Seed of everything random.", at_least=0)
    threads: int = option(
        0, "Number of CPU threads of torch; 0: its own choice.", at_least=0, at_most=1024, free_on_resume=True
    )
    plugins: list[str] = option(
        [],
        "Modules of yours that register operations; imported from the current folder or as they are installed, "
        "when a command or a config file of yours names them, and never from a run folder.",
        free_on_resume=True,
    )
    run: RunSection = field(default_factory=RunSection)

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings that follow from those given, by their keys; they give way to what is given beside those."""
        return {}


@dataclass
class DeviceConfig(RunningConfig):
    """What every command has that computes on a device, on one of several processes perhaps."""

    device: str = option(
        "auto",
        "Device to compute on; auto: a GPU if there is one.",
        choices=DEVICES,
        free_on_resume=True,
    )
    precision: str = option(
        "fp32",
        "Precision of the computation: fp32; tf32: products rounded on GPUs that can; bf16: mixed, with P, losses "
        "and statistics in fp32; fp64: for checking results.",
        choices=("fp32", "tf32", "bf16", "fp64"),
    )


@dataclass
class CommandConfig(DeviceConfig):
    """What every command that trains on images has."""

    data: DataSection = field(default_factory=DataSection)
