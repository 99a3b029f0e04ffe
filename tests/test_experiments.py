"""The scripts under experiments/ that the default suite does not run otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_script_that_measures_a_gpu(tmp_path):
    """On the CPU, with a tiny search."""
    bench = "--batch 2 --size 8 --cells 3 --channels 4 --steps 1"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = ["data.name=digits", "data.limit=128", "supernet.channels=4", "supernet.cells=3"]
    command = [str(ROOT / "experiments" / "gpu" / "supernet.sh"), str(tmp_path / "out")]
    own = {**os.environ, "DEVICE": "cpu", "EPOCHS": "1", "BENCH": bench, "PATH": path}
    subprocess.run([*command, *settings], env=own, check=True)
    assert "skipped" in (tmp_path / "out" / "tests.txt").read_text()
    assert json.loads((tmp_path / "out" / "supernet.json").read_text())["forms"]["fused"]
    for name in ("search_bf16", "search_bf16_eager"):
        found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert found["seconds"] > 0
        assert [row["epoch"] for row in found["epochs"]] == [0]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists; name a new folder" in again.stderr
