"""Sound predictors of `hostile_inputs.py`, one for each way to keep what was learnt, and how they are mutated."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hostile_mutations import Sound, bytes_mutated, json_file_mutated
from safetensors.torch import load, save
from torch import Tensor

from nge_search.predict.base import Predictor
from nge_search.predict.boosting import BoostedTrees
from nge_search.predict.nasbowl import Nasbowl
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.networks import ta_gates
from nge_search.predict.own import DEFAULTS, Ensemble
from nge_search.predict.saved import SavedPredictor, save_predictor
from nge_search.predict.trees import Trees
from nge_search.predict.zero_cost import ZeroCostSettings
from nge_search.spaces import DartsSpace, NasBench101Space, NasBench201Space, Space
from nge_search.tables.labels import Labelled, Lesson

_LABELS = 12


def predictors(root: Path) -> list[Sound]:
    """Predictors of little training, each with architectures to score."""
    quick = replace(DEFAULTS, training=replace(DEFAULTS.training, epochs=1))
    options = NetworkOptions(epochs=1, breaking="add", analytic=True, zero_cost=ZeroCostSettings(batch=2, side=4))
    return [
        _predictor(root, "nasbowl", Nasbowl, NasBench101Space(5)),
        _predictor(root, "ensemble", lambda space: Ensemble(space, quick), NasBench201Space()),
        _predictor(root, "ta_gates", lambda space: ta_gates(space, options), NasBench201Space()),
        _predictor(root, "xgboost", _trees, DartsSpace()),
    ]


def _predictor(root: Path, model: str, build: Callable[[Space], Predictor], space: Space) -> Sound:
    folder, draw = root / f"predictor-{model}", np.random.default_rng(0)
    folder.mkdir()
    codes = [space.random(draw) for _ in range(_LABELS)]
    label_N, predictor = 90 + draw.random(_LABELS), build(space)
    if model != "xgboost":
        predictor.fit([space.graphs(code) for code in codes], torch.from_numpy(label_N), 0)
    lesson = Lesson.of(Labelled(space, codes, label_N, "'cells.csv'"), 0)
    save_predictor(folder, SavedPredictor(model, space, predictor, lesson, {"kendall_tau": 0.5}))
    with (folder / "cells.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["architecture"], *([space.text(code)] for code in codes[:3])])
    return Sound(model, folder, ("predict", "score", ".", "cells.csv"), _mutate)


def _trees(space: Space) -> BoostedTrees:
    """Two trees, written by hand so that the library which grows them need not be there."""
    left_K, right_K = np.array([1, 1, 2, 4, 4, 5]), np.array([2, 1, 2, 5, 4, 5])
    trees = Trees(np.array([0, 3]), left_K, right_K, np.array([2, 0, 0, 5, 0, 0]), np.linspace(0.1, 0.9, 6))
    predictor = BoostedTrees(space)
    predictor.load_state(trees.tensors(), {})
    return predictor


def _mutate(folder: Path, draw: random.Random) -> None:
    """The document, or the tensors: mostly by somebody who knows how to name their checksum."""
    path, document = folder / "predictor.safetensors", folder / "predictor.json"
    how = draw.random()
    if how < 0.5:
        json_file_mutated(document, draw)
        return
    content = path.read_bytes()
    content = bytes_mutated(content, draw) if how < 0.65 else save(_tensors_mutated(load(content), draw))
    path.write_bytes(content)
    if draw.random() < 0.9:
        described = json.loads(document.read_text())
        described["tensors"] = hashlib.sha256(content).hexdigest()
        document.write_text(json.dumps(described))


def _tensors_mutated(tensors: dict[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    for _ in range(draw.choice((1, 1, 2, 4))):
        name = draw.choice(sorted(tensors))
        own, how = tensors[name], draw.randrange(5)
        if how == 0 and len(tensors) > 1:
            del tensors[name]
        elif how == 1:
            tensors[name] = tensors[draw.choice(sorted(tensors))].clone()
        elif how == 2:
            flat = own.flatten()
            tensors[name] = draw.choice((flat[:1], flat[:0], own[None], flat, flat.repeat(2), flat.sum()))
        elif how == 3:
            tensors[name] = own.to(draw.choice((torch.float32, torch.float64, torch.int64, torch.int32)))
        elif own.numel():
            values = own.flatten().clone()
            odd = (0, -1, 1e30, 1e-300, np.nan) if own.is_floating_point() else (0, -1, 1 << 30)
            values[draw.randrange(len(values)) if draw.random() < 0.7 else slice(None)] = draw.choice(odd)
            tensors[name] = values.reshape(own.shape)
        tensors = {key: value.contiguous() for key, value in tensors.items()}
    return tensors
