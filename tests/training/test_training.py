"""What a retraining does within a step and around epochs: schedules, averages, mixing, weights to start from."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup
from torch import nn

import nge_search
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.data import Dataset, MemoryImages
from nge_search.engine.distributed import World
from nge_search.engine.optimisers import cosine, linear, warm_up
from nge_search.keyed_random import fold
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config
from nge_search.training.classification import ClassifierTraining
from nge_search.training.evaluation import confusion, describe_evaluation
from nge_search.training.mixup import Mixing
from nge_search.training.run import build_task

SMALL = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "precision=fp64", "network.channels=2",
    "network.cells=3", "train.batch_size=8",
)  # fmt: skip


def noise(count: int = 40, classes: int = 4) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 12, 12), dtype=torch.uint8, generator=generator)
    images = MemoryImages(pixels, torch.arange(count) % classes)
    return Dataset("cifar10", images, images, tuple("abcdefgh"[:classes]), 12, 3, (0.5,) * 3, (0.25,) * 3)


def training(*words: str, classes: int = 4) -> ClassifierTraining:
    torch.manual_seed(0)
    config = load_config(EvalConfig, None, ["data.name=cifar10", *SMALL, *words])
    world = World(torch.device("cpu"))
    return build_task(config, load_genotype("darts_v2"), noise(classes=classes), world)


def run_epoch(task: ClassifierTraining, epoch: int = 0) -> None:
    for phase in task.phases:
        phase.start(epoch)
        for batches in phase.batches(epoch, 0):
            phase.step(*batches)
        phase.finish(epoch)


def test_schedules():
    assert [linear(e, 4, 1.0, 0.2) for e in range(5)] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert cosine(1, 4, 1.0, 0.0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert [warm_up(e, 4) for e in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warm_up(0, 0) == 1
    words = ("train.epochs=10", "train.learning_rate=0.4", "train.warmup_epochs=4", "train.schedule=linear")
    task = training(*words, "network.drop_path=0.3")
    rates, drops = [], []
    for epoch in range(10):
        task.start_epoch(epoch)
        rates.append(task.optimiser.param_groups[0]["lr"])
        drops.append(float(task.drop_path))
    assert rates == pytest.approx([0.1, 0.18, 0.24, 0.28, 0.24, 0.2, 0.16, 0.12, 0.08, 0.04])
    assert drops == pytest.approx([0.03 * epoch for epoch in range(10)])


def test_averaged_weights_follow_the_recursion():
    """timm's warm-up of the decay: 1 - (1 + n)^(-2/3) after n + 1 updates, at most the decay; the first copies."""
    task = training("train.ema_decay=0.6", "train.epochs=2", "train.batch_size=10")
    phase, expected = task.phases[0], {}
    phase.start(0)
    for number, batches in enumerate(phase.batches(0, 0), start=1):
        phase.step(*batches)
        decay = 0.0 if number == 1 else min(0.6, 1 - number ** (-2 / 3))
        for name, value in task.network.state_dict().items():
            before = expected.get(name, value)
            expected[name] = decay * before + (1 - decay) * value if value.is_floating_point() else value.clone()
    assert number == 4
    found = task.ema.module.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)
    assert not torch.equal(found["classifier.weight"], task.network.classifier.weight)


def test_averaged_weights_are_evaluated_beside_the_last(tmp_path):
    words = [*SMALL, "data.limit=100", "train.ema_decay=0.9", "train.epochs=2", "train.evaluate_every=0"]
    summary = nge_search.evaluate(None, *words, f"run.dir={tmp_path / 'run'}", "precision=fp32")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "test_top1" not in rows[0]
    assert summary["top1_error"] == 100 - rows[1]["test_top1"]
    assert summary["ema_top1_error"] == 100 - rows[1]["ema_top1"]
    assert (summary["best_epoch"], summary["seeds"]) == (2, 1)


def test_the_headline_is_the_last_epoch_and_the_best_is_kept_apart():
    task = training("train.epochs=3")
    accuracies = iter([10.0, 30.0, 20.0])
    task.meters["test"].result = lambda world: {"loss": 1.0, "top1": next(accuracies), "top5": 100.0}
    for epoch in range(3):
        row = task.epoch_row(epoch)
    assert row["test_top1"] == 20.0
    assert task.best == {"epoch": 1, "top1": 30.0}
    resumed = training("train.epochs=3")
    resumed.load_state_dict(task.state_dict(), "test")
    assert resumed.best == task.best


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing_is_timms_and_keyed(mixup, cutmix):
    images, labels = torch.rand(6, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    mixing = Mixing(mixup, cutmix, smoothing=0.1, classes=4, seed=3)
    before = np.random.get_state()  # noqa: NPY002
    mixed, targets = mixing(images, labels, step=7, part=1)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before, after))
    np.random.seed(fold(3, 7, 1) % 2**32)  # noqa: NPY002
    expected, expected_targets = Mixup(mixup, cutmix, label_smoothing=0.1, num_classes=4)(images.clone(), labels)
    np.random.set_state(before)  # noqa: NPY002
    assert torch.equal(mixed, expected)
    torch.testing.assert_close(targets, expected_targets.double())
    assert torch.equal(mixing(images, labels, step=7, part=1)[0], mixed)
    assert not torch.equal(mixing(images, labels, step=8, part=1)[0], mixed)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6, dtype=torch.float64))


