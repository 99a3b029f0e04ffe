"""A short training is what it says, alone and within a search, and goes on where it was killed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from nge_search.architecture.load import load_architecture
from nge_search.cli import main
from nge_search.counting import multiply_adds
from nge_search.engine.checkpoint import CheckpointFolder, seed_everything
from nge_search.engine.distributed import World
from nge_search.settings.load import load_config
from nge_search.settings.names import SIGNALS
from nge_search.settings.trial import TrialConfig
from nge_search.training.short import ShortTraining, TrialImages, build_network, family_of
from nge_search.training.trial_run import run_trial, run_trial_inside

CPU = torch.device("cpu")


def configured(folder: Path, short: tuple[str, ...], cell: str, *words: str) -> TrialConfig:
    own = [*short, f"network.genotype='{cell}'", f"run.dir={folder}", *words]
    return load_config(TrialConfig, None, own)


def trained_plainly(config: TrialConfig) -> dict[str, float]:
    """The three signals, by a loop that has nothing but steps."""
    section, images = config.evaluator, TrialImages.load(config, CPU)
    architecture = load_architecture(config.network.genotype)
    train, _ = images.loaders(config, World(CPU))
    seed_everything(config.seed)
    network = build_network(config, architecture, images.dataset).double()
    optimiser = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=section.momentum, weight_decay=section.weight_decay
    )
    batches, losses = train.endless(0), 0.0
    for step in range(section.steps):
        batch = next(batches)
        for group in optimiser.param_groups:
            group["lr"] = section.learning_rate * (1 + math.cos(math.pi * step / section.steps)) / 2
        loss = functional.cross_entropy(network(batch.images_BCHW)[0], batch.labels_B)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), section.clip)
        optimiser.step()
        losses += float(loss.detach())
    network.eval()
    pixels = images.dataset.train.read(images.valid).double() / 255
    mean, std = (
        torch.tensor(own, dtype=torch.float64).view(1, -1, 1, 1)
        for own in (images.dataset.mean, images.dataset.std)
    )
    labels_N = images.dataset.train.labels_N[images.valid]
    with torch.no_grad():
        logits_NK = network((pixels - mean) / std)[0]
    top1 = 100 * float((logits_NK.argmax(dim=1) == labels_N).double().mean())
    return {
        "valid_loss": float(functional.cross_entropy(logits_NK, labels_N)),
        "valid_top1": top1,
        "train_losses": losses,
    }


@pytest.mark.parametrize("genotype", ["", "darts_v2"])
def test_the_signals_are_those_of_a_plain_training(
    tmp_path: Path, short: tuple[str, ...], cell: str, genotype: str
) -> None:
    """Of more steps than a pass has; and the same within another run, whose generators it leaves alone."""
    words = ("precision=fp64", "evaluator.images=20", "evaluator.valid_images=10", "evaluator.learning_rate=0.2")
    config = configured(tmp_path / "alone", short, genotype or cell, *words)
    summary = run_trial(config)
    found = {signal: summary[signal] for signal in SIGNALS}
    assert found == pytest.approx(trained_plainly(config), rel=1e-9)
    inner = configured(tmp_path / "inside", short, genotype or cell, *words)
    before = torch.get_rng_state()
    images = TrialImages.load(inner, CPU)
    inside = run_trial_inside(inner, load_architecture(inner.network.genotype), images, CPU)
    assert {signal: inside[signal] for signal in SIGNALS} == found
    assert torch.equal(torch.get_rng_state(), before)


def test_a_killed_training_goes_on_bit_for_bit(
    tmp_path: Path, short: tuple[str, ...], cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (configured(tmp_path / name, short, cell, "run.checkpoint_seconds=0") for name in ("whole", "cut"))
    expected = run_trial(whole)
    step, taken = ShortTraining.train_step, iter(range(10))

    def killed(task: ShortTraining, batch: object, epoch: int) -> None:
        if next(taken) == 2:
            raise KeyboardInterrupt
        step(task, batch, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(ShortTraining, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run_trial(cut)
    found = run_trial(cut)
    assert {signal: found[signal] for signal in SIGNALS} == {signal: expected[signal] for signal in SIGNALS}
    ours, theirs = (CheckpointFolder(tmp_path / name / "checkpoints").load_newest()[0] for name in ("cut", "whole"))
    assert ours["position"] == theirs["position"]
    for name, tensor in theirs["task"]["network"].items():
        assert torch.equal(ours["task"]["network"][name], tensor)


@pytest.mark.parametrize("operation", ["nor_conv_3x3", "skip_connect"])
def test_architectures_are_compared_at_the_same_cost(
    tmp_path: Path, short: tuple[str, ...], cell: str, operation: str
) -> None:
    """No number of channels has mult-adds that are nearer to those asked for."""
    name = cell.replace("nor_conv_3x3", operation)
    architecture = load_architecture(name)
    images = TrialImages.load(configured(tmp_path, short, name), CPU)

    def distance(word: str) -> int:
        network = build_network(configured(tmp_path, short, name, word), architecture, images.dataset)
        return abs(multiply_adds(network, (1, 1, 8, 8)) - 30_000)

    assert distance("evaluator.macs=30k") == min(distance(f"evaluator.channels={own}") for own in range(1, 13))


def test_the_command(tmp_path: Path, short: tuple[str, ...], capsys, require_listed) -> None:
    run = tmp_path / "run"
    words = [*(word for word in short if "progress" not in word), "network.genotype=darts_v1", f"run.dir={run}"]
    assert main(["eval", "task=trial", *words]) == 0
    summary = json.loads((run / "summary.json").read_text())
    printed = capsys.readouterr().out
    assert f"validation loss {summary['valid_loss']:.4f}" in printed
    assert "after 4 steps" in printed
    assert "Finished: 4 steps." in (run / "report.html").read_text()
    require_listed(run)
    assert main(["eval", "task=trial", *words, "network.genotype=darts_v2"]) == 2
    assert "trains another genotype" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluator.images=5"], "evaluator.images=5: too few for 10 classes; at least 20"),
        (["evaluator.valid_images=5"], "evaluator.valid_images=5: too few for 10 classes; at least 10"),
        (["evaluator.cells=4"], "evaluator.cells=4: networks of nasbench201 have three stages"),
        (["evaluator.side=9"], "data.name=digits has 8x8 images"),
        (["evaluator.signal=loss"], "evaluator.signal=loss: allowed are valid_loss, "),
        (["evaluator.macs=many"], "evaluator.macs='many': give a number above 0, such as 600M"),
        (["evaluator.macs=0"], "evaluator.macs='0': give a number above 0"),
        (["evaluator.macs=-5M"], "evaluator.macs='-5M': give a number above 0"),
        (["evaluator.macs=1"], "evaluator.macs=1: 1 to 1024 channels give "),
        (["evaluator.macs=5e15"], "evaluator.macs=5000T: 1 to 1024 channels give "),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, short: tuple[str, ...], cell: str, words: list[str], message: str, capsys
) -> None:
    own = [*short, f"network.genotype='{cell}'", f"run.dir={tmp_path / 'run'}", *words]
    assert main(["eval", "task=trial", *own]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_images_choose_the_stem() -> None:
    assert family_of("darts", 64).title == "CIFAR"
    assert family_of("darts", 65).title == "ImageNet"
    assert family_of("nasbench201", 224).title == "NAS-Bench-201"
