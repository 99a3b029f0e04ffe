"""The weights of trained networks, in whatever form they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.networks.weights import read_weights


@pytest.mark.parametrize("place", ["nowhere", "empty", "text", "text.safetensors", "model"])
def test_weights_that_cannot_be_read(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text").write_text("text")
    Path("text.safetensors").write_text("")
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    with pytest.raises(UserError, match=f"'{place}"):
        read_weights(place)
