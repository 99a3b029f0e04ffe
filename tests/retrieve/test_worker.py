"""Processes that trace networks: their limits, and how they end."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.retrieve.graph_archive import archive_of
from nge_search.retrieve.worker import GRAPH_FORMAT, Worker

LIBRARY = """
import os, sys, time
import torch
from torch import nn
from nge_search.retrieve.extraction import images
from nge_search.retrieve.sources import Library


class Odd(Library):
    name = "odd"

    def version(self):
        return "1"

    def names(self):
        return []

    def origin(self, name):
        raise NotImplementedError

    def build(self, name):
        print("a library may print", flush=True)
        if name == "large":
            torch.ones(1 << 31, dtype=torch.uint8)
        if name == "endless":
            time.sleep(600)
        if name == "fatal":
            os._exit(3)
        return nn.Conv2d(3, 4, 3), images(3, 8, 8)


class Missing:
    def __init__(self):
        raise ImportError("it is not installed")
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "odd_networks.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    return "odd_networks"


def test_what_goes_wrong_with_one_network_leaves_the_others(library: str) -> None:
    worker = Worker(f"{library}:Odd", seconds=60, megabytes=512)
    try:
        found = worker.trace("plain")
        graph = archive_of(base64.b64decode(found["graph"]), GRAPH_FORMAT, "it")[0][0]
        assert [label.name for label in graph.nodes] == ["input", "Convolution"]
        assert found["parameters"] == 112
        assert found["digest"] == graph.digest
        assert "allocate" in worker.trace("large")["reason"] or "memory" in worker.trace("large")["reason"]
        assert worker.trace("plain") == found
        assert worker.trace("fatal")["reason"] == "its process ended with exit code 3, perhaps for want of memory"
        worker._seconds = 0.5
        worker.trace("plain")
        assert worker.trace("endless")["reason"] == "it took longer than 0.5 seconds"
        assert worker.close() is None
    finally:
        worker.close()


def test_a_library_that_is_not_there(library: str) -> None:
    worker = Worker(f"{library}:Missing", seconds=60, megabytes=512)
    with pytest.raises(UserError, match="cannot be traced: it is not installed"):
        worker.trace("plain")
    worker.close()
