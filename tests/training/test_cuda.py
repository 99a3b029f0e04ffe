"""Searches, retrainings and segmentations on a GPU: beside the CPU's, in each precision, stopped and resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from nge_search.cli import main
from nge_search.data.storage import StreamedImages
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.loop import Loop

# A GPU's libraries warn of what only they know of; and compiled fp32 is told that tf32 would be faster.
pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]

COMMON = ("threads=1", "run.progress=none", "run.tensorboard=false")
SIZES = ("network.channels=4", "network.cells=3", "train.epochs=2", "train.batch_size=16")
CLASSIFICATION = ("eval", *COMMON, *SIZES, "data.limit=64", "network.drop_path=0.2", "train.eval_batch_size=599")
SEGMENTATION = (
    "eval", "task=segmentation", *COMMON, *SIZES, "data.name=voc", "data.crop=48", "data.workers=0",
    "network.head_channels=8", "network.output_stride=8", "network.dropout=0",
)  # fmt: skip


@pytest.fixture
def kinds(tiny_search, voc_tree) -> dict[str, list[str]]:
    """The words of a tiny run of each kind; the search with the fast supernet, of all operations.

    Its phases have four steps: of more than WARM_UP, the last are recorded.
    """
    search = [word for word in tiny_search if not word.startswith("supernet.kernel")] + ["search.batch_size=8"]
    return {
        "search": ["search", *search],
        "classification": list(CLASSIFICATION),
        "segmentation": [*SEGMENTATION, f"data.root={voc_tree(12, 7)}"],
    }


def run(words: list[str], folder: Path, *more: str) -> list[dict[str, Any]]:
    """The rows of a finished run."""
    assert main([*words, f"run.dir={folder}", *more]) == 0
    assert (folder / "summary.json").exists()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def end(folder: Path) -> list[torch.Tensor]:
    """Every tensor of a run's last checkpoint."""
    state, _, damaged = CheckpointFolder(folder / "checkpoints").load_newest()
    assert damaged == []
    return [x.double() for x in tree_leaves(state["task"]) if isinstance(x, torch.Tensor)]


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [row[name] for row in rows for name in ("train_loss", "test_loss", "valid_loss") if name in row]


@pytest.mark.parametrize("kind", ["search", "classification", "segmentation"])
def test_a_run_in_float64_equals_that_on_the_cpu(kinds, kind, tmp_path):
    """Data, augmentation, drop-path, steps, statistics and figures."""
    words = [*kinds[kind], "precision=fp64"]
    found = losses(run(words, tmp_path / "gpu", "device=cuda"))
    assert found == pytest.approx(losses(run(words, tmp_path / "cpu", "device=cpu")), rel=1e-6)


@pytest.mark.parametrize("kind", ["search", "classification", "segmentation"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("tf32", 0.1), ("bf16", 0.2)])
def test_each_precision_trains(kinds, kind, precision, tolerance, tmp_path):
    """The first epoch's loss is float64's, as far as the precision goes."""
    found = losses(run(kinds[kind], tmp_path / "own", "device=cuda", f"precision={precision}"))
    exact = losses(run(kinds[kind], tmp_path / "exact", "device=cuda", "precision=fp64"))
    assert all(map(math.isfinite, found))
    assert found[0] == pytest.approx(exact[0], rel=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_cells_train_as_others_do(kinds, precision, tmp_path):
    words = [*kinds["classification"], "device=cuda", f"precision={precision}", "network.auxiliary=false"]
    compiled = losses(run(words, tmp_path / "compiled", "train.compile=true", "train.epochs=1"))
    plain = losses(run(words, tmp_path / "plain", "train.epochs=1"))
    assert compiled == pytest.approx(plain, rel=0.2 if precision == "bf16" else 1e-2)


@pytest.mark.parametrize("kind", ["search", "classification", "segmentation"])
def test_a_stopped_run_goes_on_to_the_same_end(kinds, kind, tmp_path, monkeypatch):
    """After an epoch, in another Loop; up to rounding, since a GPU adds up in no fixed order."""
    words = [*kinds[kind], "device=cuda", "precision=fp64"]
    if kind == "search":
        words.append("search.cuda_graphs=always")
    run(words, tmp_path / "whole")
    end_epoch = Loop._end_epoch

    def stop(loop, logger):
        end_epoch(loop, logger)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_end_epoch", stop)
        assert main([*words, f"run.dir={tmp_path / 'stopped'}"]) == 130
    run(words, tmp_path / "stopped")
    for one, other in zip(end(tmp_path / "whole"), end(tmp_path / "stopped"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_a_checkpoint_of_the_cpu_goes_on_on_the_gpu(kinds, tmp_path, monkeypatch):
    """A search's Adam there may be recorded, and its steps are counted on the device."""
    words = [*kinds["search"], "precision=fp64"]
    end_epoch = Loop._end_epoch

    def stop(loop, logger):
        end_epoch(loop, logger)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_end_epoch", stop)
        assert main([*words, f"run.dir={tmp_path / 'run'}", "device=cpu"]) == 130
    found = losses(run(words, tmp_path / "run", "device=cuda", "search.cuda_graphs=auto"))
    assert found == pytest.approx(losses(run(words, tmp_path / "cpu", "device=cpu")), rel=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_read_ahead_equal_resident_ones(kinds, workers, tmp_path, monkeypatch):
    """Through pinned memory and copies that nobody waits for."""
    words = [*kinds["classification"], "device=cuda", "precision=fp64"]
    resident = losses(run(words, tmp_path / "resident", "data.resident=always"))
    made = []
    init = StreamedImages.__init__
    monkeypatch.setattr(
        StreamedImages, "__init__", lambda self, *a, **k: (made.append(self), init(self, *a, **k))[1]
    )
    streamed = run(words, tmp_path / "streamed", "data.resident=never", f"data.workers={workers}")
    assert made
    assert losses(streamed) == pytest.approx(resident, rel=1e-9)
