"""Trainings of segmentation networks from the command line: what they leave, how they resume, what they refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nge_search
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.data.segmentation.dataset import IGNORED
from nge_search.data.segmentation.voc import load_voc
from nge_search.data.segmentation.voc_masks import VOC_CLASSES, voc_palette
from nge_search.deploy.export import export_run
from nge_search.deploy.segmenter import read_trained
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.distributed import World
from nge_search.engine.loop import Loop
from nge_search.settings.segmentation import DeepLabSection, MaskedDataSection, SegmentationConfig
from nge_search.training.segmentation_run import batches_of_one_size, build_task

WORDS = (
    "task=segmentation", "threads=1", "run.progress=none", "run.tensorboard=false", "data.name=voc", "data.crop=48",
    "data.workers=0", "network.channels=4", "network.cells=3", "network.head_channels=8", "network.output_stride=8",
    "train.epochs=3", "train.batch_size=4", "train.eval_batch_size=3", "train.learning_rate=0.05",
)  # fmt: skip


@pytest.fixture
def words_for(tmp_path, voc_tree):
    root = voc_tree(12, 7)

    def words(name: str, *more: str) -> list[str]:
        return ["eval", *WORDS, f"data.root={root}", f"run.dir={tmp_path / name}", *more]

    return words


def newest(run: Path) -> dict:
    return CheckpointFolder(run / "checkpoints").load_newest()[0]


def test_a_training_leaves_a_complete_run_folder(tmp_path, words_for, capsys, require_listed):
    assert main(words_for("run", "run.tensorboard=true", "train.evaluate_every=2", "run.progress=lines")) == 0
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"test mIoU {summary['miou']:.2f} %" in out
    assert "12 training masks: " in out
    assert "17 classes never" in out
    masks = json.loads((tmp_path / "run" / "dataset.json").read_text())["masks"]
    assert masks["train"]["pixels"] == np.bincount(pixels_of(tmp_path, "train"), minlength=256)[:21].tolist()
    assert masks["test"]["ignored"] == (pixels_of(tmp_path, "val") == IGNORED).sum() > 0
    assert summary["kind"] == "segmentation"
    assert set(SegmentationConfig.figures) <= set(summary)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [("test_miou" in row) for row in rows] == [False, True, True]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    found = json.loads((tmp_path / "run" / "segmentation.json").read_text())
    iou = [value for value in found["iou"] if value is not None]
    assert summary["miou"] == pytest.approx(100 * np.mean(iou))
    assert found["miou"] == pytest.approx(np.mean(iou))
    assert np.trace(found["confusion"]) / np.sum(found["confusion"]) == pytest.approx(found["pixel_accuracy"])
    assert len(found["pictures"]) == 7
    require_listed(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "config.yaml",
        "genotype.json",
        "report.html",
        "tensorboard",
        "dataset.json",
        "environment.json",
    }
    assert "aeroplane" in (tmp_path / "run" / "report.html").read_text()
    assert main(words_for("run", "train.evaluate_every=2")) == 0
    again = capsys.readouterr()
    assert "has finished" not in again.err
    assert f"test mIoU {summary['miou']:.2f} %" in again.out
    require_tested_alike(tmp_path, summary, found, rows[-1])


def require_tested_alike(folder: Path, summary: dict, found: dict, row: dict) -> None:
    """`nge test` finds the run's own figures to the bit, by the run and by its export, on the same images."""
    export_run(folder / "run", folder / "model")
    images = (f"data.root={folder / 'VOC2012'}", "train.eval_batch_size=3", "data.workers=0", "threads=1")
    for model, words in ((folder / "run", ()), (folder / "run", images), (folder / "model", images)):
        tested = nge_search.test(model, *words)
        assert (tested["miou"], tested["pixel_accuracy"]) == (summary["miou"], summary["pixel_accuracy"])
        assert (tested["loss"], tested["confusion"]) == (row["test_loss"], found["confusion"])
        iou = [None if one["iou"] is None else one["iou"] / 100 for one in tested["per_class"]]
        assert iou == pytest.approx(found["iou"])
        assert sum(count for count, _, _ in tested["calibration"]["intervals"]) == np.sum(found["confusion"])


def pixels_of(folder: Path, part: str) -> np.ndarray:
    paths = sorted((folder / "VOC2012" / "SegmentationClass").glob(f"{part}_*.png"))
    return np.concatenate([np.asarray(Image.open(path)).flatten() for path in paths])


