"""A golden run: stored losses of the first steps. A change that is not meant to change numbers must not.

After a change that is meant to, `python tests/search/test_golden.py` writes the new values.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from nge_search.config import load_config
from nge_search.engine.session import open_session
from nge_search.schema import SearchConfig
from nge_search.search.run import build_task

STORED = Path(__file__).parents[1] / "golden" / "search_digits.json"
STEPS = 5


def losses(folder: Path) -> dict[str, list[float]]:
    """Mean losses of the first weight and architecture steps of a small search on digits."""
    settings = ["threads=1", "run.progress=none", f"run.dir={folder}", "supernet.channels=4", "supernet.cells=3"]
    found: dict[str, list[float]] = {}
    with open_session(load_config(SearchConfig, None, [*settings, "search.batch_size=32"])) as session:
        task = build_task(session)
        for phase in task.phases[:2]:
            phase.start(0)
            found[phase.name] = []
            for _, batches in zip(range(STEPS), phase.batches(0, 0)):
                task.meters[phase.name].reset()
                phase.step(*batches)
                found[phase.name].append(task.meters[phase.name].result(session.world)["loss"])
    return found


def test_first_steps_match_the_stored_losses(tmp_path):
    stored = json.loads(STORED.read_text())
    found = losses(tmp_path / "run")
    assert found.keys() == stored.keys()
    for name, values in stored.items():
        assert found[name] == pytest.approx(values, rel=1e-3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        STORED.write_text(json.dumps(losses(Path(scratch) / "run"), indent=2) + "\n")
    sys.exit(0)
