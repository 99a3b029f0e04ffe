"""What a setting is: its default, meaning and limits, checked when a configuration is built.

One dataclass per section and one per command. `option` attaches what `--help` prints and what
`Section` checks, so a setting is described in one place only. Messages name the key to change.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

from nge_search.errors import UserError, nearest, plain
from nge_search.operation_registry import OF_YOURS

#: Of `option`: runs from before the setting was there had its default.
THE_DEFAULT = object()


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    free_on_resume: bool = False,
    may_grow: bool = False,
    path: bool = False,
    unset: Any = THE_DEFAULT,
) -> Any:
    """A dataclass field with its meaning and limits.

    Args:
        choices: what is allowed, or a function that tells: what users may add to.
        free_on_resume: a resumed run may change it.
        may_grow: a resumed run may raise it, a finished one too, which then goes on.
        path: it is a path, whose `~` is expanded.
        unset: what runs had from before the setting was there.
    """
    metadata = {
        "meaning": meaning,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "free_on_resume": free_on_resume,
        "may_grow": may_grow,
        "path": path,
        "unset": unset,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def with_default(section: type[Section], name: str, default: Any) -> Any:
    """An option of a section, for one that inherits from it, with another default.

    Runs from before the setting was there had the section's.
    """
    item = next(own for own in dataclasses.fields(section) if own.name == name)
    return field(default=default, metadata={**item.metadata, "unset": item.default})


_LARGEST_INTEGER = 2**31 - 1


_LIMITS = (
    ("at_least", "at least", lambda value, limit: value >= limit),
    ("above", "above", lambda value, limit: value > limit),
    ("at_most", "at most", lambda value, limit: value <= limit),
    ("below", "below", lambda value, limit: value < limit),
)


@dataclasses.dataclass
class Section:
    """Checks each field against the limits that `option` recorded, at construction."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if "meaning" in item.metadata:
                self._check_field(item.name, getattr(self, item.name), item.metadata)
        self.check()

    def check(self) -> None:
        """What limits on single fields cannot say; raises UserError. Sections override it."""

    def key(self, name: str) -> str:
        return f"{self.prefix}.{name}" if self.prefix else name

    def refuse(self, name: str, why: str) -> UserError:
        """The error for a field of this section: `key=value: why`."""
        return UserError(f"{self.key(name)}={plain(getattr(self, name), 300)}: {why}")

    def require_distinct(self, *names: str) -> None:
        """Raise UserError for lists of this section that are empty, or have something twice."""
        for name in names:
            if not getattr(self, name):
                raise self.refuse(name, "give at least one")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise self.refuse(name, "one stands there twice")

    def _check_field(self, name: str, value: Any, limits: Any) -> None:
        choices, own = limits["choices"], ""
        if callable(choices):  # those of operations, which grow
            choices, own = choices(), f"; {OF_YOURS}"
        for element in value if isinstance(value, list) else [value]:
            if element is None:
                continue
            if choices and element not in choices:
                hint = nearest(str(element), choices)
                raise UserError(f"{self.key(name)}={plain(element)}: allowed are {', '.join(choices)}{hint}{own}")
            if isinstance(element, float) and not math.isfinite(element):
                raise UserError(f"{self.key(name)}={element}: must be a finite number")
            if isinstance(element, int) and abs(element) > _LARGEST_INTEGER:
                raise UserError(f"{self.key(name)}={plain(element)}: must be at most {_LARGEST_INTEGER}")
            for limit, words, holds in _LIMITS:
                if limits[limit] is not None and not holds(element, limits[limit]):
                    raise UserError(f"{self.key(name)}={element}: must be {words} {limits[limit]}")
