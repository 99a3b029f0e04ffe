"""What a run ran on: versions, device, memory, and how far results can be expected to repeat."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from nge_search.engine.launch import WAITING

PACKAGES = ("torch", "torchvision", "numpy", "timm", "tensorboard", "omegaconf", "scikit-learn", "matplotlib")


def package_versions() -> dict[str, str | None]:
    """The installed version of each package the project uses; None where it is missing."""
    versions: dict[str, str | None] = {}
    for name in ("nge-search", *PACKAGES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def device_name(device: torch.device) -> str:
    """The model of the GPU, or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of the code that runs, with `+changes` if the checkout was modified; None outside one."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    finished = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return finished.stdout.strip()


def describe(device: torch.device, world_size: int, seed: int) -> dict[str, Any]:
    """The content of environment.json."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": device.type,
        "device_name": device_name(device),
        "cpu_cores": os.cpu_count(),
        "world_size": world_size,
        "threads": torch.get_num_threads(),
        "waiting": {name: os.environ[name] for name in WAITING if name in os.environ},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def results_header(*command: str) -> dict[str, Any]:
    """What a file of measured results says first: the command and its words, date, hardware, versions."""
    return {
        "command": " ".join(command),
        "date": datetime.date.today().isoformat(),
        "hardware": device_name(torch.device("cpu")),
        "packages": package_versions(),
    }


def exactness(device: torch.device, world_size: int) -> dict[str, Any]:
    """What must not change for a resumed run to repeat an uninterrupted one bit for bit."""
    return {
        "torch": str(torch.__version__),
        "device": device.type,
        "device_name": device_name(device),
        "world_size": world_size,
        "threads": torch.get_num_threads(),
    }


def peak_memory_mb(device: torch.device) -> float:
    """The process's peak memory in MB: allocated on the GPU, or resident (RSS) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
