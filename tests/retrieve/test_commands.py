"""`nge retrieve query` and `nge retrieve add`, on a small catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nge_search
from nge_search.cli import main

FILE = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
"""


def test_a_query(catalogue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    words = ["retrieve", "query", "separable2", "--catalogue", str(catalogue_folder)]
    assert main([*words, "--top", "4", "--report", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("timm:separable2: ")
    assert lines[1].startswith("not new: one of 30 graphs is as near as ")
    names = [line.split()[2].rstrip(",") for line in lines[2:6]]
    assert len(set(names)) == 4
    assert all(name.startswith(("timm:", "torchvision:")) for name in names)
    assert "timm:separable2" not in names
    assert any(line.startswith(f"shared with {names[0]}: ") for line in lines)
    assert lines[-1] == f"wrote {page}"
    text = page.read_text()
    assert all(f'id="{anchor}"' in text for anchor in ("nearest", "motifs", "run", "map", "versions"))
    assert text.count('class="asked"') == 1
    assert main([*words, "--report", str(page)]) == 2
    assert "is there already; choose another place, or add --overwrite" in capsys.readouterr().err


def test_a_query_as_json(catalogue_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["retrieve", "query", "plain3", "--catalogue", str(catalogue_folder), "--json", "--top", "2"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == nge_search.retrieve_query("plain3", 2, catalogue=catalogue_folder)
    assert (found["network"], found["known"], found["new"]) == ("timm:plain3", True, False)
    first, second = found["nearest"]
    assert first["family"] == "plain"
    assert first["similarity"] >= second["similarity"]
    assert 0 < first["shared"] <= 1
    motif = first["motifs"][0]
    assert motif["share"] == pytest.approx(motif["times"] * len(motif["operations"]) / found["nodes"], abs=1e-4)
    assert main([*words, "--task", "classification"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_what_was_added_is_found(
    catalogue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    out, known = tmp_path / "larger", str(catalogue_folder)
    add = ["retrieve", "add", "mixer3", "--catalogue", known, "--out", str(out)]
    assert main([*add, "--name", "mine", "--family", "ours"]) == 0
    assert "wrote 31 graphs" in capsys.readouterr().out
    query = ["retrieve", "query", "--json", "--catalogue"]
    assert main([*query, str(out), "mixer3"]) == 0
    best = json.loads(capsys.readouterr().out)["nearest"][0]
    assert (best["name"], best["family"], best["shared"]) == ("own:mine", "ours", 1)
    assert best["similarity"] == pytest.approx(1)
    assert main([*query, known, f"{tmp_path / 'mine.py'}:network", "--trust-code"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] is True
    assert main(add) == 2
    assert "is there already; choose another place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing_like_it"], "network 'nothing_like_it' is not among the 30 of the corpus"),
        (["plain1", "--top", "0"], "--top=0: must be between 1 and 1000"),
        (["plain1", "--task", "cooking"], "no known network has the task 'cooking'; there are classification"),
        (["plain1", "--input", "3x4"], "--input=3x4: give the sides of an example, as 3,224,224"),
        (["plain1", "--input", "3,0,4"], "--input=3,0,4: sides are above 0"),
        (["mine.py:network"], "'mine.py' is no file"),
        (["darts_v2", "--network", "cifer"], "known are cifar, imagenet; did you mean 'cifar'"),
    ],
)
def test_bad_input(
    words: list[str],
    message: str,
    catalogue_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["retrieve", "query", *words, "--catalogue", str(catalogue_folder)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrieve", "query", "plain1", "--catalogue", str(tmp_path)]) == 2
    assert "holds no corpus.nge" in capsys.readouterr().err
