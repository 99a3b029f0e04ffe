"""What names a network to be looked for, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nge_search.architecture.load import load_genotype
from nge_search.errors import UserError
from nge_search.retrieve import asked_network as module
from nge_search.retrieve.asked_network import asked_module, asked_network
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.extraction import images, trace

FILE = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import beside


@dataclass
class Sizes:
    width: int = 4


def network():
    return nn.Sequential(nn.Conv2d(3, Sizes().width, 3), nn.ReLU(), nn.Flatten())


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x, mask=None):
        return self.layer(x) * mask


def masked():
    return Masked(), torch.zeros(5, 6), {"mask": torch.ones(5, 6)}


def reads_a_value():
    class Reading(nn.Module):
        def forward(self, x):
            return x[: int(x.sum())]

    return Reading()


def fails():
    raise RuntimeError("no weights here")


def number():
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def test_a_network_of_the_corpus(small_corpus: Corpus) -> None:
    for text in ("residual2", "timm:residual2"):
        found = asked_network(text, small_corpus)
        assert (found.name, found.family, found.task) == ("timm:residual2", "residual", "classification")
        assert found.entry is small_corpus.entries[2]
        assert found.graph == small_corpus.entries[2].graph


def test_a_file_is_carried_out_only_if_trusted(file: str, small_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + FILE.replace("from __future__ import annotations", "")
    )
    with pytest.raises(UserError, match=r"mine.py' is code, which would be carried out; add --trust-code"):
        asked_network(f"{file}:network", small_corpus)
    assert not (tmp_path / "ran").exists()
    found = asked_network(f"{file}:network", small_corpus, trust_code=True)
    assert (tmp_path / "ran").exists()
    assert found.name == "mine.py:network"
    assert found.parameters == 3 * 4 * 9 + 4
    assert [label.name for label in found.graph.nodes] == ["input", "Convolution", "Relu", "View"]
    assert found.multiply_adds == 222 * 222 * 4 * 27


def test_a_file_says_what_its_network_is_called_with(file: str, small_corpus: Corpus) -> None:
    small = asked_network(f"{file}:network", small_corpus, shape=(3, 8, 8), trust_code=True)
    assert small.multiply_adds == 6 * 6 * 4 * 27
    found = asked_network(f"{file}:masked", small_corpus, trust_code=True)
    assert [label.name for label in found.graph.nodes] == ["input", "input", "Addmm", "Mul"]
    assert found.multiply_adds == 36


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("fails", r"fails\(\) fails: RuntimeError: no weights here"),
        ("number", r"number\(\) returns int, not a torch module"),
        ("nothing", r"nothing\(\) fails: AttributeError: module .* has no attribute 'nothing'"),
        ("reads_a_value", r"^Reading cannot be traced: it needs the values of tensors"),
    ],
)
def test_what_a_file_may_do_wrong(factory: str, message: str, file: str, small_corpus: Corpus) -> None:
    with pytest.raises(UserError, match=message):
        asked_network(f"{file}:{factory}", small_corpus, trust_code=True)


def test_a_broken_file(small_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def network(:\n")
    with pytest.raises(UserError, match=r"bad.py': network\(\) fails: SyntaxError"):
        asked_network(f"{tmp_path / 'bad.py'}:network", small_corpus, trust_code=True)
    with pytest.raises(UserError, match=r"no.py' is no file; give FILE.py:FACTORY"):
        asked_network(f"{tmp_path / 'no.py'}:network", small_corpus, trust_code=True)


def test_a_network_of_an_installed_library(small_corpus: Corpus) -> None:
    found = asked_network("torchvision:alexnet", small_corpus)
    assert (found.name, found.family, found.task) == ("torchvision:alexnet", "alexnet", "classification")
    assert found.entry is None
    assert found.parameters == 61_100_840
    with pytest.raises(UserError, match=r"^torchvision .* has no network 'alexnot'$"):
        asked_network("torchvision:alexnot", small_corpus)


def test_an_architecture_becomes_its_network_for_imagenet(
    small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def traced(architecture: object, network: str | None) -> object:
        asked.append(network)
        return trace(nn.Linear(3, 3), images(3))

    monkeypatch.setattr(module, "trace_architecture", traced)
    path = tmp_path / "genotype.json"
    path.write_text(load_genotype("darts_v2").to_json())
    assert asked_network(str(path), small_corpus).name == str(path)
    asked_network("darts_v2", small_corpus, network="cifar")
    asked_network("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", small_corpus)
    assert asked == ["imagenet", "cifar", None]


def test_what_names_nothing(small_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'residual1'\?; it may also be LIBRARY:NAME"):
        asked_network("residal1", small_corpus)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken\.json"):
        asked_network(str(tmp_path / "broken.json"), small_corpus)
    with pytest.raises(UserError, match="it ends too early"):  # a notation, however long, is no name of a file
        asked_network("Genotype(normal=[" + 300 * "('sep_conv_3x3', 0), ", small_corpus)


def test_a_module_at_hand() -> None:
    found = asked_module(nn.Linear(3, 5), images(3))
    assert (found.name, found.parameters) == ("Linear", 20)
    with pytest.raises(UserError, match="a network is a torch module, or a text that names one, not Tensor"):
        asked_module(torch.zeros(2))
