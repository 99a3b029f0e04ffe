"""How the report reads numbers, and writes them: as short as they stay exact enough to compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"
_SPACE = "\u00a0"  # keeps a number and its unit on one line
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TINY, _HUGE = 1e-200, 1e200  # charts must be able to take differences and quotients


def number(value: Any) -> float:
    """A finite number as float; NaN for anything else. What only rounding errors reach becomes 0 or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        converted = float(value)
    except OverflowError:
        return math.nan
    if abs(converted) < _TINY:
        return 0.0
    return converted if abs(converted) < _HUGE else math.nan


def plain(value: float, digits: int = 4) -> str:
    """`digits` significant digits, without an exponent between 0.001 and 100000."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        mantissa, _, exponent = f"{value:.{max(digits - 2, 0)}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(value: float, unit: str = "") -> str:
    """With a decimal prefix from 10 000 on: 9999, 12.4 k, 528.1 M."""
    if not math.isfinite(value):
        return MISSING
    for factor, prefix in _PREFIXES:
        if abs(value) >= max(factor, 1e4):
            return f"{plain(value / factor)}{_SPACE}{prefix}{unit}"
    return f"{plain(value)}{_SPACE}{unit}".rstrip()


def percent(value: float) -> str:
    """A figure that is already in percent: 97.24 %."""
    return f"{value:.2f}{_SPACE}%" if math.isfinite(value) else MISSING


def share(value: float) -> str:
    """A share between 0 and 1, in percent: 0.43 is 43 %."""
    return f"{100 * value:.0f}{_SPACE}%" if math.isfinite(value) else MISSING


def duration(seconds: float) -> str:
    """The two largest units: 2 d 4 h, 3 h 12 min, 5 min 20 s, 12.3 s."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{plain(seconds, 3)}{_SPACE}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60}{_SPACE}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}{_SPACE}h {minutes % 60}{_SPACE}min"
    hours = round(seconds / 3600)
    return f"{hours // 24}{_SPACE}d {hours % 24}{_SPACE}h"


def mean_of(result: Mapping[str, Any], figure: str) -> float:
    """The mean of a figure over seeds, as `metrics.comparison.summarise` has it; NaN where it has none."""
    found = result.get(figure)
    return number(found.get("mean")) if isinstance(found, dict) else math.nan


def with_deviation(result: Mapping[str, Any], figure: str) -> str:
    """The mean of a figure over seeds, and its deviation where there is one."""
    found = result.get(figure)
    if not isinstance(found, dict):
        return plain(math.nan)
    deviation = found["deviation"]
    return plain(mean_of(result, figure)) + ("" if deviation is None else f" ± {plain(number(deviation), 2)}")
