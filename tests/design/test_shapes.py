"""Counts of cells that were worked out by hand, and which rules a space has."""

from __future__ import annotations

import pytest

from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.shapes import Shape, frequent, mean_shape, shape_of
from nge_search.design.spaces import code_in, rules_of
from nge_search.errors import UserError
from nge_search.spaces import SPACES, EnasMacroSpace, NasBench101Space

RULES = NasBench101Rules(4)
WIDE = RULES.space.parse("0111000100010000 input,conv3x3-bn-relu,conv1x1-bn-relu,output")
DEEP = RULES.space.parse("0100001000010000 input,maxpool3x3,maxpool3x3,output")
NONE = RULES.space.parse("0100 input,output")


def test_shapes_by_hand() -> None:
    operations = {"conv3x3-bn-relu": 1, "conv1x1-bn-relu": 1}
    assert shape_of(RULES, RULES.graphs(WIDE)[0]) == Shape(operations, links=5, from_inputs=3, depth=2, width=2)
    assert shape_of(RULES, RULES.graphs(DEEP)[0]) == Shape({"maxpool3x3": 2}, 3, 1, 3, 1)
    assert shape_of(RULES, RULES.graphs(NONE)[0]) == Shape({}, 1, 1, 1, 0)
    means = mean_shape(RULES, [WIDE, DEEP])
    assert means["maxpool3x3"] == 1
    assert means["conv1x1-bn-relu"] == 0.5
    assert (means["links"], means["from_inputs"], means["depth"], means["width"]) == (4, 2, 2.5, 1.5)


def test_cells_that_come_often() -> None:
    assert frequent(RULES, [WIDE, DEEP, NONE, DEEP, WIDE, DEEP], 2) == [(DEEP, 3), (WIDE, 2)]


def test_every_space_has_rules_or_says_so() -> None:
    for name, space in SPACES.items():
        if name != EnasMacroSpace.name:
            assert rules_of(space()).space.name == name
    with pytest.raises(UserError, match="enas_macro cannot be drawn"):
        rules_of(EnasMacroSpace())
    with pytest.raises(UserError, match="no limit of vertices"):
        rules_of(SPACES["nasbench201"](), 5)


def test_codes_in_a_space_of_fewer_vertices() -> None:
    large = NasBench101Space()
    code = large.code(RULES.space.graphs(WIDE))
    assert rules_of(large, 4).vertices == 4
    assert code_in(RULES, large, code) == WIDE
    assert code_in(NasBench101Rules(3), large, code) is None
    assert code_in(RULES, RULES.space, WIDE) == WIDE
