"""README's lines that search and train: each is a valid configuration as it is written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nge_search.cli import main
from nge_search.gradient.target import SizeTarget
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig
from nge_search.spaces import DartsSpace

_LINE = re.compile(r"(?:python train_(?P<script>search|eval)\.py|nge (?P<command>search|eval)) (?P<words>[^`\n]+)")


def commands() -> list[list[str]]:
    """Words of the commands that README shows in full, each one once."""
    text = (Path(__file__).parents[1] / "README.md").read_text().replace("\\\n", " ")
    found = (
        [line["script"] or line["command"], *shlex.split(line["words"], comments=True)]
        for line in _LINE.finditer(text)
        if "=" in line["words"] or "--config" in line["words"]
    )
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_it_is_a_valid_configuration(words, checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    monkeypatch.syspath_prepend(checkout / "examples")
    assert main([*words, "--print-config"]) == 0, capsys.readouterr().err
    assert "\nrun:\n  name: " in capsys.readouterr().out


def test_the_wanted_size_is_one_that_cells_have(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    (words,) = (words for words in commands() if any("target_macs" in word for word in words))
    section = load_config(SearchConfig, words[2], words[3:]).search
    target = SizeTarget(section, DartsSpace(), image_channels=1)
    assert (target.of, target.wanted) == ("macs", 300e6)