def rewrite_masks(folder: Path, part: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Save the masks of a list anew, in grey."""
    for path in sorted((folder / "VOC2012" / "SegmentationClass").glob(f"{part}_*.png")):
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        (
            "*",
            lambda mask: np.where(mask > 0, 255, 0),
            "in the training masks, no class but 'background' occurs, and ",
        ),
        (
            "val",
            lambda mask: np.zeros_like(mask),
            "in the validation masks, no class but 'background' occurs; masks",
        ),
        (
            "train",
            lambda mask: np.full_like(mask, 255),
            "in the training masks, 100.0 % of the pixels are 255, which",
        ),
    ],
)
def test_masks_that_say_nothing_are_refused_before_a_training(part, change, says, tmp_path, words_for, capsys):
    rewrite_masks(tmp_path, part, lambda mask: change(mask).astype(np.uint8))
    assert main(words_for("run")) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "data.allow_sparse_masks=true" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("part", ["val", "*"])
def test_a_figure_over_no_pixel_is_absent_everywhere(part, tmp_path, words_for, capsys):
    rewrite_masks(tmp_path, part, lambda mask: np.full_like(mask, IGNORED))
    more = "data.allow_sparse_masks=true", "train.epochs=2", "run.progress=lines", "run.log_every=1"
    assert main(words_for("run", *more, "run.tensorboard=true")) == 0
    out, run = capsys.readouterr().out, tmp_path / "run"
    assert "100.0 % ignored" in out
    assert "no validation pixel counted" in out
    assert ("no training pixel counted" in out) == (part == "*")
    assert "test mIoU unknown (no validation pixel counts) after 2 epochs, 1 seed, " in out
    assert "nan" not in out.replace("tensorboard", "")
    figures = ("miou", "pixel_accuracy", "best_miou", "best_epoch")
    summary = json.loads((run / "summary.json").read_text())
    assert [summary[figure] for figure in figures] == [None] * 4
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(
        key.startswith("train_") for row in rows for key in row if key.endswith(("loss", "accuracy", "miou"))
    )
    assert ("train_loss" in rows[-1]) == (part == "val")
    found = json.loads((run / "segmentation.json").read_text())
    assert (found["miou"], found["pixel_accuracy"], set(found["iou"])) == (None, None, {None})
    assert not any("NaN" in path.read_text() for path in run.glob("*.json*"))
    assert main(words_for("run", *more)) == 0  # as a finished run
    assert "test mIoU unknown" in capsys.readouterr().out


def test_what_older_versions_wrote_over_no_pixel_is_read(tmp_path, words_for):
    dataset = load_voc(MaskedDataSection(name="voc", root=str(tmp_path / "VOC2012"), crop=48, workers=0))
    config = SegmentationConfig(
        data=MaskedDataSection(name="voc", crop=48, workers=0),
        network=DeepLabSection(channels=4, cells=3, head_channels=8),
    )
    task = build_task(config, load_genotype("darts_v2"), dataset, World(torch.device("cpu")))
    state = task.state_dict()
    task.load_state_dict({**state, "best": {"epoch": 4, "miou": float("nan")}}, "a checkpoint")
    assert task.best == {}
    task.load_state_dict({**state, "best": {"epoch": 4, "miou": 0.5}}, "a checkpoint")
    assert task.best == {"epoch": 4, "miou": 0.5}


def test_rates_fall_with_the_steps(words_for):
    summary = nge_search.evaluate(None, *words_for("run", "train.power=2", "train.head_learning_rate=0.4")[1:])
    run = Path(words_for("run")[-1].partition("=")[2])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = summary["epochs"] * 3  # of 4 of 12 images
    last_of_epoch = [2, 5, 8]
    for name, first in (("learning_rate", 0.05), ("head_learning_rate", 0.4)):
        expected = [first * (1 - step / steps) ** 2 for step in last_of_epoch]
        assert [row[name] for row in rows] == pytest.approx(expected)


def test_two_runs_are_bit_identical_and_so_is_a_resumed_one(tmp_path, words_for, monkeypatch):
    assert main(words_for("one")) == 0
    assert main(words_for("two")) == 0
    end_epoch = Loop._end_epoch

    def stop(loop, logger):
        end_epoch(loop, logger)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_end_epoch", stop)
        assert main(words_for("three")) == 130
    assert main(words_for("three", "data.workers=1")) == 0
    first = newest(tmp_path / "one")
    for name in ("two", "three"):
        other = newest(tmp_path / name)
        assert first["position"] == other["position"]
        for group in ("network", "optimiser"):
            torch.testing.assert_close(other["task"][group], first["task"][group], rtol=0, atol=0)
        ours, theirs = ((tmp_path / run / "segmentation.json").read_bytes() for run in ("one", name))
        assert ours == theirs


def test_the_loss_is_the_mean_over_all_pixels_that_count(tmp_path, words_for):
    config = SegmentationConfig(
        precision="fp64",
        data=MaskedDataSection(name="voc", crop=48, workers=0, scale_min=1, scale_max=1, flip=False),
        network=DeepLabSection(channels=4, cells=3, head_channels=8, dropout=0.0),
    )
    dataset = load_voc(MaskedDataSection(name="voc", root=str(tmp_path / "VOC2012"), crop=48, workers=0))
    task = build_task(config, load_genotype("darts_v2"), dataset, World(torch.device("cpu")))
    (batch,) = next(task.phases[0].batches(0, 0))
    task.phases[0].start(0)
    truth = batch.images_BCHW[:, 3].long()
    assert (truth == IGNORED).any()
    logits = task.network(batch.images_BCHW[:, :3])[0].detach()
    expected = torch.nn.functional.cross_entropy(logits, truth, ignore_index=IGNORED)
    task.meters["train"].reset()
    counted = (truth != IGNORED).sum().double()
    assert float(task._add_gradients(batch, 0, counted)) == pytest.approx(float(expected), rel=1e-12)
    assert task.meters["train"].result(task.world)["loss"] == pytest.approx(float(expected), rel=1e-12)


def test_evaluation_batches_hold_one_size_and_every_image_once(voc_tree):
    dataset = load_voc(MaskedDataSection(name="voc", root=str(voc_tree(2, 11))))
    order, ends = batches_of_one_size(dataset.test, 3)
    assert sorted(order.tolist()) == list(range(11))
    starts = [0, *ends[:-1]]
    assert [end - start for start, end in zip(starts, ends)] == [3, 3, 1, 3, 1]
    for start, end in zip(starts, ends):
        sizes = dataset.test.sizes_N2[order[start:end]]
        assert (sizes == sizes[0]).all()


def test_segment_writes_what_the_validation_predicts(tmp_path, words_for, capsys, largest_file):
    assert main(words_for("run")) == 0
    root, run, out = tmp_path / "VOC2012", tmp_path / "run", tmp_path / "out"
    images = tmp_path / "images"
    images.mkdir()
    names = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    for name in names:
        (images / f"{name}.jpg").write_bytes((root / "JPEGImages" / f"{name}.jpg").read_bytes())
    capsys.readouterr()
    assert main(["segment", str(run), str(images), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names) == 7
    for line in lines:
        colours = dict(re.findall(r"(\w+) \(#([0-9a-f]{6})\) ", line))
        assert colours == {name: bytes(voc_palette()[VOC_CLASSES.index(name)]).hex() for name in colours}
        assert colours
    counts = np.zeros((21, 21), int)
    for name in names:
        with Image.open(out / f"{name}.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[:63] == [value for colour in voc_palette()[:21] for value in colour]
            predicted = np.asarray(image)
        truth = np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))
        assert predicted.shape == truth.shape
        np.add.at(counts, (truth[truth != IGNORED], predicted[truth != IGNORED]), 1)
    assert counts.tolist() == json.loads((run / "segmentation.json").read_text())["confusion"]
    assert main(["segment", str(run), str(images), "--out", str(out)]) == 2
    assert "exists; choose another --out, or add --overwrite" in capsys.readouterr().err
    assert main(["segment", str(run), str(images), "--out", str(out), "--overwrite"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    sizes = sorted(map(len, before.values()))
    assert sizes[0] < sizes[-1]
    for place, more in ((out, ["--overwrite"]), (tmp_path / "new" / "out", [])):
        with largest_file(sizes[-1] - 1):  # there is room for some of the masks
            assert main(["segment", str(run), str(images), "--out", str(place), *more]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: cannot use '{place}/")
        assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_segment_refuses(tmp_path, words_for, capsys):
    run = tmp_path / "run"
    assert main(words_for("run", "train.epochs=1")) == 0
    image = tmp_path / "VOC2012" / "JPEGImages" / "val_000.jpg"
    twin, broken = tmp_path / "val_000.jpg", tmp_path / "broken.png"
    twin.write_bytes(image.read_bytes())
    broken.write_bytes(b"no image")
    capsys.readouterr()
    out = tmp_path / "out"
    for words, says in (
        ([tmp_path, image], "is not the folder of a segmentation run"),
        ([run, image, twin], "would both become"),
        ([run, tmp_path / "none.jpg"], "does not exist"),
        ([run, broken], "not an image that can be read"),
    ):
        assert main(["segment", *map(str, words), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert main(["segment", str(run), str(broken), "--out", str(tmp_path)]) == 2
    assert "would replace an image" in capsys.readouterr().err
    assert main(["segment", str(run), str(broken), str(image), "--out", str(out)]) == 2
    assert (out / "val_000.png").exists()  # what can be read is done
    (out / "val_000.png").unlink()
    (out / "val_000.png").symlink_to(twin)
    assert main(["segment", str(run), str(image), "--out", str(out), "--overwrite"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert twin.read_bytes() == image.read_bytes()
    assert main(["classify", str(run), str(image)]) == 2
    assert f"use it as it is: nge segment {run} IMAGES --out FOLDER" in capsys.readouterr().err
    assert read_trained(run).classes[15] == "person"
    description = run / "dataset.json"
    whole = json.loads(description.read_text())
    for classes, says in ((["x"] * 300, "300 classes"), (["x"] * 22, "tensor"), ("x", "'classes' must be")):
        description.write_text(json.dumps(whole | {"classes": classes}))
        assert main(["segment", str(run), str(image), "--out", str(tmp_path / "more")]) == 2
        assert says in capsys.readouterr().err
    description.write_text(json.dumps(whole))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("channels: 4", "channels: 1024"))
    assert main(["segment", str(run), str(image), "--out", str(tmp_path / "more")]) == 2
    assert "tensor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["task=segment"], "task=segment: allowed are classification, segmentation"),
        (["train.freeze_statistics=true"], "train.freeze_statistics=True: there are no statistics to keep without"),
        (["network.output_stride=4"], "network.output_stride=4: allowed are 8, 16, 32"),
        (["train.eval_scales=1,x"], "train.eval_scales=1,x: expected numbers from 0.1 to 8"),
        (["train.eval_scales=9"], "train.eval_scales=9: expected numbers from 0.1 to 8"),
        (["data.scale_min=3"], "data.scale_min=3.0: above data.scale_max=2.0"),
        (["train.learning_rate_min=0.04", "train.head_learning_rate=0.03"], "above train.head_learning_rate=0.03"),
        (["network.drop_path=0.2"], "unknown key 'network.drop_path'"),
        (["train.batch_size=4", "train.accumulate=3"], "are too small for 1 processes and 3 parts each"),
    ],
)
def test_settings_that_are_refused(words, says, words_for, capsys):
    assert main(words_for("run", *words)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_weights_of_another_network_are_refused(tmp_path, words_for, capsys):
    small = ["data.limit=40", "network.kind=imagenet", "network.channels=2", "network.cells=3", "train.epochs=1"]
    own = [f"run.dir={tmp_path / 'classifier'}", "run.progress=none", "run.tensorboard=false", "threads=1"]
    assert main(["eval", *small, *own]) == 0
    assert main(words_for("run", f"network.weights={tmp_path / 'classifier'}", "network.channels=2")) == 2
    assert "tensor 'stem0.0.weight' is" in capsys.readouterr().err  # digits are grey


def test_weights_of_an_imagenet_run_start_the_backbone(tmp_path, words_for):
    """As a run folder, and exported; with a learning rate of zero they stay."""
    images = tmp_path / "classes"
    for label in ("a", "b"):
        (images / label).mkdir(parents=True)
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / label / f"{i}.png")
    run, exported = tmp_path / "classifier", tmp_path / "exported"
    own = ("network.kind=imagenet", "network.channels=4", "network.cells=3", "train.epochs=1", "threads=1")
    data = ("data.name=folder", f"data.root={images}", "data.workers=0", "train.batch_size=4", "run.progress=none")
    assert main(["eval", *own, *data, "run.tensorboard=false", f"run.dir={run}"]) == 0
    assert main(["export", str(run), "--out", str(exported)]) == 0
    trained = newest(run)["task"]["network"]
    still = ("train.learning_rate=0", "train.freeze_statistics=true", "train.epochs=1")
    for number, source in enumerate((run, exported, exported / "model.safetensors")):
        assert main(words_for(f"run{number}", f"network.weights={source}", *still)) == 0
        found = newest(tmp_path / f"run{number}")["task"]["network"]
        backbone = {name.removeprefix("backbone."): t for name, t in found.items() if name.startswith("backbone.")}
        assert backbone.keys() == {name for name in trained if not name.startswith("classifier.")}
        assert all(torch.equal(tensor, trained[name]) for name, tensor in backbone.items())


@pytest.mark.slow
def test_generated_scenes_are_learnt(tmp_path, checkout):
    """The recipe's mIoU; colours alone reach less than 0.15 (tests/data/test_scenes.py)."""
    config = checkout / "configs" / "eval" / "scenes.yaml"
    assert nge_search.evaluate(config, f"run.dir={tmp_path / 'run'}", "run.progress=none")["miou"] >= 75
