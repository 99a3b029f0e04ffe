"""What a search asks for cells: taught by the best and the worst, new ones each time."""

from __future__ import annotations

import numpy as np
import pytest

import nge_search.design.designer
from nge_search.design.designer import Designer
from nge_search.design.spaces import rules_of
from nge_search.errors import UserError
from nge_search.spaces import SPACES, Code, NasBench201Space
from nge_search.spaces.nasbench201 import OPERATIONS

SPACE, RULES = NasBench201Space(), rules_of(NasBench201Space())
CONVOLUTION = OPERATIONS.index("nor_conv_3x3")


def cells(count: int, seed: int = 0) -> list[Code]:
    random = np.random.default_rng(seed)
    return [SPACE.random(random) for _ in range(count)]


def convolutions(codes: list[Code]) -> float:
    """Their mean number of 3x3 convolutions."""
    return float(np.mean([code.count(CONVOLUTION) for code in codes]))


@pytest.mark.parametrize("method", ["links", "frequencies"])
def test_what_is_drawn_is_like_the_best_and_new(method: str) -> None:
    known = cells(60)
    values = [float(code.count(CONVOLUTION)) for code in known]
    designer = Designer(SPACE, method, 10, 0.5)
    found = designer.propose(known, values, 12, known, 3)
    keys = [RULES.key(code) for code in found]
    assert len(set(keys)) == 12
    assert not set(keys) & {RULES.key(code) for code in known}
    assert convolutions(found) > convolutions(known) + 1
    assert found == designer.propose(known, values, 12, known, 3)
    assert found != designer.propose(known, values, 12, known, 4)
    drawn = designer.draw(known, values, 12, 3)
    assert len(drawn) == 12
    assert [code for code in drawn if RULES.key(code) in keys] == [
        code for code in drawn if RULES.key(code) not in {RULES.key(own) for own in known}
    ]


@pytest.mark.parametrize(("best", "count", "expected"), [(3, 20, 3), (10, 9, 4), (10, 2, 1)])
def test_the_best_and_the_worst_teach(
    best: int, count: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most half of the different cells on each side; a cell that comes twice is one, and dead ones are none."""
    taught = []
    monkeypatch.setattr(
        nge_search.design.designer, "build_generator", lambda rules, good, bad, *_: taught.append((good, bad))
    )
    different = list({RULES.key(code): code for code in cells(60) if RULES.graphs(code)}.values())[:count]
    dead = (OPERATIONS.index("none"),) * 6
    known = [*different, *different[:3], dead]
    values = [*map(float, range(count)), *map(float, range(min(3, count))), 1000.0]
    Designer(SPACE, "links", best, 0.5)._taught(known, values, 0)
    ((good, bad),) = taught
    assert good == different[::-1][:expected]
    assert bad == different[:expected][::-1]


def test_values_that_teach_nothing_draw_nothing() -> None:
    designer, known = Designer(SPACE, "frequencies", 5, 0.5), cells(12)
    assert designer.propose(known, [1.0] * 12, 5, known, 0) == []
    assert designer.draw(known, [1.0] * 12, 5, 0) == []
    assert designer.propose(known[:1], [1.0], 5, known, 0) == []


def test_fewer_where_draws_repeat_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nge_search.design.designer, "_DRAWS_EACH", 1)
    monkeypatch.setattr(nge_search.design.designer, "_AT_ONCE", 5)
    known = cells(40)
    values = [float(code.count(CONVOLUTION)) for code in known]
    designer = Designer(SPACE, "frequencies", 5, 0.5)
    drawn = designer.draw(known, values, 5, 0)
    found = designer.propose(known, values, 5, [*known, drawn[0]], 0)
    assert 0 < len(found) < 5
    assert set(found) < set(drawn)


def test_a_space_whose_cells_do_not_grow_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be drawn link by link"):
        Designer(SPACES["enas_macro"](), "links", 5, 0.5)
