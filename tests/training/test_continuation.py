"""Trainings that go on with more epochs than they were begun with."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

import nge_search
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.data import Dataset, MemoryImages
from nge_search.data.segmentation.voc import load_voc
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.distributed import World
from nge_search.engine.loop import Loop
from nge_search.errors import UserError
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.training import run as classifier_run
from nge_search.training import segmentation_run
from nge_search.training.classification import ClassifierTraining
from nge_search.training.segmentation import SegmentationTraining

pytestmark = pytest.mark.usefixtures("unreported")
QUIET = ("threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false")
#: A cell of one node.
SMALL = {kind: [["sep_conv_3x3", 0], ["skip_connect", 1]] for kind in ("normal", "reduce")}
CELL = json.dumps(
    {"format": "nge-genotype/1", "space": "darts", **SMALL, "normal_concat": [2], "reduce_concat": [2]}
)
#: A retraining on 40 digits at a constant rate, without drop-path, in two steps an epoch.
CONSTANT = (
    *QUIET, f"network.genotype='{CELL}'", "data.limit=40", "network.channels=2", "network.cells=1",
    "network.stem_multiplier=1", "train.batch_size=20", "train.evaluate_every=10", "train.eval_batch_size=600",
    "train.schedule=constant", "train.ema_decay=0.9", "train.cutmix=0.2", "data.cutout=2",
)  # fmt: skip
SEGMENTATION = (
    *QUIET, f"network.genotype='{CELL}'", "task=segmentation", "data.name=voc", "data.crop=32",
    "data.workers=0", "network.channels=2", "network.cells=2", "network.head_channels=4",
    "train.batch_size=3", "train.eval_batch_size=4",
)  # fmt: skip
RowsOf = Callable[[Path], list[dict[str, Any]]]
StoppedAt = Callable[[int], AbstractContextManager[None]]
#: Figures of a summary that differ from run to run.
TIMES = ("seconds", "images_per_second", "peak_memory_mb")


def newest(run: Path) -> dict[str, Any]:
    state, _, _ = CheckpointFolder(run / "checkpoints").load_newest()
    assert state is not None
    return state


def assert_equal(ours: Any, theirs: Any, name: str = "state") -> None:
    """Bit for bit."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), name
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), name
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{name}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), name
        for number, pair in enumerate(zip(ours, theirs)):
            assert_equal(*pair, f"{name}.{number}")
    else:
        assert ours == theirs, name


