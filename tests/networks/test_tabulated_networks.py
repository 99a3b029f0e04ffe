"""The networks of NAS-Bench-101 and NAS-Bench-201: published sizes, and what they compute, against other forms."""

from __future__ import annotations

import csv
import html
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nge_search.architecture.genotype import PUBLISHED, Genotype
from nge_search.architecture.load import load_architecture
from nge_search.cli import main
from nge_search.counting import count_parameters
from nge_search.networks.nasbench101 import ConvBNReLU, NasBench101Cell
from nge_search.spaces import SPACES, Code, NasBench101Space, NasBench201Space, Space
from nge_search.spaces.nasbench101 import parameters
from nge_search.supernet.nasbench201 import DenseSupernet

DATA = Path(__file__).parents[3] / "shared" / "data"


def needs(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"published data is not at hand ({name})")
    return path


def on_paper(space: Space, code: Code) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return space.network(code)


def test_nasbench201_equals_its_supernet_with_one_operation_an_edge() -> None:
    """P with a one for each chosen operation makes of the textbook supernet the network, in float64."""
    torch.manual_seed(0)
    space, random = NasBench201Space(), np.random.default_rng(1)
    supernet = DenseSupernet(space.cell_space, 4, 3, 5).double()
    x_BCHW = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    for code in [space.random(random) for _ in range(6)] + [(0,) * 6, (0, 0, 0, 3, 0, 0), (3, 0, 0, 0, 0, 0)]:
        network = space.network(code, channels=4, cells=3, classes=5).double()
        for name in ("stem", "reductions", "norm", "classifier"):
            getattr(network, name).load_state_dict(getattr(supernet, name).state_dict())
        for own, theirs in zip(network.stages, supernet.stages):
            for cell, mixed in zip(own, theirs):
                for edge, operation in zip(cell.graph.edges, cell.operations):
                    place = space.cell_space.edges.index((edge.source, edge.target))
                    choice = space.cell_space.operations.index(edge.label.name)
                    operation.load_state_dict(mixed.edges[place][choice].state_dict(), strict=False)
        p_EO = nn.functional.one_hot(torch.tensor(code), len(space.cell_space.operations)).double()
        logits, auxiliary = network(x_BCHW)
        assert auxiliary is None
        torch.testing.assert_close(logits, supernet(x_BCHW, p_EO), rtol=1e-10, atol=1e-10)


def test_nasbench101_parameters_are_those_of_the_published_formula() -> None:
    space, random = NasBench101Space(), np.random.default_rng(0)
    for text in [space.text(space.random(random)) for _ in range(5)] + ["0100 input,output"]:
        code = space.parse(text)
        assert count_parameters(on_paper(space, code)) == parameters(space.graphs(code)["cell"])


def test_nasbench101_cell_step_by_step() -> None:
    """A cell with a truncation, a projection into an inner vertex, two that are concatenated, and one added."""
    space = NasBench101Space()
    inner = ["conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu"]
    rows = "0110100110000010000100000"
    graph = space.parse_graph(rows, ["input", *inner, "output"])
    torch.manual_seed(0)
    cell = NasBench101Cell(graph, 4, 7).double().eval()
    assert cell.widths == [4, 4, 4, 3, 7]
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)

    def convolved(module: nn.Module, given: torch.Tensor) -> torch.Tensor:
        assert isinstance(module, ConvBNReLU)
        found = nn.functional.conv2d(given, module[0].weight, padding=module[0].kernel_size[0] // 2)
        return (found / (1 + 1e-5) ** 0.5).clamp(min=0)  # statistics of a new normalisation: 0 and 1

    one = convolved(cell.operations[0], convolved(cell.projections["1"], x))
    two = nn.functional.max_pool2d(one + convolved(cell.projections["2"], x), 3, 1, 1)
    three = convolved(cell.operations[2], one[:, :3])
    expected = torch.cat([two, three], dim=1) + convolved(cell.projections["4"], x)
    torch.testing.assert_close(cell(x), expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("darts", "darts_v2"),
        ("nasbench101", "0110100011000010000100000 input,conv3x3-bn-relu,maxpool3x3,conv1x1-bn-relu,output"),
        ("nasbench201", "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"),
        ("enas_macro", "[[0],[1,1],[2,0,1],[3,1,0,1],[4,1,1,1,1],[5,0,0,1,0,1]]"),
    ],
)
def test_networks_of_all_spaces_train(name: str, text: str) -> None:
    """Every parameter of a network of any size gets a gradient, and odd sides are no obstacle."""
    space = SPACES[name]()
    network = space.network(
        space.code_of(load_architecture(text)), channels=4, cells=3, classes=7, image_channels=1
    )
    logits, auxiliary = network(torch.randn(2, 1, 13, 13))
    assert logits.shape == (2, 7)
    assert auxiliary is None
    logits.square().sum().backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]


