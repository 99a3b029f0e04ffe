"""What runs take from Python besides settings, checked before anything begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nge_search.engine.watched_run import Run
from nge_search.errors import UserError, shorten
from nge_search.kinds import Kind

#: Is called after every epoch, by the first process.
OnEpoch = Callable[[Run], object]

#: What `data.name` and `network.genotype` say of what is given.
OWN = "own"


@dataclass(frozen=True)
class Images:
    """Your own images, for `dataset=`.

    Attributes:
        train: a map-style dataset (`len`, and items by position): each item is (image, class, ...), the image a PIL
            image, an array uint8 [H, W] or [H, W, 3], or a tensor [C, H, W], uint8 or of numbers from 0 to 1; the
            class is a number from 0. Images as they are: cropping, flips and normalisation are made here.
        test: likewise; neither a search nor a training learns from it.
        classes: names; by default those that `train.classes` lists, else numbers.
        mean, std: per channel, of pixels from 0 to 1; by default those of the training images.
    """

    train: Any
    test: Any
    classes: Sequence[str] = ()
    mean: Sequence[float] = ()
    std: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Make tuples of lists, arrays and tensors; UserError for what is none."""
        for name in ("classes", "mean", "std"):
            values = getattr(self, name)
            if hasattr(values, "tolist"):
                values = values.tolist()
            if not isinstance(values, (list, tuple)):
                raise UserError(f"dataset: {name}={shorten(values)}: give a list, one entry for each")
            plain = (value.tolist() if hasattr(value, "tolist") else value for value in values)
            object.__setattr__(self, name, tuple(plain))

    @classmethod
    def of(cls, given: Any) -> Images:
        """Images, or a pair of datasets; UserError for anything else."""
        if isinstance(given, cls):
            return given
        if isinstance(given, (tuple, list)) and len(given) == 2:
            return cls(*given)
        raise UserError(f"dataset={shorten(given)}: give nge_search.Images, or a pair (train, test) of datasets")


def check(kind: Kind, given: dict[str, Any]) -> dict[str, Any]:
    """What is given to a run of a kind, without what is None, in the form in which its function takes it.

    Raises:
        UserError: something that this kind of run does not take, or that is no such thing.
    """
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        if name not in kind.given:
            takes = " and ".join(f"{one}=" for one in kind.given) or "nothing"
            what = f"task={kind.task}" if kind.task else kind.name
            raise UserError(f"{name}=: {what} takes {takes} besides settings")
        if name == "on_epoch" and callable(value) and not _takes_one(value):
            raise UserError(f"on_epoch={shorten(value)}: it must take one argument, the run")
        if name == "on_epoch" and (not callable(value) or inspect.iscoroutinefunction(value)):
            raise UserError(f"on_epoch={shorten(value)}: give a function (not `async`), which is called with a run")
    if "dataset" in found:
        found["dataset"] = Images.of(found["dataset"])
    return found


def _takes_one(function: Callable[..., object]) -> bool:
    """Whether a function can be called with one argument, as far as it tells."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # a built-in one tells nothing
        pass
    return True


def settings_of(given: dict[str, Any]) -> list[str]:
    """Settings that say what is given."""
    named = {"dataset": "data.name", "network": "network.genotype"}
    return [f"{named[name]}={OWN}" for name in given if name in named]
