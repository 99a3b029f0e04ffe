"""Large numbers as people write them: 600M, 3.3M, 1.2G, 50_000_000."""

from __future__ import annotations

import math
import re

from nge_search.errors import UserError, shorten

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_WRITTEN = re.compile(r"(\d[\d_]{0,30}(?:\.\d{1,30})?(?:e\+?\d{1,2})?)([kmgbt]?)", re.IGNORECASE)


def read_amount(text: str, key: str) -> float:
    """The number that a text stands for; `key` is the setting or flag that holds it.

    Raises:
        UserError: it is none, or not above 0.
    """
    match = _WRITTEN.fullmatch(text)
    amount = float(match[1].replace("_", "")) * _UNITS[match[2].lower()] if match else math.nan
    if not 0 < amount < 1e18:
        raise UserError(f"{key}={shorten(text)}: give a number above 0, such as 600M, 3.3M or 50000000")
    return amount


def write_amount(amount: float) -> str:
    """A number of parameters or mult-adds in a few characters."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{amount / size:.4g}{unit}"
    return f"{amount:.4g}"


def read_target(macs: str | None, params: str | None, prefix: str) -> tuple[str, float] | None:
    """Which size is wanted, as ("macs" or "params", number); None: neither. `prefix` is what both keys begin with.

    Raises:
        UserError: both are given, or what is given is no number.
    """
    if macs is not None and params is not None:
        raise UserError(f"{prefix}params={shorten(params)}: give it or {prefix}macs, not both")
    for of, text in (("macs", macs), ("params", params)):
        if text is not None:
            return of, read_amount(text, f"{prefix}{of}")
    return None
