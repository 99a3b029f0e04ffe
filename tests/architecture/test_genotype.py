"""The architecture format: round trips, validation at construction, published networks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nge_search.architecture.genotype import PUBLISHED, Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.errors import UserError
from nge_search.settings.names import OPERATIONS


@st.composite
def cells(draw) -> Cell:
    nodes = draw(st.integers(1, 8))
    genes = tuple(
        (draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, 1 + position // 2)))
        for position in range(2 * nodes)
    )
    concat = draw(st.lists(st.integers(2, nodes + 1), min_size=1, unique=True))
    return Cell(genes, tuple(concat))


@settings(max_examples=200, deadline=None)
@given(cells(), cells())
def test_json_round_trip(normal, reduce):
    genotype = Genotype(normal, reduce, {"seed": 3})
    again = Genotype.from_json(genotype.to_json())
    assert again == genotype
    assert again.provenance == {"seed": 3}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_genotypes_load_by_any_spelling_and_from_files(name, tmp_path):
    genotype = load_genotype(name.upper().replace("_", "-"))
    path = tmp_path / "genotype.json"
    path.write_text(genotype.to_json())
    assert load_genotype(path) == load_genotype(tmp_path) == genotype
    assert genotype.provenance["source"]


def test_the_json_form_is_the_documented_one():
    document = json.loads(load_genotype("darts_v2").to_json())
    assert list(document) == [
        "format", "space", "normal", "normal_concat", "reduce", "reduce_concat", "provenance",
    ]  # fmt: skip
    assert document["format"] == "nge-genotype/1"
    assert document["space"] == "darts"
    assert document["normal"][:2] == [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]]
    assert document["reduce_concat"] == [2, 3, 4, 5]


def test_an_amoebanet_cell_reads_as_published():
    reduce = load_genotype("amoebanet_a").reduce
    assert reduce.nodes == 5
    assert reduce.incoming(6) == (("conv_7x1_1x7", 0), ("sep_conv_3x3", 5))
    assert reduce.concat == (3, 4, 6)


def test_construction_validates_too():
    good = load_genotype("darts_v1").normal
    with pytest.raises(UserError, match="does not come before"):
        Genotype(Cell((("skip_connect", 2), ("skip_connect", 0)), (2,)), good)
    with pytest.raises(UserError, match=r"unknown operation 'sep_conv_3x33'.*did you mean 'sep_conv_3x3'"):
        Genotype(good, Cell((("sep_conv_3x33", 1), ("skip_connect", 0)), (2,)))
