"""Searches in DARTS' space for `search_quality.py`, and retrainings of what they derive beside other cells.

All cells are retrained with nearly the same mult-adds: those that are derived with CHANNELS channels, the others
with as many as bring them nearest to the derived ones' mean.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_trials import DRAWN as OPERATIONS_DRAWN
from search_trials import QUIET, SPLIT, Inputs, Trial

import nge_search
from nge_search.architecture.load import Architecture, load_architecture
from nge_search.files import write_json
from nge_search.networks.families import FAMILIES, Trainable
from nge_search.networks.sizes import nearest_channels, network_size
from nge_search.predict.shipped import expected
from nge_search.spaces import DartsSpace

IMAGES = ("data.name=folder", "data.limit=10000", "data.image_size=16")
SUPERNET = ("supernet.channels=8", "supernet.cells=5", "search.evaluate_every=0")
TRAINING = ("train.batch_size=64", "train.evaluate_every=15", "network.cells=5")
#: Of the reported searches; others were looked at while settings were chosen.
SEEDS = range(4, 7)
EPOCHS = 15
CHANNELS, SIDE, CELLS = 16, 16, 5
#: Most that a cell's mult-adds may be from the mean of the derived ones, as a share of it.
TOLERANCE = 0.07
#: Of a search that takes its 20 minutes of a core.
DRAWN = (*OPERATIONS_DRAWN, "search.epochs=16", "search.warmup_epochs=8")
#: Shared weights favour what has none: a search ends once most of its normal cell is of that kind.
STOP = ("search.stop_count=5", "search.stop_operations=[skip_connect,max_pool_3x3,avg_pool_3x3]")
SEARCHES = {
    "nge, drawn, split": (*DRAWN, SPLIT, *STOP),
    "direct, drawn": (*DRAWN, "embedding.kind=direct", "embedding.learning_rate=3e-4", *STOP),
}
#: The search whose cells are reported.
REPORTED = "nge, drawn, split"


def search(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """A search, its cells, the last that P derived, and what the predictor that ships expects of the former."""
    words = (*QUIET, *IMAGES, f"data.root={inputs.images}", f"seed={trial.seed}", f"run.dir={trial.folder}")
    nge_search.search(None, *words, *SUPERNET, *SEARCHES[trial.method])
    rows = [json.loads(line) for line in (trial.folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "found": _cell(load_architecture(str(trial.folder))),
        "derived": _genes(rows[-1]["genotype"]),
        "search_seconds": rows[-1]["seconds"],
        "p": {name: rows[-1][name] for name in rows[-1] if name.startswith("p_")},
    }


def _cell(architecture: Architecture) -> dict[str, Any]:
    genotype = architecture.genotype
    assert genotype is not None
    expectation = expected(genotype)
    return {
        "genes": _genes(genotype.to_dict()),
        "expected_error": None if expectation is None else round(expectation.error, 3),
        "macs": macs(architecture, CHANNELS),
    }


def _genes(document: dict[str, Any]) -> dict[str, Any]:
    return {kind: document[kind] for kind in ("normal", "reduce") if kind in document}


def macs(architecture: Architecture, channels: int) -> int:
    """Mult-adds of a network of CELLS cells on an image of SIDE pixels."""
    with torch.device("meta"):
        return network_size(_network(architecture, channels), "macs", SIDE)


def _network(architecture: Architecture, channels: int) -> Trainable:
    return FAMILIES["cifar"].build(architecture.graphs, channels, CELLS, 10)


def channels_of(architecture: Architecture, target: float) -> int:
    """The number of channels with the mult-adds nearest to a target.

    Raises:
        ValueError: they are further away than TOLERANCE.
    """
    channels, found = nearest_channels(functools.partial(_network, architecture), "macs", SIDE, target, "target")
    if abs(found - target) > TOLERANCE * target:
        raise ValueError(f"{architecture.source}: {found} mult-adds, wanted {target:.0f}")
    return channels


def retrain(trial: Trial, inputs: Inputs) -> dict[str, Any]:
    """Test error of a cell after a retraining: a derived one, a random one, one operation throughout, DARTS_V2."""
    reported = [load_architecture(Trial("darts search", REPORTED, seed).folder) for seed in SEEDS]
    target = float(np.mean([macs(architecture, CHANNELS) for architecture in reported]))
    if trial.method in SEARCHES:
        architecture = load_architecture(Trial("darts search", trial.method, trial.seed).folder)
    else:
        architecture = load_architecture(_other(trial))
    channels = CHANNELS if trial.method == REPORTED else channels_of(architecture, target)
    words = (f"train.epochs={EPOCHS}", f"network.channels={channels}", f"network.genotype={architecture.source}")
    own = (f"data.root={inputs.images}", "seed=0", f"run.dir={trial.folder}")
    summary = nge_search.evaluate(None, *QUIET, *IMAGES, *TRAINING, *words, *own)
    return {
        "found": {**_cell(architecture), "macs": summary["macs"]},
        "channels": channels,
        "top1_error": summary["top1_error"],
    }


def _other(trial: Trial) -> str:
    """The name, or the file, of a cell that no search has derived."""
    if trial.method == "darts_v2":
        return trial.method
    space = DartsSpace()
    if trial.method == "random":
        code = space.random(np.random.default_rng(trial.seed))
    else:
        code = space.throughout(space.cell_space.operations.index(trial.method))
    path = Path(f"{trial.folder}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, space.to_dict(code, {"source": trial.method}))
    return str(path)
