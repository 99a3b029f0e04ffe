"""Settings of drawn cells: how many teach, what stands for DARTS' operations, what does not go together."""

from __future__ import annotations

import pytest

from nge_search.errors import UserError
from nge_search.settings.design import DesignBenchConfig, DesignConfig, DesignSection
from nge_search.settings.load import load_config


def test_how_many_teach() -> None:
    section = DesignSection()
    assert [section.best_of(labels) for labels in (2, 10, 60, 100, 5000)] == [1, 3, 18, 30, 30]
    assert DesignSection(best=50).best_of(60) == 50


def test_what_stands_for_operations() -> None:
    words = ["draw.replacements=[skip_connect=,dil_conv_3x3=conv3x3-bn-relu > maxpool3x3]"]
    chains = load_config(DesignConfig, None, words).draw.chains()
    assert chains == {"skip_connect": (), "dil_conv_3x3": ("conv3x3-bn-relu", "maxpool3x3")}


@pytest.mark.parametrize(
    ("schema", "words", "says"),
    [
        (DesignConfig, ["design.best=0"], "design.best=0: must be at least 1"),
        (DesignConfig, ["design.vertices=8"], "design.vertices=8: must be at most 7"),
        (DesignConfig, ["design.links=10"], "design.links=10: must be at most 9"),
        (DesignConfig, ["design.temperature=0"], "design.temperature=0.0: must be above 0"),
        (DesignConfig, ["design.samples=grow"], "did you mean 'grown'"),
        (DesignConfig, ["design.model=gan"], "allowed are gat, gcn"),
        (DesignConfig, ["draw.cells=101"], "draw.cells=101: must be at most 100"),
        (DesignConfig, ["draw.space=dart"], "did you mean 'darts'"),
        (DesignConfig, ["draw.replacements=[sep_conv]"], "'sep_conv' is not OPERATION=OPERATION>OPERATION"),
        (
            DesignConfig,
            ["draw.replacements=[sep_conv=maxpool3x3]"],
            "operation 'sep_conv' is unknown; known are skip",
        ),
        (DesignConfig, ["labels.run=a", "labels.file=b"], "labels.run is set, too; labels come from one of them"),
        (DesignConfig, ["labels.run=a", "labels.column=b"], "a search's labels are its answers"),
        (DesignBenchConfig, ["bench.methods=[links,links]"], "one stands there twice"),
        (DesignBenchConfig, ["bench.methods=[link]"], "did you mean 'links'"),
        (DesignBenchConfig, ["bench.queried=50", "design.best=30"], "too few to have 30 best and as many worst"),
    ],
)
def test_what_cannot_be_meant_is_refused(schema: type, words: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(schema, None, words)
    assert says in str(error.value)


def test_few_queries_teach_where_none_is_honest() -> None:
    words = ["bench.queried=50", "design.best=30", "bench.protocols=[oracle]"]
    assert load_config(DesignBenchConfig, None, words).bench.queried == 50