def test_the_odd_image_is_not_mixed():
    images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 2])
    mixed, targets = Mixing(0.4, 0, smoothing=0.2, classes=4, seed=0)(images, labels, step=0, part=0)
    assert torch.equal(mixed[4], images[4])
    torch.testing.assert_close(targets[4], torch.tensor([0.05, 0.05, 0.85, 0.05]))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # raised inside torch._dynamo
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_cells_are_compiled_once_whatever_the_drop_path_rate(monkeypatch):
    """With a backend that only traces."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **more: compile_(self, backend="eager", **more))
    torch._dynamo.reset()
    counters.clear()
    words = ("network.drop_path=0.4", "train.epochs=4", "train.batch_size=10")
    compiled, plain = training("train.compile=true", *words), training(*words)
    graphs = []
    for epoch in range(3):
        run_epoch(compiled, epoch)
        run_epoch(plain, epoch)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert len(set(graphs)) == 1
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(compiled.network.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    torch._dynamo.reset()


def test_confusion_against_a_count_by_hand():
    labels, predicted = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 2, -1])
    assert confusion(labels, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_what_an_evaluation_found():
    dataset = noise(8)
    labels = dataset.test.labels_N
    predicted = torch.tensor([0, 1, 2, 3, 1, 1, 1, -1])
    losses = torch.tensor([0.1, 0.2, 0.3, 0.4, 2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    found = describe_evaluation(4, dataset, labels, predicted, losses)
    assert (found["epoch"], found["images"]) == (4, 7)
    assert found["per_class"] == [[2, 1], [2, 2], [2, 1], [1, 1]]
    assert sorted(found["confused"]) == [[0, 1, 1], [2, 1, 1]]
    assert [entry["name"] for entry in found["worst"][:2]] == ["test image 6", "test image 4"]
    assert len(found["worst"]) == 7
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["worst"][0]["png"]))))
    assert np.array_equal(pixels, dataset.test.images_NCHW[6].permute(1, 2, 0).numpy())
    assert json.dumps(found, allow_nan=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run folder of a tiny retraining on digits, 10 classes of grey images."""
    run = tmp_path_factory.mktemp("trained") / "run"
    words = [*SMALL, "precision=fp32", "data.limit=100", "train.epochs=1", f"run.dir={run}"]
    nge_search.evaluate(None, *words)
    return run


def test_training_starts_from_given_weights(trained, tmp_path, capsys):
    words = [*SMALL, "precision=fp32", "data.limit=100", "train.epochs=1", "train.learning_rate=0"]
    again = nge_search.evaluate(None, *words, f"network.weights={trained}", f"run.dir={tmp_path / 'again'}")
    assert again["params"] > 0
    old, new = (torch.load(next((run / "checkpoints").glob("*")))["task"] for run in (trained, tmp_path / "again"))
    assert torch.equal(old["network"]["classifier.weight"], new["network"]["classifier.weight"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["network.channels=3"], r"tensor 'stem.0.weight' is .*\(6, 1, 3, 3\), the model needs .*\(9, 1, 3, 3\)"),
        (["network.genotype=nasnet_a"], "tensor 'cells.0.operations.0.0.1.weight' is"),
        (["network.kind=imagenet", "data.image_size=16"], "tensor 'stem0.0.weight' is missing from"),
        (["network.weights=nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(trained, tmp_path, capsys, settings, message):
    words = [*SMALL, "precision=fp32", f"network.weights={trained}", f"run.dir={tmp_path / 'run'}", *settings]
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_another_number_of_classes_is_refused_or_trained_anew(trained, tmp_path):
    words = (f"network.weights={trained}", "precision=fp32")
    grey = noise(classes=4)
    grey = Dataset(
        "digits", *(MemoryImages(grey.train.images_NCHW[:, :1], grey.train.labels_N),) * 2, tuple("abcd"), 12, 1,
        (0.5,), (0.25,),
    )  # fmt: skip
    config = load_config(EvalConfig, None, [*SMALL, *words])
    world, genotype = World(torch.device("cpu")), load_genotype("darts_v2")
    with pytest.raises(nge_search.UserError, match=r"for 10 classes; the data has 4.*reset_classifier=true"):
        build_task(config, genotype, grey, world)
    config = load_config(EvalConfig, None, [*SMALL, *words, "network.reset_classifier=true"])
    task = build_task(config, genotype, grey, world)
    assert task.network.classifier.weight.shape[0] == 4


@pytest.mark.parametrize("resident", ["always", "never"])
def test_unreadable_images_are_named_counted_and_survived(tmp_path, capsys, resident):
    random = np.random.default_rng(0)
    for number in range(30):
        folder = tmp_path / "images" / ("train" if number < 20 else "test") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / f"{number:02}.png")
    for name in ("train/a/04.png", "test/b/21.png"):
        path = tmp_path / "images" / name
        path.write_bytes(path.read_bytes()[:200])
    words = [
        *SMALL, "precision=fp32", "run.progress=lines", "data.name=folder", f"data.root={tmp_path / 'images'}",
        f"data.resident={resident}", "data.workers=0", "train.epochs=2", f"run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert ".png" in error
    assert main(["eval", *words, "data.corrupt=skip"]) == 0
    output = capsys.readouterr().out
    assert output.count("skipped an image") == 2
    assert "04.png" in output
    assert "21.png" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["unreadable_images"] == 2
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["images"] == 9
