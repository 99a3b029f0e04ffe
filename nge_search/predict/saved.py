"""A trained predictor as two files of a folder: predictor.safetensors has its tensors, predictor.json all else.

predictor.json says what the predictor is, for which space, what it learnt from and how good it was found to be. It
is written last, and names the checksum of the tensors' file: two files that do not belong together are refused.
Both are read as if a stranger had written them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nge_search.engine.environment import package_versions
from nge_search.engine.run_reader import use_of
from nge_search.errors import UserError, plain, shorten
from nge_search.files import read_bytes, user_path, write_atomic, write_json
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import PREDICTOR, PREDICTOR_TENSORS
from nge_search.predict.base import Predictor
from nge_search.predict.labels import Labelled
from nge_search.predict.predictors import PREDICTORS, open_predictor
from nge_search.predict.shipped_predictor import open_shipped
from nge_search.spaces import SPACES, Space, read_space
from nge_search.tensor_reader import check_safetensors

FORMAT = "nge-predictor/1"
_FAMILY = "nge-predictor/"
#: What the predictor is called that the package brings; the name of its space.
SHIPPED = "darts"
#: Bytes of a predictor's files; the largest of ours, an ensemble on thousands of labels, has some ten million.
_LARGEST_TENSORS, _LARGEST_DOCUMENT = 1 << 28, 1 << 26
_TYPES = (torch.float64, torch.float32, torch.int64, torch.int32)


@dataclass(frozen=True)
class Lesson:
    """What a predictor has learnt from.

    Attributes:
        source: the file or table.
        count: labels.
        lowest, highest: of them, in percent.
        seed: of the training.
    """

    source: str
    count: int
    lowest: float
    highest: float
    seed: int

    @staticmethod
    def of(labelled: Labelled, seed: int) -> Lesson:
        label_N = labelled.label_N
        return Lesson(labelled.source, len(labelled), float(label_N.min()), float(label_N.max()), seed)


@dataclass(frozen=True)
class SavedPredictor:
    """A predictor that was trained, as it is kept.

    Attributes:
        model: the name of the predictor.
        space: of the architectures that it scores.
        predictor: ready to score.
        lesson: what it has learnt from.
        quality: figures of its quality, by name, as predict.json has them; empty where none were taken.
    """

    model: str
    space: Space
    predictor: Predictor
    lesson: Lesson
    quality: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """What it is, what it is made from, and how good it is, in one line."""
        own = self.lesson
        text = (
            f"{self.model} for {self.space.name}, trained on {own.count} labels ({own.lowest:.2f} to "
            f"{own.highest:.2f} %) of {own.source}"
        )
        tau, interval = self.quality.get("kendall_tau"), self.quality.get("interval")
        if not isinstance(tau, float):
            return f"{text}; its quality is not known"
        between = ""
        if isinstance(interval, list) and len(interval) == 2 and all(isinstance(end, float) for end in interval):
            between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"
        return f"{text}; Kendall's tau {tau:.2f}{between} on labels that it had not seen"


def save_predictor(folder: Path, saved: SavedPredictor) -> list[Path]:
    """Write both files, in place of earlier ones, the document last; returns their paths."""
    tensors, document = saved.predictor.state()
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    description = {
        "format": FORMAT,
        "model": saved.model,
        "space": saved.space.name,
        "vertices": saved.space.cell_space.vertices,
        "learnt": {
            "source": saved.lesson.source,
            "labels": saved.lesson.count,
            "lowest": saved.lesson.lowest,
            "highest": saved.lesson.highest,
            "seed": saved.lesson.seed,
        },
        "quality": dict(saved.quality),
        "versions": package_versions(),
        "tensors": hashlib.sha256(content).hexdigest(),
        "state": document,
    }
    paths = [folder / PREDICTOR_TENSORS, folder / PREDICTOR]
    write_atomic(paths[0], content)
    write_json(paths[1], description)
    return paths


def load_predictor(reference: str | Path, space: str = "") -> SavedPredictor:
    """The predictor in a folder: the run folder of `nge predict train`, or one that both files were copied into.

    Args:
        reference: the folder, or the document in it; `SHIPPED`, where nothing is called so: that of the package.
        space: the name of the space that it must be for; empty: any.

    Raises:
        UserError: no predictor, one of another version or space, or files that are damaged.
    """
    if str(reference) == SHIPPED and not user_path(reference).exists():
        return _shipped(space)
    path = _document_path(user_path(reference))
    found = Reader(str(path), read_json(path, _LARGEST_DOCUMENT))
    given = found.document.get("format")
    if given != FORMAT:
        if isinstance(given, str) and given.startswith(_FAMILY):
            raise UserError(
                f"{path} is of another version ({plain(given)}, and this one reads {FORMAT}); train it anew"
            )
        raise UserError(f"{path} is no predictor: its format is {shorten(given)}, not {FORMAT}")
    own = read_space(found)
    if space and own.name != space:
        raise UserError(f"{path} is a predictor for {own.name}, not for {space}")
    model = found.text("model", tuple(PREDICTORS))
    learnt = found.section("learnt")
    lesson = Lesson(
        plain(learnt.text("source"), 200),
        learnt.integer("labels", 2, 1 << 31),
        learnt.number("lowest", -1, 100),
        learnt.number("highest", -1, 100),
        learnt.integer("seed", 0, 1 << 31),
    )
    tensors = _read_tensors(path.with_name(PREDICTOR_TENSORS), found.text("tensors"))
    predictor = open_predictor(model, own)
    _load(predictor, tensors, found.section("state").document, path)
    return SavedPredictor(model, own, predictor, lesson, found.section("quality").document)


def _shipped(space: str) -> SavedPredictor:
    predictor = open_shipped(SPACES[space or SHIPPED]())
    own = predictor.own
    source = "random cells trained on CIFAR-10 as DARTS' authors train theirs (C=36, 20 cells, 600 epochs)"
    lesson = Lesson(source, own.trainings, own.worst, own.best, 0)
    return SavedPredictor("ridge", predictor.space, predictor, lesson, {"kendall_tau": own.tau[0]})


def _document_path(path: Path) -> Path:
    if path.is_dir():
        if not (path / PREDICTOR).exists():
            use = use_of(path)
            is_what = f"is {use}" if use else f"holds no {PREDICTOR}"
            raise UserError(f"'{path}' {is_what}; give the run folder of `nge predict train`")
        return path / PREDICTOR
    if not path.exists():
        raise UserError(
            f"predictor '{path}' does not exist; give the run folder of `nge predict train`, or {SHIPPED}"
        )
    return path.with_name(PREDICTOR) if path.name == PREDICTOR_TENSORS else path


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a file with this checksum; those of floating point are finite."""
    check_safetensors(path)
    content = read_bytes(path, _LARGEST_TENSORS)
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"'{path}' does not belong to the {PREDICTOR} beside it, or is damaged")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"'{path}' is not a safetensors file, or is damaged ({error})") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise UserError(f"'{path}' is damaged: {shorten(name)} is of the type {tensor.dtype}")
        if not tensor.isfinite().all():
            raise UserError(f"'{path}' is damaged: {shorten(name)} holds values that are not finite")
    return tensors


def _load(predictor: Predictor, tensors: dict[str, Tensor], state: dict[str, Any], path: Path) -> None:
    """Raise UserError, naming the file, where the state is none of the predictor's."""
    try:
        predictor.load_state(tensors, state)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: its state is none of this predictor ({shorten(error)})") from None
