"""Line charts as inline SVG: small, themed by the page's CSS, readable without JavaScript."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nge_search.report.parts.numbers import plain, scaled

_WIDTH, _HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 12, 34
_HOVER_BANDS = 120
SERIES_STYLES = 6  # the page's CSS has s0 to s5: a colour and a dash pattern each


@dataclass(frozen=True)
class Series:
    """A named line; a point whose value is NaN leaves a gap."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Reference:
    """A labelled horizontal line, such as a threshold."""

    value: float
    label: str


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) from within [low, high]."""
    if not low < high:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def line_chart(
    title: str,
    series: Sequence[Series],
    unit: str = "",
    reference: Reference | None = None,
    from_zero: bool = False,
    axis: str = "epoch",
) -> str:
    """A <figure> with `series` over epochs, or what `axis` says; empty if no series has a finite point.

    `from_zero` keeps the axis honest for figures whose small changes mean little, such as throughput.
    """
    series = [line for line in series if any(math.isfinite(value) for _, value in line.points)]
    if not series:
        return ""
    axes = _Axes.around(series, reference, from_zero)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} by {axis}">',
        *axes.draw(axis),
    ]
    if reference:
        y = axes.y(reference.value)
        above = y > _TOP + 14
        parts.append(f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="reference-label" x="{_WIDTH - _RIGHT - 4}" y="{y - 5 if above else y + 13:.1f}" '
            f'text-anchor="end">{escape(reference.label)}</text>'
        )
    for index, line in enumerate(series):
        parts.extend(_line(axes, line, f"s{index % SERIES_STYLES}"))
    parts.extend(_hover_bands(axes, series, axis))
    parts.append("</svg>")
    heading = escape(title) + (f' <span class="unit">{escape(unit)}</span>' if unit else "")
    return f"<figure><figcaption>{heading}{_legend(series)}</figcaption>{''.join(parts)}</figure>"


@dataclass(frozen=True)
class _Axes:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, series: Sequence[Series], reference: Reference | None, from_zero: bool) -> _Axes:
        xs = [x for line in series for x, _ in line.points]
        ys = [y for line in series for _, y in line.points if math.isfinite(y)]
        if reference:
            ys.append(reference.value)
        if from_zero:
            ys.append(0.0)
        x_low, x_high = min(xs), max(xs)
        if x_low == x_high:
            x_low, x_high = x_low - 0.5, x_high + 0.5
        y_low, y_high = min(ys), max(ys)
        constant = y_high - y_low <= 1e-9 * abs(y_high)  # up to rounding
        pad = (0.1 * abs(y_high) or 1.0) if constant else 0.06 * (y_high - y_low)
        floor = 0.0 if y_low >= 0 else -math.inf  # no room below zero for what is never negative
        return cls(x_low, x_high, max(y_low - pad, floor), y_high + pad)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (_HEIGHT - _TOP - _BOTTOM)

    def draw(self, axis: str) -> list[str]:
        parts = []
        for value in ticks(self.y_low, self.y_high):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            label = scaled(value) if abs(value) >= 1 else plain(value)
            parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        base = _HEIGHT - _BOTTOM
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
        for value in ticks(self.x_low, self.x_high, 6):
            if value == int(value):  # there is no epoch 1.5
                x = self.x(value)
                parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 4}"/>')
                parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{plain(value, 6)}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{axis}</text>')
        return parts


def runs_of_finite(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The stretches between gaps."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            stretches[-1].append(point)
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _line(axes: _Axes, line: Series, style: str) -> list[str]:
    """Polylines; a point between two gaps (or the only one) becomes a dot."""
    parts = []
    for stretch in runs_of_finite(line.points):
        if len(stretch) == 1:
            x, y = stretch[0]
            parts.append(f'<circle class="dot {style}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.5"/>')
        else:
            points = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in stretch)
            parts.append(f'<polyline class="line {style}" points="{points}"/>')
    return parts


def _hover_bands(axes: _Axes, series: Sequence[Series], axis: str) -> list[str]:
    """Invisible strips, one per epoch, whose tooltip lists every series' value."""
    tables = [dict(line.points) for line in series]
    epochs = sorted(set().union(*tables))
    stride = max(1, -(-len(epochs) // _HOVER_BANDS))
    width = (_WIDTH - _LEFT - _RIGHT) / max(-(-len(epochs) // stride), 1)
    parts = []
    for epoch in epochs[::stride]:
        values = [f"{line.name}: {plain(table.get(epoch, math.nan), 5)}" for line, table in zip(series, tables)]
        tip = "\n".join([f"{axis} {plain(epoch, 6)}", *values])
        x = max(axes.x(epoch) - width / 2, _LEFT)
        parts.append(
            f'<rect class="band" x="{x:.1f}" y="{_TOP}" width="{width:.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{escape(tip)}</title></rect>'
        )
    return parts


def _legend(series: Sequence[Series]) -> str:
    if len(series) == 1:
        return ""
    keys = "".join(
        f'<span><svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
        f'<line class="line s{index % SERIES_STYLES}" x1="1" x2="23" y1="4" y2="4"/></svg>'
        f"{escape(line.name)}</span>"
        for index, line in enumerate(series)
    )
    return f'<span class="legend">{keys}</span>'
