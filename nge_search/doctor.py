"""What this machine can do: versions, devices, precision, processes, datasets; and what to install for the rest."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nge_search.engine.environment import device_name, package_versions
from nge_search.files import user_path
from nge_search.settings.data import DATASETS

_EXTRAS = {
    "test": ("pytest", "hypothesis", "ruff"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
}


def examine(root: str | Path) -> dict[str, Any]:
    """Everything `nge doctor` reports, as a JSON object; `root` is where datasets are looked for."""
    root = user_path(root)
    gpus = [device_name(torch.device("cuda", index)) for index in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "packages": package_versions(),
        "cpu": {
            "name": device_name(torch.device("cpu")),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "precision": {
            "fp32": True,
            "tf32": bool(gpus) and torch.cuda.get_device_capability() >= (8, 0),
            "bf16": not gpus or torch.cuda.is_bf16_supported(),
            "fp64": True,
        },
        "backends": {
            "gloo": dist.is_available() and dist.is_gloo_available(),
            "nccl": dist.is_available() and dist.is_nccl_available() and bool(gpus),
        },
        "datasets": {
            "digits": True,
            "cifar10": (root / "cifar-10-batches-py").is_dir(),
            "cifar100": (root / "cifar-100-python").is_dir(),
            **_published(root),
        },
        "root": str(root),
        "extras": {
            extra: [module for module in modules if importlib.util.find_spec(module) is None]
            for extra, modules in _EXTRAS.items()
        },
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }


def _published(root: Path) -> dict[str, bool]:
    """ImageNet or Tiny-ImageNet, where `root` holds as many classes; nobody can be told how to get them."""
    train, val = root / "train", root / "val"
    if not train.is_dir() or not val.is_dir():
        return {}
    count = sum(entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(train))
    return {name: True for name in ("imagenet", "tiny_imagenet") if DATASETS[name].classes == count}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings as advice, one line each."""
    cpu = findings["cpu"]
    text = [f"python {findings['python']}"]
    for name, version in findings["packages"].items():
        text.append(f"{name} {version}" if version else f"{name} is missing: pip install {name}")
    text.append(f"CPU: {cpu['name']}, {_count(cpu['cores'], 'core')}, {_count(cpu['threads'], 'thread')}")
    if findings["gpus"]:
        text += [f"GPU: {name}" for name in findings["gpus"]]
    elif findings["cuda"]:
        text.append(
            f"GPU: none found; torch is built for CUDA {findings['cuda']}, check the driver with nvidia-smi"
        )
    else:
        text.append("GPU: none; this torch is a CPU build")
    text.append("precision: " + ", ".join(name for name, works in findings["precision"].items() if works))
    text.append("processes: " + (", ".join(name for name, works in findings["backends"].items() if works) or "one"))
    for name, found in findings["datasets"].items():
        advice = f"not in '{findings['root']}'; set data.root=, or data.download=true fetches it"
        text.append(f"dataset {name}: {'ready' if found else advice}")
    for extra, missing in findings["extras"].items():
        state = f"missing {', '.join(missing)}: pip install 'nge-search[{extra}]'" if missing else "installed"
        text.append(f"extra '{extra}': {state}")
    text.append(f"free disk here: {findings['free_disk_gb']} GB")
    return text
