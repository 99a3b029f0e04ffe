"""Scatter plots of predictions against labels as inline SVG, with intervals where there are some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from nge_search.report.parts.charts import ticks
from nge_search.report.parts.numbers import plain

_WIDTH, _HEIGHT = 460, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 38
#: Points that are drawn; of more, every so many.
_MOST = 2000


@dataclass(frozen=True)
class Point:
    """One architecture: its label, its prediction, and between what that is expected to be (or NaN)."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


def scatter(title: str, points: Sequence[Point], x_name: str, y_name: str, diagonal: bool) -> str:
    """A <figure>; empty without a point. `diagonal` marks where both are equal: they have one scale."""
    points = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not points:
        return ""
    points = points[:: -(-len(points) // _MOST)]
    xs, ys = [point.x for point in points], [point.y for point in points]
    if diagonal:
        xs = ys = xs + ys
    x_at, x_ticks = _scale(xs, _LEFT, _WIDTH - _RIGHT)
    y_at, y_ticks = _scale(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in y_ticks:
        y = y_at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{plain(value)}</text>')
    for value in x_ticks:
        x, base = x_at(value), _HEIGHT - _BOTTOM
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{plain(value)}</text>')
    if diagonal:
        low, high = min(xs), max(xs)
        ends = (x_at(low), x_at(high), y_at(low), y_at(high))
        parts.append('<line class="reference" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'.format(*ends))
    parts += [_mark(point, x_at(point.x), y_at) for point in points]
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">')
    parts.append(f"{escape(x_name)}</text></svg>")
    heading = f'{escape(title)} <span class="unit">{escape(y_name)}</span>'
    return f"<figure><figcaption>{heading}</figcaption>{''.join(parts)}</figure>"


def _scale(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Where values are drawn, and which are named."""
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.5
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return start + (min(max(value, low), high) - low) / (high - low) * (end - start)

    return at, ticks(low, high)


def _mark(point: Point, x: float, y_at: Callable[[float], float]) -> str:
    tip = f"<title>{plain(point.x)}: {plain(point.y)}</title>"
    dot = f'<circle class="point" cx="{x:.1f}" cy="{y_at(point.y):.1f}" r="2.6">{tip}</circle>'
    if not math.isfinite(point.low) or not math.isfinite(point.high):
        return dot
    ends = y_at(point.low), y_at(point.high)
    return f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>{dot}'
