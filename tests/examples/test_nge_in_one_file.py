"""The example computes what the package does: the same stored losses, step by step, from equal initial values."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_its_losses_are_the_golden_ones(tmp_path: Path) -> None:
    from nge_search.engine.session import open_session
    from nge_search.gradient.run import build_task
    from nge_search.settings.load import load_config
    from nge_search.settings.search import SearchConfig

    golden = load(ROOT / "tests" / "golden" / "test_golden.py")
    example = load(ROOT / "examples" / "nge_in_one_file.py")
    words = golden.settings(tmp_path, *golden.SEARCH, "supernet.kernel=reference")
    with open_session(load_config(SearchConfig, None, words)) as session:
        task = build_task(session)
        supernet, embedding = example.Supernet(4, 3, 3, 3), example.Embedding(len(example.OPERATIONS))
        for own, theirs in ((supernet, task.supernet), (embedding, task.architecture.embedding)):
            for mine, given in zip(own.double().parameters(), theirs.parameters(), strict=True):
                mine.data.copy_(given)
        search = example.Search(supernet, embedding, task.epochs)
        search.start_epoch(1)
        p = [p_EO.detach() for p_EO in embedding()]
        batches = zip(range(golden.STEPS), task.train.iterate(1))
        found = {"train": [search.weight_step(b.images_BCHW, b.labels_B, p) for _, b in batches]}
        batches = zip(range(golden.STEPS), task.valid.iterate(1))
        found["architecture"] = [search.embedding_step(b.images_BCHW, b.labels_B) for _, b in batches]
    for phase, values in json.loads((ROOT / "tests" / "golden" / "search.json").read_text()).items():
        assert found[phase] == pytest.approx(values, rel=1e-6)


def test_it_runs_and_names_cells(capsys: pytest.CaptureFixture[str]) -> None:
    example = load(ROOT / "examples" / "nge_in_one_file.py")
    assert len((ROOT / "examples" / "nge_in_one_file.py").read_text().splitlines()) <= 200
    example.main(epochs=1, count=40)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch 1: train loss ")
    assert [line.partition(":")[0] for line in lines[1:]] == ["normal", "reduction"]
    assert all(line.count("(") == 8 for line in lines[1:])
