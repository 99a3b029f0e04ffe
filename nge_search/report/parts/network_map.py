"""A map of networks as inline SVG: a point for each, coloured by how it mixes places, large families by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from nge_search.report.parts.numbers import number

_SIDE, _PAD = 760, 26
_STYLES = 6  # k0 to k5
#: Families whose names are written, the largest first.
_NAMED = 40


@dataclass(frozen=True)
class Place:
    """A network's point, from -1 to 1 in both directions."""

    x: float
    y: float
    name: str
    family: str
    label: str


def network_map(title: str, places: Sequence[Place], asked: Place | None = None) -> str:
    """A <figure>; empty without a point. `asked` is the network that was looked for."""
    places = [place for place in places if math.isfinite(place.x) and math.isfinite(place.y)]
    if not places:
        return ""
    kinds = {label: number % _STYLES for number, label in enumerate(sorted({place.label for place in places}))}
    words = f"{title}: {len(places)} networks"
    parts = [f'<svg class="chart map" viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{escape(words)}">']
    parts += [_point(place, kinds[place.label]) for place in places]
    parts += _names(places)
    if asked is not None:
        x, y = _at(asked.x), _at(asked.y)
        parts.append(f'<circle class="asked" cx="{x:.1f}" cy="{y:.1f}" r="9"/>')
        parts.append(f'<text class="asked-label" x="{x:.1f}" y="{y - 13:.1f}">{escape(asked.name)}</text>')
    parts.append("</svg>")
    legend = "".join(
        f'<span><svg class="key" viewBox="0 0 24 8"><circle class="k{number}" cx="12" cy="4" r="3.5"/></svg>'
        f"{escape(label or 'other')}</span>"
        for label, number in kinds.items()
    )
    return (
        f'<figure><figcaption>{escape(title)}<span class="legend">{legend}</span></figcaption>'
        f"{''.join(parts)}</figure>"
    )


def _at(value: float) -> float:
    return _PAD + (min(max(value, -1.0), 1.0) + 1) / 2 * (_SIDE - 2 * _PAD)


def _point(place: Place, kind: int) -> str:
    tip = f"<title>{escape(place.name)} ({escape(place.family)})</title>"
    return f'<circle class="k{kind}" cx="{_at(place.x):.1f}" cy="{_at(place.y):.1f}" r="3">{tip}</circle>'


def _names(places: Sequence[Place]) -> list[str]:
    """Of the largest families, at the member that is most in the middle of the others."""
    families: dict[str, list[Place]] = {}
    for place in places:
        families.setdefault(place.family, []).append(place)
    found = []
    taken: list[tuple[float, float]] = []
    for family, own in sorted(families.items(), key=lambda pair: -len(pair[1]))[:_NAMED]:
        middle = min(own, key=lambda one: sum(math.hypot(one.x - other.x, one.y - other.y) for other in own))
        x, y = _at(middle.x), _at(middle.y) - 6
        if all(abs(x - left) > 70 or abs(y - top) > 12 for left, top in taken):
            taken.append((x, y))
            found.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(family)}</text>')
    return found


def places_of(entries: Sequence[Mapping[str, object]]) -> list[Place]:
    """From what a run folder holds; NaN where there is no number."""
    found = []
    for entry in entries:
        name, family, label = (str(entry.get(key, "")) for key in ("name", "family", "label"))
        found.append(Place(number(entry.get("x")), number(entry.get("y")), name, family, label))
    return found
