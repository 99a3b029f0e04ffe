"""Names of things that stand later in the package, to be imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(place: str) -> Any:
    """What "module:name" stands for."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
