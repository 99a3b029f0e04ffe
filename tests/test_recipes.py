"""The commands that a search and a run folder advise: for the same images, of a fitting length, and they run."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nge_search
from nge_search.cli import main
from nge_search.engine.run_reader import RunReader, use_of
from nge_search.recipes import Images, fitted, retrain_command, train_command, word
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "tiny_imagenet", "folder"])
def test_the_command_is_a_valid_configuration_of_the_same_images(name, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    command = shlex.split(
        retrain_command("my runs/x", {"name": name, "root": "/my data", "image_size": 16 * (name == "folder")})
    )
    assert command[:3] == ["python", "train_eval.py", "--config"]
    config = load_config(EvalConfig, command[3], command[4:])
    assert config.network.genotype == "my runs/x"
    assert config.run.name == "x"
    assert config.data.name == name
    assert name == "digits" or config.data.root == "/my data"
    assert config.data.image_size == (16 if name == "folder" else 0)
    assert not (name == "folder" and config.network.auxiliary)


def searched(run: Path, count: int, side: int, device: str) -> Path:
    """A folder that says of a search what its retraining is fitted to."""
    run.mkdir(parents=True)
    (run / "dataset.json").write_text(json.dumps({"train_images": count, "image_size": side}))
    (run / "environment.json").write_text(json.dumps({"device": device}))
    return run


def test_the_line_that_trains_an_architecture_names_its_space_s_recipe(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    for space, recipe, kind in (("darts", "cifar10", "cifar"), ("nasbench201", "nasbench201", "nasbench201")):
        words = shlex.split(train_command("drawn/my cell.json", space))
        assert words[:4] == ["python", "train_eval.py", "--config", f"configs/eval/{recipe}.yaml"]
        config = load_config(EvalConfig, words[3], words[4:])
        assert (config.network.genotype, config.network.kind) == ("drawn/my cell.json", kind)
        assert config.run.name == "my cell"
    monkeypatch.setattr("nge_search.recipes.__file__", "/elsewhere/nge_search/recipes.py")
    monkeypatch.chdir("/")
    words = shlex.split(train_command("cell.json", "nasbench101"))
    assert words[:4] == ["nge", "eval", "--config", "nasbench101"]  # an installation has the recipes
    config = load_config(EvalConfig, words[3], words[4:])
    assert (config.network.kind, config.train.epochs) == ("nasbench101", 108)
    monkeypatch.setattr("nge_search.settings.shipped._PLACES", ())
    words = shlex.split(train_command("cell.json", "nasbench101"))
    assert words[:3] == ["nge", "eval", "network.genotype=cell.json"]
    assert load_config(EvalConfig, None, words[2:]).network.kind == "nasbench101"


@pytest.mark.parametrize(
    ("name", "device", "count", "side", "recipe", "kind", "channels", "cells", "epochs", "batch"),
    [
        ("folder", "cpu", 320, 32, "folder", "cifar", 16, 8, 100, 16),
        ("folder", "cuda", 320, 32, "folder", "cifar", 16, 8, 200, 16),
        ("folder", "cpu", 4_000, 96, "folder", "imagenet", 16, 8, 25, 128),
        ("folder", "cuda", 12_000, 64, "folder", "cifar", 36, 20, 200, 128),
        ("folder", "cuda", 250_000, 224, "folder", "imagenet", 48, 14, 80, 128),
        ("cifar10", "cpu", 50_000, 32, "folder", "cifar", 16, 8, 10, 128),
        ("cifar10", "cuda", 50_000, 32, "cifar10", "cifar", 36, 20, 600, 128),
        ("imagenet", "cuda", 1_281_167, 224, "imagenet", "imagenet", 48, 14, 250, 512),
        ("digits", "cpu", 1_198, 8, "digits", "cifar", 8, 5, 20, 32),
    ],
)
def test_the_recipe_fits_images_and_device(
    name, device, count, side, recipe, kind, channels, cells, epochs, batch, tmp_path, checkout, monkeypatch
):
    monkeypatch.chdir(checkout)
    run = searched(tmp_path / "mine", count, side, device)
    data = {"name": name, "image_size": side if name == "folder" else 0}
    command = shlex.split(retrain_command(run, data, RunReader(run).searched_images()))
    assert command[3] == f"configs/eval/{recipe}.yaml"
    config = load_config(EvalConfig, command[3], command[4:])
    assert (config.network.kind, config.network.channels, config.network.cells) == (kind, channels, cells)
    assert (config.train.epochs, config.train.batch_size) == (epochs, batch)
    assert config.data.name == name


def test_fewer_images_never_take_larger_steps_or_fewer_epochs():
    for on_cpu in (False, True):
        sizes = [fitted(Images(count, 32, on_cpu)) for count in (6, 60, 600, 6_000, 60_000, 600_000)]
        for smaller, larger in itertools.pairwise(sizes):
            assert smaller["train.batch_size"] <= larger["train.batch_size"]
            assert smaller["train.epochs"] >= larger["train.epochs"]


@pytest.mark.parametrize(
    ("name", "device", "sizes", "auxiliary"),
    [
        ("digits", "cpu", ("cifar", 36, 20), False),
        ("cifar10", "cuda", ("cifar", 20, 8), True),
        ("cifar10", "cuda", ("cifar", 20, 2), False),
        ("cifar10", "cuda", ("imagenet", 48, 14), False),
        ("folder", "cpu", ("imagenet", 12, 5), False),
        ("folder", "cpu", ("cifar", 0, 5), None),
        ("digits", "cpu", ("nasbench201", 12, 5), None),
        ("digits", "cpu", ("cifar", "12", True), None),
    ],
)
def test_cells_of_a_wanted_size_are_retrained_in_their_network(
    name, device, sizes, auxiliary, tmp_path, checkout, monkeypatch
):
    """Damaged sizes change nothing; nor does a head that the network cannot have stop the training."""
    monkeypatch.chdir(checkout)
    run = searched(tmp_path / "mine", 50_000, 32, device)
    given, images = dict(zip(("kind", "channels", "cells"), sizes)), RunReader(run).searched_images()
    command = shlex.split(retrain_command(run, {"name": name}, images, sizes=given))
    if auxiliary is None:
        assert command == shlex.split(retrain_command(run, {"name": name}, images))
        return
    network = load_config(EvalConfig, command[3], command[4:]).network
    assert (network.kind, network.channels, network.cells, network.auxiliary) == (*sizes, auxiliary)
    (run / "config.yaml").write_text(f"task: supernet\ndata: {{name: {name}}}\n")
    (run / "summary.json").write_text(json.dumps({"target": given}))
    assert use_of(run).endswith(shlex.join(command))


def test_settings_of_the_images_go_along(tmp_path, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    data = {
        "name": "folder",
        "root": "set #2/my images",
        "image_size": 48,
        "corrupt": "skip",
        "flip": False,
        "valid_fraction": 0.3,
        "limit": 90,
        "test_fraction": 0.4,
    }
    run = searched(tmp_path / "007", 90, 48, "cpu")
    command = shlex.split(retrain_command(run, data, RunReader(run).searched_images()))
    config = load_config(EvalConfig, command[3], command[4:])
    assert config.data.root == "set #2/my images"
    assert (config.data.corrupt, config.data.flip, config.data.limit) == ("skip", False, 90)
    assert (config.data.test_fraction, config.data.valid_fraction) == (0.4, 0.5)
    assert config.run.name == "007"
    on_gpu = searched(tmp_path / "gpu", 90, 32, "cuda")  # the published recipe is for all images in their own size
    data = {"name": "cifar10", "limit": 90, "image_size": 16}
    command = shlex.split(retrain_command(on_gpu, data, RunReader(on_gpu).searched_images()))
    config = load_config(EvalConfig, command[3], command[4:])
    assert (config.data.limit, config.data.image_size, config.data.cutout) == (0, 0, 16)


@pytest.mark.parametrize("text", ["plain", "007", "1_10", "12:30:45", "a #b", "yes", "a: b", "[x", "ü 'x\""])
def test_text_arrives_as_it_is(text):
    assert load_config(EvalConfig, None, [word("data.root", text)]).data.root == text


@pytest.mark.parametrize("damage", ["{", '{"train_images": 0, "image_size": 8}', '{"train_images": 5}'])
def test_a_damaged_record_costs_the_fit_alone(damage, tmp_path):
    run = searched(tmp_path / "run", 320, 32, "cpu")
    (run / "dataset.json").write_text(damage)
    for lenient in (False, True):
        images = RunReader(run, lenient).searched_images()
        assert images is None
        assert "train.epochs" not in retrain_command(run, {"name": "folder"}, images)
        assert retrain_command(run, None, images)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, tiny_search) -> Path:
    """A search on three classes of noise, in folders with blanks in their names."""
    root, random = tmp_path_factory.mktemp("a place") / "my images", np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("ant", "bee", "cat"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    words = [word for word in tiny_search if not word.startswith(("data.", "search.epochs"))]
    words += ["data.name=folder", f"data.root={root}", "data.image_size=8", "search.epochs=1", "device=cpu"]
    run = root.parent / "my search"
    nge_search.search(None, *words, f"run.dir={run}")
    return run


def test_the_printed_line_runs(small_run, checkout, monkeypatch, tmp_path, capsys):
    """From another folder than the checkout; with one epoch instead of a hundred."""
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--config", str(small_run / "config.yaml")]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("retrain it: "))
    assert "train.epochs=100 train.batch_size=8" in line
    page = (small_run / "report.html").read_text()
    assert "train.epochs=100 train.batch_size=8" in page
    words = shlex.split(line.removeprefix("retrain it: "))
    assert words[:3] == ["python", str(checkout / "train_eval.py"), "--config"]
    more = ["train.epochs=1", "network.cells=3", "network.channels=2", "threads=1", "run.progress=none"]
    assert main(["eval", *words[2:], *more]) == 0
    printed = capsys.readouterr().out
    require_no_top5(Path("runs/eval/my search"), printed)
    assert main(["export", "runs/eval/my search", "--out", "exported"]) == 0
    line = next(line for line in Path("exported/README.md").read_text().splitlines() if line.startswith("nge eval"))
    config = load_config(EvalConfig, None, shlex.split(line)[2:])
    assert config.data.root == str(small_run.parent / "my images")
    assert (config.data.name, config.data.image_size, config.network.channels) == ("folder", 8, 2)


def require_no_top5(run: Path, printed: str) -> None:
    """Of three classes; nor where an earlier version recorded it."""
    assert "test error" in printed
    assert "top-5" not in printed
    summary = json.loads((run / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert not [key for found in (summary, *rows) for key in found if "top5" in key]
    (run / "summary.json").write_text(json.dumps(summary | {"top5_error": 0.0}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row | {"test_top5": 100.0}) + "\n" for row in rows))
    assert main(["report", str(run)]) == 0
    assert "top-5" not in (run / "report.html").read_text().lower()
    again = nge_search.evaluate(run / "config.yaml", "run.progress=none")
    assert again["top5_error"] == 0.0


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ("search:\n  epochs: 3\n", "search", "train_eval.py"),
        ("task: supernet\ndata:\n  name: digits\n", "search", "configs/eval/digits.yaml"),
        ("task: benchmark\n", "queries", "nge table TABLE --find 'my run'"),
        ("task: classification\n", "eval", "nge export 'my run' --out FOLDER"),
        ("network:\n  cells: 3\n", "eval", "nge classify FOLDER IMAGES"),
        ("task: segmentation\nnetwork:\n  cells: 3\n", "segmentation", "nge segment 'my run' IMAGES --out FOLDER"),
    ],
)
def test_each_command_says_what_a_run_of_another_kind_is_for(settings, kind, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = Path("my run")
    run.mkdir()
    (run / "config.yaml").write_text(settings)
    assert RunReader(run).kind == kind
    assert says in use_of(run)
    Image.new("RGB", (4, 4)).save("x.png")
    for own, command, words in (
        ((), "classify", "x.png"),
        (("segmentation",), "segment", "x.png --out masks"),
        (("eval", "segmentation"), "export", "--out exported"),
    ):
        assert main([command, "my run", *words.split()]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert (says in error) != (kind in own), command
    assert use_of("nowhere") == ""
