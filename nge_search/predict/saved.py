"""A trained predictor as two files of a folder: predictor.safetensors has its tensors, predictor.json all else.

predictor.json says what the predictor is, for which space, what it learnt from and how good it was found to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nge_search.engine.model_files import ModelFiles
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.kinds import PREDICTOR, PREDICTOR_TENSORS
from nge_search.predict.base import Predictor
from nge_search.predict.predictors import PREDICTORS, open_predictor
from nge_search.predict.shipped_predictor import open_shipped
from nge_search.spaces import SPACES, Space, read_space
from nge_search.tables.labels import Lesson

#: What the predictor is called that the package brings; the name of its space.
SHIPPED = "darts"
_FILES = ModelFiles(
    "predictor",
    "nge-predictor",
    1,
    PREDICTOR,
    PREDICTOR_TENSORS,
    f"the run folder of `nge predict train`, or {SHIPPED}",
)


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
        text = f"{self.model} for {self.space.name}, trained on {self.lesson}"
        tau, interval = self.quality.get("kendall_tau"), self.quality.get("interval")
        if not isinstance(tau, float):
            return f"{text}; its quality is not known"
        between = ""
        if isinstance(interval, list) and len(interval) == 2 and all(isinstance(end, float) for end in interval):
            between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"
        return f"{text}; Kendall's tau {tau:.2f}{between} on labels that it had not seen"


def save_predictor(folder: Path, saved: SavedPredictor) -> list[Path]:
    """Write both files, in place of earlier ones, the document last; returns their paths."""
    tensors, state = saved.predictor.state()
    document = {
        "model": saved.model,
        "space": saved.space.name,
        "vertices": saved.space.cell_space.vertices,
        "learnt": saved.lesson.to_dict(),
        "quality": dict(saved.quality),
        "state": state,
    }
    return _FILES.save(folder, tensors, document)


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
    found = _FILES.read(reference)
    own = read_space(found)
    if space and own.name != space:
        raise UserError(f"{found.source} is a predictor for {own.name}, not for {space}")
    model = found.text("model", tuple(PREDICTORS))
    lesson = Lesson.read(found.section("learnt"))
    tensors, state = _FILES.read_tensors(found), found.section("state").document
    predictor = open_predictor(model, own)
    _FILES.open(found, lambda: predictor.load_state(tensors, state))
    return SavedPredictor(model, own, predictor, lesson, found.section("quality").document)


def _shipped(space: str) -> SavedPredictor:
    predictor = open_shipped(SPACES[space or SHIPPED]())
    own = predictor.own
    source = "random cells trained on CIFAR-10 as DARTS' authors train theirs (C=36, 20 cells, 600 epochs)"
    lesson = Lesson(source, own.trainings, own.worst, own.best, 0)
    return SavedPredictor("ridge", predictor.space, predictor, lesson, {"kendall_tau": own.tau[0]})
