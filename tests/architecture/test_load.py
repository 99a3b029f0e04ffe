"""One reader of architectures, and the whole trip of one of every space."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.load import SPACES as KNOWN
from nge_search.architecture.load import Architecture, load_architecture, load_genotype, read_architecture
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.report.drawing.figure import drawing_rgb
from nge_search.report.drawing.inline_svg import cell_svg
from nge_search.spaces import SPACES, DartsSpace, EnasMacroSpace, NasBench101Space, NasBench201Space, Space

NOTATIONS = {
    "darts": DartsSpace().text(DartsSpace().code(PUBLISHED["p_darts"].graphs())),
    "nasbench101": "0111001100010000 input,conv3x3-bn-relu,maxpool3x3,output",
    "nasbench201": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|",
    "enas_macro": "[[1],[4,0],[5,1,0],[0,0,0,0],[2,0,1,0,1],[3,0,0,0,0,0]]",
}


def whole_trip(space: Space, architecture: Architecture) -> None:
    """Graphs, their code, drawings, and a network that classifies two images."""
    assert architecture.space == space.name
    code = space.code_of(architecture)
    assert space.code(space.graphs(code)) == code
    assert read_architecture(architecture.document) == architecture
    assert drawing_rgb(architecture.graphs).ndim == 3
    operations = sum(bool(edge.label.name) for graph in architecture.graphs.values() for edge in graph.edges)
    operations += sum("x" in label.name for graph in architecture.graphs.values() for label in graph.nodes)
    drawn = "".join(cell_svg(graph, kind) for kind, graph in architecture.graphs.items())
    assert drawn.count('class="pill"') == operations
    network = space.network(code, channels=4, cells=3, classes=7).eval()
    logits, auxiliary = network(torch.randn(2, 3, 12, 12))
    assert (logits.shape, auxiliary) == ((2, 7), None)


@pytest.mark.parametrize("name", KNOWN)
def test_an_architecture_of_every_space_makes_the_whole_trip(name: str, tmp_path: Path) -> None:
    space, text = SPACES[name](), NOTATIONS[name]
    assert space.name == name
    code = space.parse(text)
    (tmp_path / "genotype.json").write_text(json.dumps(space.to_dict(code, {"method": "by hand"})))
    read = [load_architecture(given) for given in (f" {text}\n", tmp_path, str(tmp_path / "genotype.json"))]
    assert read[1] == read[2]
    assert read[1].document["provenance"] == {"method": "by hand"}
    assert read[0].graphs == read[1].graphs == space.graphs(code)
    assert read[0].text == ("" if name == "darts" else text)
    whole_trip(space, read[1])


@pytest.mark.parametrize("name", ["darts_v2", "PC-DARTS-CIFAR"])
def test_published_names_make_the_whole_trip(name: str) -> None:
    found = load_architecture(name)
    assert found.genotype == load_genotype(name) == PUBLISHED[name.lower().replace("-", "_")]
    whole_trip(DartsSpace(), found)


def test_random_codes_are_found_again_in_their_graphs() -> None:
    random = np.random.default_rng(0)
    for space in (DartsSpace(), NasBench201Space(), NasBench101Space(5), EnasMacroSpace()):
        for _ in range(20):
            architecture = space.architecture(space.random(random))
            again = space.architecture(space.code_of(architecture))
            assert (again.graphs, again.document) == (architecture.graphs, architecture.document)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dart_v2", "'dart_v2' does not exist: .* did you mean 'darts_v2'"),
        ("pc_darts", "did you mean 'pc_darts_cifar'"),
        ("nowhere/cell.json", "'nowhere/cell.json' does not exist: it is neither a file, a run folder"),
        ("a\tb", "control characters"),
        ('{"space": "darts"}', "key 'format' is missing"),
        ("{", "not valid JSON"),
        ("|nor_conv_3x3~0|", "no architecture of nasbench201: it has 1 groups"),
        ("0100 input,nothing", "no architecture of nasbench101"),
        ("[[1],[4,0]]", "no architecture of enas_macro: it is a list of 6 layers"),
    ],
)
def test_what_is_no_architecture(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_architecture(text)


def test_a_run_folder_that_is_misspelt_is_found_beside(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match=r"nor one of darts_v1.*; did you mean 'digits'"):
        load_architecture(tmp_path / "digts")


def test_spaces_refuse_what_is_not_of_them() -> None:
    of_five = load_architecture("0100000100000100000100000 input,conv3x3-bn-relu,maxpool3x3,maxpool3x3,output")
    with pytest.raises(UserError, match=r"not in DARTS' notation; .* network.kind=nasbench101 trains it"):
        load_genotype(NOTATIONS["nasbench101"])
    with pytest.raises(UserError, match="darts_v1 holds no architecture of nasbench201"):
        NasBench201Space().code_of(load_architecture("darts_v1"))
    with pytest.raises(UserError, match="a cell of 5 vertices; this space has up to 4"):
        NasBench101Space(4).code_of(of_five)
    with pytest.raises(UserError, match="has 4 inner nodes, all in the output"):
        DartsSpace().code_of(load_architecture("nasnet_a"))


def test_cells_of_every_space_are_shown_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name, text in NOTATIONS.items():
        assert main(["show", text, "--channels", "4", "--cells", "3", "--image-size", "8"]) == 0
        shown[name] = capsys.readouterr().out.splitlines()
    assert "  2 = skip_connect(0) + dil_conv_3x3(1)" in shown["darts"]
    assert "  output = concat(2, 3, 4, 5)" in shown["darts"]
    assert shown["nasbench201"][1:6] == [
        NOTATIONS["nasbench201"],
        "cell",
        "  1 = nor_conv_3x3(0)",
        "  2 = skip_connect(1)",
        "  3 = nor_conv_1x1(0) + avg_pool_3x3(2)",
    ]
    assert shown["nasbench101"][3:6] == [
        "  1 = conv3x3-bn-relu(0)",
        "  2 = maxpool3x3(0 + 1)",
        "  output = output(0, 1, 2)",
    ]
    assert shown["enas_macro"][2:10] == [
        "network",
        "  1 = dw_sep_conv_3x3(0)",
        "  2 = avg_pool_3x3(1)",
        "  3 = max_pool_3x3(0 + 2)",
        "  4 = conv_3x3(3)",
        "  5 = conv_5x5(1 + 3 + 4)",
        "  6 = dw_sep_conv_5x5(5)",
        "  output = output(6)",
    ]
