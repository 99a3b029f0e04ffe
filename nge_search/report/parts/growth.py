"""How a drawn cell grew: drawn before each move, beside the moves that there were, with a slider over the steps."""

from __future__ import annotations

from html import escape

from nge_search.architecture.graph import Graph
from nge_search.design.generator import Step
from nge_search.design.record import DrawnCell
from nge_search.report.drawing.inline_svg import cell_svg
from nge_search.report.drawing.palette import ALL_STYLES, kind_title
from nge_search.report.parts.numbers import plain

#: Moves of a step that are shown one by one, beside the one that was made.
_SHOWN = 12


def growth(cell: DrawnCell, title: str, anchor: str) -> str:
    """All steps of a cell; with JavaScript a slider shows one at a time.

    Args:
        anchor: a name that nothing else on the page has.
    """
    steps = [_step(step, number, len(cell.steps)) for number, step in enumerate(cell.steps)]
    steps.append(_done(cell.graphs, len(cell.steps)))
    slider = (
        f'<input type="range" min="0" max="{len(steps) - 1}" value="0" step="1" aria-label="Move shown" '
        f'data-steps="{anchor}" hidden>'
    )
    return (
        f'<div class="growth" id="{anchor}"><div class="heat-head"><h3>{escape(title)}</h3>{slider}</div>'
        f"{''.join(steps)}</div>"
    )


def shortened(words: str) -> str:
    """Words in which operations have the short names of drawings."""
    return " ".join(ALL_STYLES[word].short if word in ALL_STYLES else word for word in words.split())


def _step(step: Step, number: int, count: int) -> str:
    ways = len(step.candidates)
    caption = f"Move {number + 1} of {count}: {ways} way{'' if ways == 1 else 's'} to go on"
    drawing = cell_svg(step.graph, caption, numbered=True)
    return _framed(caption, [drawing], _moves(step))


def _done(graphs: dict[str, Graph], count: int) -> str:
    drawings = [cell_svg(graph, kind_title(kind)) for kind, graph in graphs.items()]
    return _framed(f"Done after {count} move{'' if count == 1 else 's'}", drawings, "")


def _framed(caption: str, drawings: list[str], beside: str) -> str:
    shown = "".join(f'<div class="scroll" tabindex="0">{drawing}</div>' for drawing in drawings)
    return f'<figure class="step"><figcaption>{escape(caption)}</figcaption><div>{shown}</div>{beside}</figure>'


def _moves(step: Step) -> str:
    """The likeliest moves, and the one that was made, as a table with bars; the others in one row."""
    order = sorted(range(len(step.candidates)), key=lambda move: (-step.probabilities[move], move))
    shown = [move for rank, move in enumerate(order) if rank < _SHOWN or move == step.chosen]
    rows = [_move(step, move) for move in shown]
    left = [move for move in order if move not in shown]
    if left:
        together = sum(step.probabilities[move] for move in left)
        rows.append(_row(f"{len(left)} other{'' if len(left) == 1 else 's'}", "", "", together, False))
    heads = '<th scope="col">from</th><th scope="col">to</th><th scope="col" class="count">score</th>'
    return (
        f'<div class="scroll" tabindex="0"><table class="plain moves"><thead><tr>{heads}'
        f'<th scope="col" colspan="2">probability</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _move(step: Step, move: int) -> str:
    source, target = map(shortened, step.candidates[move])
    return _row(source, target, plain(step.scores[move], 3), step.probabilities[move], move == step.chosen)


def _row(source: str, target: str, score: str, probability: float, chosen: bool) -> str:
    mark = ' class="kept"' if chosen else ""
    return (
        f'<tr{mark}><td>{escape(source)}</td><td>{escape(target)}</td><td class="count">{escape(score)}</td>'
        f'<td class="bar"><i style="--p:{min(max(probability, 0.0), 1.0):.4f}"></i></td>'
        f'<td class="count">{100 * probability:.1f} %</td></tr>'
    )
