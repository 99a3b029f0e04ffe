"""What a strategy is: it is asked for architectures and told their values, in any order."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from nge_search.counting import is_whole
from nge_search.errors import UserError, shorten
from nge_search.json_reader import Reader
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space

#: Draws, or mutations, of architectures that are all taken, after which there is taken to be no other.
DRAWS = 1000


class Strategy(ABC):
    """Chooses architectures by the values of those before; the higher, the better.

    Architectures are pending from when they are asked for until their value is told; values may be told in any
    order. One that was told may be asked for again: its value is known, and is to be told again. One that is
    pending is not, unless no other is found in `DRAWS` draws. All chance comes from one NumPy generator, so the
    same seed, questions and values give the same architectures; one question at a time, each answered before the
    next, is the method as published.

    Args:
        space: of the architectures.
        settings: of all strategies; each reads its own.
        policy: what gives P where P is learned.
        seed: of all chance.

    Attributes:
        name: in settings.
        pending: asked for and not yet told, in order.
    """

    name: ClassVar[str]

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        self.space, self.settings = space, settings
        self.pending: list[Code] = []
        self._pending_keys: list[bytes] = []
        self._random = np.random.default_rng(seed)

    def ask(self, count: int = 1) -> list[Code]:
        """The next architectures to evaluate.

        Raises:
            UserError: no number of architectures.
            RunFailure: a policy's probabilities are no longer finite.
        """
        if not is_whole(count) or count < 1:
            raise UserError(f"ask({shorten(count)}): give how many architectures, from 1 on")
        codes = []
        for _ in range(count):
            code = self._propose()
            self.pending.append(code)
            self._pending_keys.append(self.space.key(code))
            codes.append(code)
        return codes

    def tell(self, code: Code, value: float) -> None:
        """The value of a pending architecture.

        Raises:
            UserError: an architecture that is not pending, or a value that is no finite number.
            RunFailure: a policy's probabilities are no longer finite.
        """
        code = tuple(code) if isinstance(code, list) else code  # as JSON has it
        if not isinstance(code, tuple) or code not in self.pending:
            raise UserError(f"{shorten(code)} is not pending: it was not asked for, or its value was told before")
        number = _number(value)
        if not math.isfinite(number):
            raise UserError(f"{shorten(code)} has the value {shorten(value)}; give a finite number, however low")
        self.pending.remove(code)
        self._pending_keys.remove(self.space.key(code))
        self._learn(code, number)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly: JSON's values, and the tensors of a policy; a copy."""
        return {
            "strategy": self.name,
            "space": self.space.name,
            "random": self._random.bit_generator.state,
            "pending": as_lists(self.pending),
            **self._own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], source: str = "the state") -> None:
        """Go on from what `state_dict` of a strategy with the same space and settings gave.

        Raises:
            UserError: a state of another strategy or space, or a damaged one; names `source`.
        """
        reader = Reader(source, dict(state))
        reader.text("strategy", (self.name,))
        reader.text("space", (self.space.name,))
        random, pending = _generator(reader), self._codes(reader, "pending")
        self._load_own(reader, pending)
        self._random, self.pending = random, pending
        self._pending_keys = [self.space.key(code) for code in pending]

    @abstractmethod
    def _propose(self) -> Code:
        """The next architecture; pending ones are avoided where possible."""

    def _learn(self, code: Code, value: float) -> None:  # noqa: B027 - random search learns nothing
        """Take up a value."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """What a strategy keeps besides its generator and what is pending."""

    @abstractmethod
    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        """Take over what `_own_state` gave."""

    def _is_pending(self, code: Code) -> bool:
        return bool(self.pending) and self.space.key(code) in self._pending_keys

    def _uniform(self) -> Code:
        return self.space.random(self._random)

    def _not_pending(self, code: Code) -> Code:
        """The architecture, or a random one in its place if it is pending."""
        return draw_until_free(self._uniform, self._is_pending) if self._is_pending(code) else code

    def _codes(self, reader: Reader, name: str) -> list[Code]:
        """Architectures in a state."""
        given = reader.any(name)
        if not isinstance(given, list):
            raise UserError(f"{reader.source} is damaged: '{name}' must be a list, not {shorten(given)}")
        return [self._code(reader.source, code) for code in given]

    def _code(self, source: str, given: Any) -> Code:
        code = given if isinstance(given, list) else []
        if len(code) != self.space.length or not all(type(choice) is int and 0 <= choice < 256 for choice in code):
            raise UserError(f"{source} is damaged: {shorten(given)} is no architecture of {self.space.name}")
        return tuple(code)


class Seen:
    """Architectures that were asked for, whether pending or told."""

    def __init__(self, space: Space, codes: Iterable[Code] = ()):
        self._space = space
        self.keys = {space.key(code) for code in codes}

    def add(self, code: Code) -> None:
        self.keys.add(self._space.key(code))

    def __contains__(self, code: Code) -> bool:
        return self._space.key(code) in self.keys


def draw_until_free(draw: Callable[[], Code], taken: Callable[[Code], bool]) -> Code:
    """A drawn architecture that is not taken; the last one drawn if `DRAWS` are."""
    for _ in range(DRAWS - 1):
        code = draw()
        if not taken(code):
            return code
    return draw()


def as_lists(codes: Iterable[Code]) -> list[list[int]]:
    """Architectures as JSON has them."""
    return [list(code) for code in codes]


def _number(value: Any) -> float:
    """A value as a number; NaN for what is none, such as the None of an objective that returns nothing."""
    if isinstance(value, (str, bytes)):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def _generator(reader: Reader) -> np.random.Generator:
    generator = np.random.default_rng(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of numbers that do not fit, before NumPy 2
            generator.bit_generator.state = reader.section("random").document
    except (KeyError, TypeError, ValueError, OverflowError, DeprecationWarning) as error:
        raise UserError(f"{reader.source} is damaged: 'random' is no generator's ({shorten(error)})") from None
    return generator
