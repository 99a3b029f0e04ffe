"""Epochs that are added to a training: what learning rate and drop-path do in them.

A training is planned for a number of epochs, over which its learning rate falls and drop-path rises. Where
`train.epochs` is changed on a run that has trained `first` epochs, or is in the last of them, the epochs from
`first` on are a stretch of their own, whose course begins at what the epoch before it had. The epochs before stay
as they were planned, so that a run goes on alike wherever it was stopped. A stretch of which nothing was trained
is as if it had never been added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from nge_search.engine.optimisers import cosine
from nge_search.errors import UserError, shorten
from nge_search.json_reader import Reader
from nge_search.settings import names
from nge_search.settings.optimisation import NetworkTrainSection

_CONSTANT, _, _RESTART = names.CONTINUATIONS
#: Of epochs, and of stretches, in a checkpoint.
_MOST = 1 << 31


@dataclass(frozen=True)
class Stretch:
    """Added epochs.

    Attributes:
        first: the first of them, from 0.
        before: how many epochs the training was to have until then.
        epochs: how many it is to have with them; `first` where all have begun.
        course: `train.continuation`, when they were added.
        rates: the learning rate with which each group of weights begins them, without warm-up.
        drop_path: the probability in the epoch before them.
        end: after how many epochs it was to end until then: `before`, unless it was asked to stop early.
    """

    first: int
    before: int
    epochs: int
    course: str
    rates: tuple[float, ...]
    drop_path: float
    end: int

    def rate(self, group: int, done: float, last: float) -> float:
        """The learning rate of a group once a share `done` of the stretch is over; it may fall towards `last`."""
        first = self.rates[group]
        return first if self.course == _CONSTANT else cosine(done, 1, first, last)

    def drop_path_rate(self, epoch: int, last: float) -> float:
        """Drop-path's probability in `epoch`: on a straight line towards `last` at the end of the stretch."""
        share = (epoch - self.first + 1) / (self.epochs - self.first + 1)
        return self.drop_path + (last - self.drop_path) * share

    @classmethod
    def read(cls, reader: Reader, groups: int) -> Stretch:
        """One of a checkpoint; UserError where it is none, or of other groups of weights."""
        first, before = reader.integer("first", 0, _MOST), reader.integer("before", 1, _MOST)
        epochs = reader.integer("epochs", max(first, 1), _MOST)
        course = reader.text("course", names.CONTINUATIONS)
        rates = tuple(reader.numbers("rates", groups))
        drop_path = reader.number("drop_path", -1, 1)
        end = reader.integer("end", 1, before) if "end" in reader.document else before
        return cls(first, before, epochs, course, rates, drop_path, end)


class Plan:
    """The epochs of a training: those that it was begun with, and the stretches that were added.

    Attributes:
        original: how many it was begun with, which is what its schedules span.
        stretches: in the order in which they were added.
    """

    def __init__(self, section: NetworkTrainSection):
        self.section, self.original = section, section.epochs
        self.stretches: list[Stretch] = []

    def at(self, epoch: int) -> Stretch | None:
        """The stretch that an epoch is in; None for those that the training was begun with."""
        return next((stretch for stretch in reversed(self.stretches) if stretch.first <= epoch), None)

    def ended(self, epoch: int) -> bool:
        """Whether `epoch` had begun as the last one when more were added: it is evaluated as such."""
        return any(stretch.end == stretch.first == epoch + 1 for stretch in self.stretches)

    def take_up(
        self,
        before: int,
        first: int,
        rates: Callable[[int], tuple[float, ...]],
        initial: tuple[float, ...],
        drop_path: Callable[[int], float],
        source: str,
        end: int | None = None,
    ) -> Stretch | None:
        """Plan the epochs that are left anew where train.epochs was changed; None if it was not.

        Args:
            before: how many there were to be.
            first: the first that had not begun, from 0.
            rates: the learning rates of an epoch's end, by group and without warm-up, as planned so far.
            initial: those with which the training began.
            drop_path: the probability in an epoch, as planned so far.
            source: what messages call the checkpoint.
            end: after how many it was to end, where it was asked to stop early.

        Raises:
            UserError: another course for epochs that were added before, or a damaged checkpoint.
        """
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.epochs != before:
            raise UserError(f"{source} is damaged: its 'stretches' end at epoch {last.epochs} of {before}")
        course = self.section.continuation
        if last is not None and first <= last.first and self.section.epochs < before and last.end == last.before:
            self.stretches.pop()
            return self.take_up(last.before, first, rates, initial, drop_path, source, last.end)
        if before == self.section.epochs:
            if last is not None and last.course != course:
                raise UserError(
                    f"train.continuation={course}: the epochs from {last.first + 1} on were added with "
                    f"train.continuation={last.course}; keep it until train.epochs is raised again"
                )
            return None
        if last is None:
            self.original = before
        ending = max(first - 1, 0)
        own = initial if course == _RESTART else rates(ending)
        stretch = Stretch(first, before, self.section.epochs, course, own, drop_path(ending), end or before)
        self.stretches.append(stretch)
        return stretch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: nothing where nothing was added."""
        found = [{**asdict(stretch), "rates": list(stretch.rates)} for stretch in self.stretches]
        return {"stretches": found} if found else {}

    def load_state_dict(self, state: dict[str, Any], groups: int, source: str) -> None:
        """Take over what a checkpoint of so many groups of weights has; UserError where it is damaged."""
        given = state.get("stretches", [])
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise UserError(f"{source} is damaged: 'stretches' must be a list of stretches, not {shorten(given)}")
        self.stretches = [Stretch.read(Reader(source, one), groups) for one in given]
        if self.stretches:
            self.original = self.stretches[0].before


def describe(stretch: Stretch, last_rate: float, last_drop_path: float, averages: bool) -> str:
    """What becomes of a training to which epochs were added, in a line.

    Args:
        last_rate: train.learning_rate_min.
        last_drop_path: network.drop_path.
        averages: whether the weights are averaged.
    """
    changed = f"train.epochs was {stretch.before} and is {stretch.epochs}"
    if stretch.first >= stretch.epochs:
        return changed
    rates = " and ".join(f"{rate:.4g}" for rate in stretch.rates)
    course = f"stays at {rates}" if stretch.course == _CONSTANT else f"falls from {rates} to {last_rate:.4g}"
    words = [f"from epoch {stretch.first + 1} on the learning rate {course} (train.continuation={stretch.course})"]
    if last_drop_path:
        words.append(f"drop-path rises from {stretch.drop_path:.4g} to {last_drop_path:.4g}")
    words.append(f"momentum{' and the average of the weights go' if averages else ' goes'} on")
    return f"{changed}: {', '.join(words)}"
