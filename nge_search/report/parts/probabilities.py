"""P as the report shows it: a heatmap table per cell with an epoch slider, and how each edge's P evolved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape

from nge_search.report.drawing.inline_svg import node_name
from nge_search.report.drawing.palette import CELL_TITLES, STRONG, kind_title, outline_colour, style_of
from nge_search.report.parts.numbers import MISSING, plain
from nge_search.report.parts.trace import Matrix, Trace, spread

_SLIDER_STEPS = 100
_PANEL_STEPS = 80


def heatmap(trace: Trace) -> str:
    """The last epoch as a table; with JavaScript a slider shows any other."""
    steps = spread(len(trace.epochs), _SLIDER_STEPS)
    last = steps[-1]
    top = math.ceil(trace.largest * 10 - 1e-9) / 10
    name = f"p-{trace.kind}"
    data = {
        "epochs": [plain(trace.epochs[step], 6) for step in steps],
        "values": [_payload(trace.matrices[step]) for step in steps],
        "kept": [sorted(trace.kept[step]) for step in steps],
        "top": top,
        "strong": STRONG,
    }
    head = "".join(f'<th scope="col">{escape(_name(trace, index))}</th>' for index in range(len(trace.operations)))
    rows = "".join(_heatmap_row(trace, last, edge, top) for edge in range(len(trace.edges)))
    slider = ""
    if len(steps) > 1:
        slider = (
            f'<input type="range" min="0" max="{len(steps) - 1}" value="{len(steps) - 1}" step="1" '
            f'aria-label="Epoch shown" data-for="{name}" hidden>'
        )
    return (
        f'<div class="heat" id="{name}"><div class="heat-head"><h3>{kind_title(trace.kind)}</h3>'
        f'<span class="when">epoch <output>{plain(trace.epochs[last], 6)}</output></span>{slider}</div>'
        f'<div class="scroll" tabindex="0"><table class="p"><thead><tr><th scope="col">edge</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="scale"><span>0</span><i></i><span>{plain(top)}</span>'
        '<span class="kept-key"></span> kept by the derivation</p>'
        f'<script type="application/json" id="{name}-data">{_json(data)}</script></div>'
    )


def _heatmap_row(trace: Trace, step: int, edge: int, top: float) -> str:
    cells = []
    for operation, value in enumerate(trace.matrices[step][edge]):
        known = math.isfinite(value)
        level = min(max(value / top, 0.0), 1.0) if known else 0.0
        classes = ["kept"] if (edge, operation) in trace.kept[step] else []
        classes += ["strong"] if level > STRONG else []
        kind = f' class="{" ".join(classes)}"' if classes else ""
        cells.append(
            f'<td{kind} data-p="{value:.4f}" style="--p:{level:.3f}">{f"{value:.2f}" if known else MISSING}</td>'
        )
    mark = ' class="kept"' if any(kept == edge for kept, _ in trace.kept[step]) else ""
    hint = escape(_edge_name(trace, edge))
    return f'<tr><th scope="row"{mark} title="{hint}">{escape(trace.label(edge))}</th>{"".join(cells)}</tr>'


def _edge_name(trace: Trace, edge: int) -> str:
    pair = trace.edges[edge]
    if pair is None or trace.kind not in CELL_TITLES:
        return trace.label(edge)
    return f"{node_name(pair[0])} → {node_name(pair[1])} in the drawing"


def _name(trace: Trace, operation: int) -> str:
    return style_of(trace.operations[operation], operation).short


def _payload(matrix: Matrix) -> list[list[float | None]]:
    return [[round(value, 4) if math.isfinite(value) else None for value in values] for values in matrix]


def _json(data: object) -> str:
    """JSON that cannot end the <script> element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def evolution(trace: Trace) -> str:
    """One small stacked-area chart per edge, placed by its source (column) and its target (row)."""
    steps = spread(len(trace.epochs), _PANEL_STEPS)
    placed = all(trace.edges)
    targets = sorted({edge[1] for edge in trace.edges if edge})
    sources = sorted({edge[0] for edge in trace.edges if edge})
    panels = []
    for edge, pair in enumerate(trace.edges):
        where = ""
        if placed and pair:
            where = f' style="grid-row:{targets.index(pair[1]) + 1};grid-column:{sources.index(pair[0]) + 1}"'
        panels.append(_panel(trace, steps, edge, where))
    columns = f' style="--columns:{len(sources)}"' if placed else ""
    legend = "".join(_swatch(trace, operation) for operation in range(len(trace.operations)))
    return (
        f'<div class="evolution"><h3>{kind_title(trace.kind)}</h3><p class="legend wide">{legend}</p>'
        f'<div class="panels"{columns}>{"".join(panels)}</div></div>'
    )


def _swatch(trace: Trace, operation: int) -> str:
    fill = style_of(trace.operations[operation], operation).fill
    chip = f'<i class="chip" style="background:{fill};border-color:{outline_colour(fill)}"></i>'
    return f"<span>{chip}{escape(_name(trace, operation))}</span>"


def _panel(trace: Trace, steps: Sequence[int], edge: int, where: str) -> str:
    history = [(trace.epochs[step], trace.matrices[step][edge]) for step in steps]
    kept = sorted(operation for kept_edge, operation in trace.kept[-1] if kept_edge == edge)
    final = ", ".join(
        f"{_name(trace, operation)} {plain(value, 3)}" for operation, value in enumerate(trace.matrices[-1][edge])
    )
    areas = "".join(_areas(trace, history))
    marks = "".join(_swatch(trace, operation) for operation in kept)
    return (
        f'<figure class="panel{" kept" if kept else ""}"{where}>'
        f"<figcaption><b>{escape(trace.label(edge))}</b>{marks}</figcaption>"
        f'<svg viewBox="0 0 100 50" preserveAspectRatio="none" role="img" '
        f'aria-label="P of edge {escape(trace.label(edge))} by epoch">'
        f"<title>{escape(_edge_name(trace, edge))}, last epoch: {escape(final)}</title>{areas}</svg></figure>"
    )


def _areas(trace: Trace, history: list[tuple[float, tuple[float, ...]]]) -> list[str]:
    """Stacked areas, broken where an epoch has a value missing; a lone epoch becomes a bar."""
    first, last = history[0][0], history[-1][0]
    half = 0.5 if first == last else 0.0
    span = (last - first) + 2 * half
    parts = []
    for stretch in _stretches(history):
        if len(stretch) == 1:
            epoch, values = stretch[0]
            reach = half or span / len(history) / 2
            stretch = [(max(epoch - reach, first - half), values), (min(epoch + reach, last + half), values)]
        xs = [100 * (epoch - first + half) / span for epoch, _ in stretch]
        floor = [0.0] * len(stretch)
        for operation in range(len(trace.operations)):
            ceiling = [low + max(values[operation], 0.0) for low, (_, values) in zip(floor, stretch)]
            outline = [f"{x:.1f},{50 - 50 * high:.2f}" for x, high in zip(xs, ceiling)]
            outline += [f"{x:.1f},{50 - 50 * low:.2f}" for x, low in zip(reversed(xs), reversed(floor))]
            fill = style_of(trace.operations[operation], operation).fill
            parts.append(f'<path fill="{fill}" d="M{"L".join(outline)}Z"/>')
            floor = ceiling
    return parts


def _stretches(
    history: list[tuple[float, tuple[float, ...]]],
) -> list[list[tuple[float, tuple[float, ...]]]]:
    stretches: list[list[tuple[float, tuple[float, ...]]]] = [[]]
    for point in history:
        if all(math.isfinite(value) for value in point[1]):
            stretches[-1].append(point)
        else:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]
