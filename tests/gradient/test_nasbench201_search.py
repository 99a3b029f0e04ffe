"""Gradient search in NAS-Bench-201, from the command line to the accuracy of its cell; warm-up."""

from __future__ import annotations

import itertools
import json
import re
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nge_search
from nge_search.architecture.genotype import PUBLISHED
from nge_search.cli import main
from nge_search.engine.interrupt import Interrupted
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.spaces import NasBench201Space
from nge_search.tables.table import build_table

SPACE = NasBench201Space()
FORMS = ("reference", "fused")


@pytest.fixture(scope="module")
def run(dense_search, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "run"
    words = [word for word in dense_search if not word.startswith("run.tensorboard")]
    assert main(["search", *words, f"run.dir={folder}"]) == 0
    return folder


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_cell_that_is_found_can_be_looked_up(run: Path, tmp_path: Path, capsys) -> None:
    rows = rows_of(run)
    genotype = json.loads((run / "genotype.json").read_text())
    assert rows[-1]["genotype"] == genotype
    best = tuple(max(range(5), key=p_O.__getitem__) for p_O in rows[-1]["p_cell"])
    assert SPACE.parse(genotype["architecture"]) == best
    codes = itertools.product(range(5), repeat=6)
    table = build_table(SPACE, ((code, {"made": float(sum(code))}) for code in codes), "a made table", "cell")
    table.save(tmp_path / "table")
    capsys.readouterr()
    assert main(["table", str(tmp_path / "table"), "--find", str(run)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architecture"] == genotype["architecture"]
    assert found["figures"] == {"made": sum(best)}
    (run.parent / "other").mkdir()
    (run.parent / "other" / "genotype.json").write_text(PUBLISHED["darts_v1"].to_json())
    assert main(["table", str(tmp_path / "table"), "--find", str(run.parent / "other")]) == 2
    assert "holds no architecture of nasbench201" in capsys.readouterr().err


def test_what_a_search_shows(run: Path, dense_search, capsys) -> None:
    architecture = json.loads((run / "genotype.json").read_text())["architecture"]
    assert main(["search", *dense_search, f"run.dir={run}"]) == 0
    printed = capsys.readouterr().out
    assert architecture in printed
    assert f"nge table TABLE --find {run}" in printed
    report = (run / "report.html").read_text()
    pills = len(SPACE.graphs(SPACE.parse(architecture))["cell"].edges)
    assert report.count('class="pill" data-gene') == pills
    assert f"nge table tables/nb201 --find {run}" in report
    assert len(re.findall(r'class="panel( kept)?"', report)) == 6
    assert "Reduction" not in report
    assert main(["derive", str(run), "--epoch", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == rows_of(run)[0]["genotype"]
    assert nge_search.derive(run)["architecture"] == architecture
    assert main(["eval", f"network.genotype={run}", "data.name=digits"]) == 2
    assert "network.kind=cifar takes cells of darts" in (refusal := capsys.readouterr().err)
    assert "set network.kind=nasbench201" in refusal
    assert main(["eval", "task=segmentation", f"network.genotype={run}"]) == 2
    assert "network.kind=imagenet takes cells of darts" in capsys.readouterr().err
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert {"architecture/entropy_cell", "p_cell/0-3/nor_conv_3x3"} <= set(events.Tags()["scalars"])
    assert {"p/cell", "genotype"} <= set(events.Tags()["images"])
    drawing = (run / "genotype.svg").read_text()
    assert len(re.findall(r'id="cell-gene-\d-\w+"', drawing)) == pills


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("search.mixture=sampled", "search.warmup_epochs=1"),
        ("search.mixture=sampled", "search.gradient=score"),
        (
            "search.mixture=dirichlet",
            "search.edge_normalisation=true",
            "search.beta_weight=1",
            "embedding.edges=split",
        ),
        ("supernet.channels=8", "supernet.partial=2", "search.temperature_end=0.1", "embedding.jumping=true"),
    ],
)
@pytest.mark.parametrize(("name", "at"), [("weight_step", 2), ("architecture_step", 0)])
def test_an_interrupted_search_goes_on_bit_for_bit(name, at, words, dense_search, tmp_path, monkeypatch) -> None:
    """Stopped after the first of two steps of a phase."""
    run, words = tmp_path / "whole", [*dense_search, *words]
    nge_search.search(None, *words, f"run.dir={run}")
    cut, count, step = tmp_path / "cut", iter(range(10**6)), getattr(BilevelSearch, name)

    def stop_in_time(self, *given):
        if next(count) == at:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(BilevelSearch, name, stop_in_time)
        with pytest.raises(Interrupted):
            nge_search.search(None, *words, f"run.dir={cut}")
    nge_search.search(None, *words, f"run.dir={cut}")
    same = ("p_cell", "train_loss", "valid_loss", "genotype")
    for one, other in zip(rows_of(run), rows_of(cut), strict=True):
        assert [one[name] for name in same] == [other[name] for name in same]


@pytest.mark.parametrize("kind", ["nge", "direct", "plain", "rnn"])
def test_both_forms_find_the_same(kind: str, dense_search, tmp_path) -> None:
    """In float64, with either loop; each embedding."""
    found = []
    for form in FORMS:
        words = [*dense_search, f"supernet.kernel={form}", "precision=fp64", f"embedding.kind={kind}"]
        words += ["search.loop=batchwise" if kind == "rnn" else "search.loop=epochwise"]
        nge_search.search(None, *words, f"run.dir={tmp_path / form}")
        found.append(rows_of(tmp_path / form))
    for one, other in zip(*found, strict=True):
        for p_O, other_O in zip(one["p_cell"], other["p_cell"]):
            assert p_O == pytest.approx(other_O, abs=1e-9)


@pytest.mark.parametrize("loop", ["epochwise", "batchwise"])
def test_in_the_warm_up_the_weights_alone_are_trained(loop: str, dense_search, tmp_path) -> None:
    words = [*dense_search, "search.epochs=3", "search.warmup_epochs=2", f"search.loop={loop}"]
    nge_search.search(None, *words, f"run.dir={tmp_path / 'run'}")
    first, second, last = rows_of(tmp_path / "run")
    assert first["p_cell"] == second["p_cell"] != last["p_cell"]
    assert first["train_loss"] != second["train_loss"]
    assert "architecture_loss" not in second


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("supernet.cells=4", "supernet.cells=4: supernet.space=nasbench201 has three stages; set a multiple of 3"),
        ("supernet.nodes=3", "supernet.nodes=3: fixed in supernet.space=nasbench201; leave it out"),
        ("supernet.operations=[skip_connect,max_pool_3x3]", "fixed in supernet.space=nasbench201"),
        ("supernet.stem_multiplier=1", "supernet.stem_multiplier=1: fixed in"),
        ("supernet.space=nasbench", "did you mean 'nasbench201'?"),
        ("search.gradient=score", "search.gradient=score: needs search.mixture=sampled"),
        ("search.edge_normalisation=true search.mixture=sampled search.gradient=score", "search.gradient=relaxed"),
        ("search.mixture=dirichlet search.temperature_end=0.1", "search.mixture=dirichlet: it has no temperature"),
        ("search.mixture=dirichlet search.gradient=score", "search.gradient=score: needs search.mixture=sampled"),
        ("search.mixture=dirichlets", "did you mean 'dirichlet'?"),
        ("search.temperature_end=0", "search.temperature_end=0.0: must be above 0"),
        ("search.stop_operations=[skip]", "search.stop_operations=skip: allowed are"),
        ("search.stop_operations=[none,none]", "one stands there twice"),
        ("search.anchor_weight=-1", "search.anchor_weight=-1.0: must be at least 0"),
        ("embedding.edges=splits", "did you mean 'split'?"),
        ("search.warmup_epochs=2", "search.warmup_epochs=2: leaves none of search.epochs=2 for P"),
    ],
)
def test_bad_settings(word: str, message: str, dense_search, tmp_path, capsys) -> None:
    assert main(["search", *dense_search, *word.split(), f"run.dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