def test_graphs_of_darts_cells_give_the_genotype_back() -> None:
    genotype = PUBLISHED["darts_v2"]
    graphs = genotype.graphs()
    assert list(graphs) == ["normal", "reduce"]
    assert Genotype.of(graphs) == Genotype.of(genotype) == genotype
    normal = graphs["normal"]
    assert normal.sources(6) == [2, 3, 4, 5]
    assert sorted(label.name for *_, label in normal.edges if label.name) == sorted(
        op for op, _ in genotype.normal.genes
    )
    assert len(normal.operations_on_nodes().nodes) == 2 + 8 + 1


NOTATIONS = {
    "nasbench101": "0111001100010000 input,conv3x3-bn-relu,maxpool3x3,output",
    "nasbench201": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|",
    "enas_macro": "[[1],[4,0],[5,1,0],[0,0,0,0],[2,0,1,0,1],[3,0,0,0,0,0]]",
}


@pytest.mark.parametrize("kind", NOTATIONS)
def test_a_cell_of_a_benchmark_is_shown_and_trained(kind: str, tmp_path: Path, capsys) -> None:
    """From its notation, and from the JSON file of a search; finished, reported, resumed; not exported."""
    space = SPACES[kind]()
    code = space.parse(NOTATIONS[kind])
    assert main(["show", NOTATIONS[kind], "--json", "--draw", str(tmp_path / "drawn")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["params"] == count_parameters(on_paper(space, code))
    assert shown["genotype"]["architecture"] == space.text(code)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["genotype.png", "genotype.svg"]
    file = tmp_path / "cell.json"
    file.write_text(json.dumps(space.to_dict(code, {"method": "by hand"})))
    small = ["threads=1", "run.progress=none", "run.tensorboard=false", "data.limit=64", "train.batch_size=16"]
    small += [f"network.kind={kind}", "network.channels=4", "network.cells=3", f"run.dir={tmp_path / 'run'}"]
    words = ["eval", *small, f"network.genotype={file}", "train.epochs=2"]
    assert main(words) == 0
    assert main(words) == 0  # prints the result
    assert capsys.readouterr().out.count("test error ") == 2
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["genotype"] == space.to_dict(code, {"method": "by hand"})
    assert space.text(code) in html.unescape((tmp_path / "run" / "report.html").read_text())
    other = space.text(space.random(np.random.default_rng(5)))
    assert main(["eval", *small, f"network.genotype='{other}'", "train.epochs=2"]) == 2
    assert "trains another genotype" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert f"trains network.kind={kind}, but exported are cifar and imagenet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["network.kind=nasbench201", "network.cells=4"], "network.cells=4"),
        (["network.kind=nasbench101", "network.cells=3", "network.auxiliary=true"], "network.auxiliary=True"),
        (["network.kind=nasbench201", "network.cells=3", "network.drop_path=0.1"], "network.drop_path=0.1"),
        (["network.kind=nasbench201", "network.cells=3"], "network.kind=nasbench201 takes cells of nasbench201"),
        (["network.genotype='|nor_conv_3x3~0|+|nosuch~0|none~1|'"], "is no architecture of nasbench201"),
    ],
)
def test_networks_that_do_not_fit(words: list[str], says: str, capsys, tmp_path: Path) -> None:
    assert main(["eval", "data.name=digits", f"run.dir={tmp_path / 'run'}", *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# -- published data, where it is at hand


def test_published_parameters_of_nasbench101() -> None:
    """The 30 rows with complete figures, and every 100th of EC-NAS' 2,532."""
    space = NasBench101Space()
    for entry in json.loads(needs("nasbench101/nb101_30_full_metrics.json").read_text()):
        rows = "".join(str(value) for row in entry["adjacency"] for value in row)
        network = on_paper(space, space.code({"cell": space.parse_graph(rows, entry["ops"])}))
        assert count_parameters(network) == entry["trainable_parameters"]
    with open(needs("ec_nas/ec_nas_4epoch.csv"), newline="") as file:
        for row in list(csv.DictReader(file))[::100]:
            code = space.code({"cell": space.parse_graph(row["adj_rowmajor"], row["ops"].split("|"))})
            assert count_parameters(on_paper(space, code)) == int(row["trainable_params"])


def test_published_parameters_of_nasbench201() -> None:
    space = NasBench201Space()
    with open(needs("nasbench201/nasbench201.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:: len(rows) // 25]:
        network = on_paper(space, space.parse(row["arch"]))
        assert count_parameters(network) / 1e6 == pytest.approx(float(row["params_m"]), abs=6e-5)  # four digits
