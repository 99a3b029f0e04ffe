"""`nge bench input` on tiny settings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nge_search.bench.input import photograph
from nge_search.cli import main

QUICK = ["--batch", "4", "--size", "8", "--workers", "1", "--rounds", "1", "--device", "cpu"]


def test_generated_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "input", *QUICK, "--count", "8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == "input"
    assert result["settings"]["images"] == 8
    assert 50 < result["settings"]["mean_kb"] < 100
    for rate in result["images_per_second"].values():
        assert rate["median"] > 0
    assert result["ratio"]["median"] > 0
    assert set(result["loader_overhead"]) == {"step_seconds", "extra_seconds", "share"}


def test_own_folder(write_tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree("train/a", "train/b")
    assert main(["bench", "input", *QUICK, "--root", str(root), "--workers", "0"]) == 0
    heading, rates, overhead = capsys.readouterr().out.splitlines()
    assert "images 8" in heading
    assert rates.startswith("nge ")
    assert "the loader adds" in overhead


@pytest.mark.parametrize("words", [["--batch", "1"], ["--root", "nowhere"], ["--hue", "0.6"], ["--size", "x"]])
def test_what_cannot_be_measured_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "input", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_photographs_are_as_large_as_photographs() -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph(1)).save(buffer, "JPEG", quality=90)
    assert 50_000 < buffer.tell() < 100_000