def assert_same_end(folder: Path, reference: Path, stretches: int) -> None:
    ours, theirs = newest(folder), newest(reference)
    assert len(ours["task"].pop("stretches")) == stretches
    for part in ("task", "position", "random"):
        assert_equal(ours[part], theirs[part], part)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (folder, reference)]
    for summary in summaries:
        for figure in TIMES:
            summary.pop(figure)
    assert summaries[0] == summaries[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("continued")


@pytest.fixture(scope="module")
def once(place: Path) -> Path:
    """20 epochs in one run."""
    nge_search.evaluate(None, *CONSTANT, "train.epochs=20", f"run.dir={place / 'once'}")
    return place / "once"


@pytest.fixture(scope="module")
def ten(place: Path) -> Path:
    """10 epochs; tests that change its folder copy it."""
    nge_search.evaluate(None, *CONSTANT, "train.epochs=10", f"run.dir={place / 'ten'}")
    return place / "ten"


@pytest.fixture
def copied(ten: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ten, tmp_path / "run")


def test_ten_epochs_and_ten_more_are_twenty(
    once: Path, copied: Path, rows_of: RowsOf, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*CONSTANT, f"run.dir={copied}", "run.progress=lines"]
    assert main(["eval", *words, "train.epochs=20"]) == 0
    printed = capsys.readouterr().out
    assert (
        "train.epochs was 10 and is 20: from epoch 11 on the learning rate stays at 0.025 "
        "(train.continuation=constant), momentum and the average of the weights go on"
    ) in printed
    assert_same_end(copied, once, 1)
    assert rows_of(copied) == rows_of(once)
    assert main(["eval", *words, "train.epochs=20"]) == 0
    assert "has finished" in capsys.readouterr().out


def test_an_unfinished_run_is_extended_wherever_it_stands(
    once: Path, tmp_path: Path, rows_of: RowsOf, stopped_at: StoppedAt
) -> None:
    """Stopped inside epoch 4 of 10, extended to 15, stopped in the same epoch, extended to 20."""
    words = ["eval", *CONSTANT, f"run.dir={tmp_path / 'run'}"]
    for epochs, step in ((10, 7), (15, 1), (20, 9)):
        with stopped_at(step):
            assert main([*words, f"train.epochs={epochs}"]) == 143
    assert [one["first"] for one in newest(tmp_path / "run")["task"]["stretches"]] == [4, 4]
    assert main([*words, "train.epochs=20"]) == 0
    assert_same_end(tmp_path / "run", once, 2)
    assert rows_of(tmp_path / "run") == rows_of(once)


def test_epochs_that_were_mistyped_are_taken_back(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a step of them: to what the run had finished with."""
    words = ["eval", *CONSTANT, f"run.dir={copied}"]
    summary = json.loads((copied / "summary.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", lambda loop: (_ for _ in ()).throw(UserError("killed")))
        assert main([*words, "train.epochs=5000"]) == 2
    assert not (copied / "summary.json").exists()
    assert main([*words, "train.epochs=9"]) == 2
    assert "has ended 10 epochs; set at least 11" in capsys.readouterr().err
    assert main([*words, "train.epochs=10"]) == 0
    again = json.loads((copied / "summary.json").read_text())
    assert {**again, **{time: summary[time] for time in TIMES}} == summary


def test_epochs_that_were_mistyped_and_begun_are_taken_back(
    copied: Path, rows_of: RowsOf, stopped_at: StoppedAt, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", *CONSTANT, f"run.dir={copied}"]
    with stopped_at(1):
        assert main([*words, "train.epochs=5000"]) == 143
    assert main([*words, "train.epochs=10"]) == 2
    error = capsys.readouterr().err
    assert f"train.epochs=10: run '{copied}' has ended 10 epochs; set at least 11" in error
    assert error.count("\n") == 1
    assert main([*words, "train.epochs=11"]) == 0
    stretches = newest(copied)["task"]["stretches"]
    assert [(one["first"], one["before"], one["epochs"]) for one in stretches] == [(10, 10, 5000), (11, 5000, 11)]
    assert ["test_top1" in row for row in rows_of(copied)] == [*[False] * 9, True, True]


def test_a_segmentation_goes_on_alike(tmp_path: Path, voc_tree: Callable[..., Path], rows_of: RowsOf) -> None:
    """At a constant rate, with dropout: two epochs, after which `on_epoch` stops it, and two more are four."""
    words = [*SEGMENTATION, f"data.root={voc_tree(3, 2, ((40, 32),))}", "train.power=0"]
    nge_search.evaluate(None, *words, "train.epochs=4", f"run.dir={tmp_path / 'once'}")
    images, logits, run = torch.rand(1, 3, 32, 32), [], tmp_path / "run"

    def look(seen: nge_search.Run) -> None:
        with torch.no_grad():
            logits.append(seen.networks["network"](images)[0])
        if seen.epoch == 2:
            seen.stop()

    summary = nge_search.evaluate(None, *words, "train.epochs=3", f"run.dir={run}", on_epoch=look)
    assert (summary["epochs"], len(logits)) == (2, 2)
    config = load_config(SegmentationConfig, None, [*words, f"run.dir={run}"])
    assert segmentation_run.closing_lines(config, summary)[0] == "stopped after epoch 2 of 3, as on_epoch asked"
    with torch.no_grad():
        found = nge_search.Run.load(run).networks["network"](images)[0]
    torch.testing.assert_close(found, logits[-1], rtol=1e-4, atol=1e-6)
    summary = nge_search.evaluate(None, *words, "train.epochs=4", f"run.dir={run}")
    assert "stopped" not in summary
    assert_same_end(run, tmp_path / "once", 1)
    assert rows_of(run) == rows_of(tmp_path / "once")


def test_the_last_epoch_is_evaluated_although_more_were_added_during_its_evaluation(
    tmp_path: Path, rows_of: RowsOf, stopped_at: StoppedAt
) -> None:
    words = ["eval", *CONSTANT, "train.evaluate_every=0", f"run.dir={tmp_path / 'run'}"]
    with stopped_at(3):
        assert main([*words, "train.epochs=1"]) == 143
    assert newest(tmp_path / "run")["position"]["phase"] == 1
    assert main([*words, "train.epochs=3"]) == 0
    assert ["test_top1" in row for row in rows_of(tmp_path / "run")] == [True, False, True]


def classifier(*words: str) -> ClassifierTraining:
    images = MemoryImages(torch.zeros((8, 1, 8, 8), dtype=torch.uint8), torch.arange(8) % 2)
    dataset = Dataset("digits", images, images, ("a", "b"), 8, 1, (0.5,), (0.25,))
    config = load_config(EvalConfig, None, [*QUIET, "network.channels=2", "network.cells=1", *words])
    return classifier_run.build_task(config, load_genotype("darts_v2"), dataset, World(torch.device("cpu")))


def segmenter(root: Path, *words: str) -> SegmentationTraining:
    config = load_config(SegmentationConfig, None, [*SEGMENTATION, f"data.root={root}", *words])
    dataset, world = load_voc(config.data), World(torch.device("cpu"))
    return segmentation_run.build_task(config, load_genotype("darts_v2"), dataset, world)


def falling(share: float, first: float, last: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("course", ["constant", "cosine", "restart"])
def test_learning_rates_and_drop_path_follow_the_formulas(course: str) -> None:
    """4 epochs, extended to 8 once they are over, and to 9 within the sixth."""
    words = ["train.learning_rate=0.4", "train.learning_rate_min=0.02", "train.warmup_epochs=2"]
    words += ["network.drop_path=0.3", f"train.continuation={course}"]
    task = classifier(*words, "train.epochs=8")
    text = task.take_up({"train": {"epochs": 4}}, 4, "a checkpoint")
    assert "drop-path rises from 0.225 to 0.3" in text
    state = task.state_dict()
    task = classifier(*words, "train.epochs=9")
    task.load_state_dict(state, "a checkpoint")
    task.take_up({"train": {"epochs": 8}}, 6, "a checkpoint")
    found, drops = [], []
    for epoch in range(9):
        task.start_epoch(epoch)
        found.append(task.optimiser.param_groups[0]["lr"])
        drops.append(float(task.drop_path))
    original = [falling(epoch / 4, 0.4, 0.02) for epoch in range(4)]
    rates = [original[0] / 2, *original[1:]]
    for epochs, first, after in ((8, 4, range(4, 6)), (9, 6, range(6, 9))):
        present = 0.4 if course == "restart" else rates[-1]
        for epoch in after:
            share = 0.0 if course == "constant" else (epoch - first) / (epochs - first)
            rates.append(falling(share, present, 0.02))
    assert found == pytest.approx(rates, rel=1e-12)
    assert drops[:4] == pytest.approx([0, 0.075, 0.15, 0.225])
    assert drops[4:6] == pytest.approx([0.225 + 0.075 / 5, 0.225 + 2 * 0.075 / 5])
    assert drops[6:] == pytest.approx([0.255 + 0.045 * step / 4 for step in (1, 2, 3)])


def test_epochs_that_are_taken_back_leave_what_has_begun() -> None:
    """Of 8 epochs, at a cosine, extended to 20 after the fourth: 6 in all, before the fifth epoch and in it."""
    words = ["train.learning_rate=0.4", "train.continuation=cosine", "train.schedule=constant", "train.epochs=6"]
    for first, stretches in ((4, [(4, 8, 6)]), (5, [(4, 8, 20), (5, 20, 6)])):
        task = classifier(*words)
        state = {**task.state_dict(), "stretches": [{**STRETCH, "before": 8, "epochs": 20, "course": "cosine"}]}
        task.load_state_dict(state, "a checkpoint")
        assert "train.epochs was" in task.take_up({"train": {"epochs": 20}}, first, "a checkpoint")
        assert [(one.first, one.before, one.epochs) for one in task.plan.stretches] == stretches
        assert task.plan.original == 8
        assert task.rates(5)[0] == pytest.approx(falling(0.5, 0.4, 0) if first == 4 else falling(0, 0.1, 0))
    task = classifier(*words, "train.epochs=4")
    assert task.take_up({"train": {"epochs": 9}}, 4, "a checkpoint") == "train.epochs was 9 and is 4"
    assert task.rates(3) == (0.4,)


def test_growth_within_the_warm_up_keeps_the_rate_that_it_rises_to() -> None:
    words = ["train.schedule=constant", "train.learning_rate=0.4", "train.warmup_epochs=4", "train.epochs=8"]
    task = classifier(*words)
    task.take_up({"train": {"epochs": 5}}, 2, "a checkpoint")
    found = []
    for epoch in range(8):
        task.start_epoch(epoch)
        found.append(task.optimiser.param_groups[0]["lr"])
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])


@pytest.mark.parametrize("course", ["constant", "cosine", "restart"])
def test_rates_of_a_segmentation_follow_the_formulas(course: str, voc_tree: Callable[..., Path]) -> None:
    """Two steps an epoch; two epochs, extended to four."""
    words = ["train.learning_rate=0.1", "train.head_learning_rate=0.8", "train.learning_rate_min=0.01"]
    task = segmenter(voc_tree(6, 2), *words, f"train.continuation={course}", "train.epochs=4", "train.power=0.9")
    task.take_up({"train": {"epochs": 2}}, 2, "a checkpoint")
    assert task.train.steps == 2
    found = []
    for task.updates in range(8):
        task._set_learning_rates()
        found.append([group["lr"] for group in task.optimiser.param_groups])
    for group, initial in enumerate((0.1, 0.8)):
        rates = [0.01 + (initial - 0.01) * (1 - step / 4) ** 0.9 for step in range(4)]
        first = initial if course == "restart" else rates[-1]
        rates += [falling(0 if course == "constant" else step / 4, first, 0.01) for step in range(4)]
        assert [pair[group] for pair in found] == pytest.approx(rates, rel=1e-12)


# -- what cannot be continued


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train.epochs=9",), "train.epochs was 10, now 9, and may only grow"),
        (("train.epochs=0",), "train.epochs=0: must be at least 1"),
        (("train.epochs=+10",), "train.epochs='+10': give the number of all, not of those to be added"),
        (("train.epochs=ten",), "train.epochs=ten: must be a whole number"),
        (("train.epochs=20", "train.continuation=linear"), "allowed are constant, cosine, restart"),
        (("train.epochs=20", "train.batch_size=10"), "train.batch_size was 20, now 10"),
        (("train.epochs=20", "network.genotype=darts_v1"), "trains another genotype"),
    ],
)
def test_what_cannot_be_added_is_one_line_and_nothing_is_lost(
    words: tuple[str, ...], says: str, ten: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in ten.rglob("*") if path.is_file()}
    assert main(["eval", *CONSTANT, f"run.dir={ten}", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert before == {path: path.read_bytes() for path in ten.rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [(), ("train.continuation=restart",)])
def test_epochs_that_nobody_typed_are_not_added(
    more: tuple[str, ...], ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe's number, or the default, is no wish to go on; by the command, and from Python."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {epochs: 20}\n")
    before = {path: path.read_bytes() for path in ten.rglob("*") if path.is_file()}
    untyped = [word for word in CONSTANT if not word.startswith("train.epochs")]
    assert main(["eval", "--config", str(recipe), *untyped, f"run.dir={ten}", *more]) == 2
    error = capsys.readouterr().err
    assert (
        "has finished with train.epochs=10; it is 20 where nothing is typed: add train.epochs=20 to go on until"
        in error
    )
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=r"or train\.epochs=10 to see the result"):
        nge_search.evaluate(recipe, *untyped, f"run.dir={ten}", *more)
    with pytest.raises(UserError, match=r"has finished with train\.epochs=10; it is 600 where nothing is typed"):
        nge_search.evaluate({"run": {"dir": str(ten)}}, *untyped, *more)
    assert before == {path: path.read_bytes() for path in ten.rglob("*") if path.is_file()}
    for said in ([{"train": {"epochs": 10}}], ["train.epochs=10"], ["train={epochs: 10}"]):
        assert nge_search.evaluate(recipe, *untyped, f"run.dir={ten}", *more, *said)["epochs"] == 10


@pytest.mark.parametrize(
    ("spoil", "words", "says"),
    [
        (lambda run: (run / "config.yaml").unlink(), (), "config.yaml is missing or damaged"),
        (lambda run: (run / "config.yaml").write_text("- 1"), (), "config.yaml is missing or damaged"),
        (lambda run: None, ("train.batch_size=10",), "train.batch_size was 20, now 10"),
        (lambda run: None, ("task=segmentation",), "holds a run of kind eval, not segmentation"),
    ],
)
def test_what_else_is_wrong_goes_before_epochs_that_nobody_typed(
    spoil: Callable[[Path], object], words: tuple[str, ...], says: str, copied: Path
) -> None:
    spoil(copied)
    untyped = [word for word in CONSTANT if not word.startswith("train.epochs")]
    if words == ("task=segmentation",):
        untyped = ["run.progress=none"]
    with pytest.raises(UserError, match=says):
        nge_search.evaluate(None, *untyped, *words, f"run.dir={copied}")


def test_a_finished_run_without_checkpoints_cannot_go_on(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copied / "checkpoints")
    assert main(["eval", *CONSTANT, f"run.dir={copied}", "train.epochs=20"]) == 2
    assert "holds no checkpoint to go on from" in capsys.readouterr().err
    assert (copied / "summary.json").exists()


def test_a_finished_run_whose_checkpoint_is_damaged_keeps_its_result(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (copied / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    assert main(["eval", *CONSTANT, f"run.dir={copied}", "train.epochs=20"]) == 2
    assert "every checkpoint in" in capsys.readouterr().err
    assert json.loads((copied / "summary.json").read_text())["epochs"] == 10


STRETCH = {"first": 4, "before": 4, "epochs": 8, "course": "constant", "rates": [0.1], "drop_path": 0.0}


@pytest.mark.parametrize(
    ("stretches", "says"),
    [
        (3, "'stretches' must be a list"),
        ([3], "'stretches' must be a list"),
        ([{}], "'first' is missing"),
        ([{**STRETCH, "first": -1}], "'first' must be"),
        ([{**STRETCH, "epochs": 3}], "'epochs' must be"),
        ([{**STRETCH, "end": 5}], "'end' must be"),
        ([{**STRETCH, "course": "upwards"}], "'course' must be"),
        ([{**STRETCH, "rates": [0.1, 0.2]}], "'rates' must be"),
        ([{**STRETCH, "drop_path": "high"}], "'drop_path' must be"),
        ([{**STRETCH, "epochs": 7}], "'stretches' end at epoch 7 of 8"),
        ([{**STRETCH, "course": "cosine"}], "train.continuation=constant: the epochs from 5 on were added with"),
    ],
)
def test_damaged_stretches_are_named(stretches: Any, says: str) -> None:
    task = classifier("train.epochs=8")

    def load() -> None:
        task.load_state_dict({**task.state_dict(), "stretches": stretches}, "a checkpoint")
        task.take_up({"train": {"epochs": 8}}, 5, "a checkpoint")

    with pytest.raises(UserError, match=says):
        load()


@pytest.mark.parametrize("settings", [{}, {"train": 3}, {"train": {}}, {"train": {"epochs": "4"}}])
def test_settings_of_a_damaged_checkpoint_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="a checkpoint is damaged"):
        classifier("train.epochs=8").take_up(settings, 4, "a checkpoint")
