"""A trained network outside: exported, loaded by timm, ONNX Runtime and torch.export, classifying image files."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from timm.data import create_transform, resolve_data_config

import nge_search
import nge_search.networks.timm_models  # tells timm of the architectures
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.data import Augmentation, load_dataset
from nge_search.deploy import export
from nge_search.deploy.classify import classify, find_images, read_exported
from nge_search.deploy.export import export_run, read_weights
from nge_search.deploy.export_folder import RECORD
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.errors import RunFailure, UserError
from nge_search.networks.families import FAMILIES
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config, to_yaml

WORDS = (
    "threads=1",
    "device=cpu",
    "run.progress=none",
    "run.tensorboard=false",
    "data.limit=64",
    "network.channels=2",
    "network.cells=3",
    "train.epochs=1",
    "train.batch_size=16",
)
WITHOUT_ONNX = next(
    (name for name in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(name)), ""
)
needs_onnx = pytest.mark.skipif(bool(WITHOUT_ONNX), reason=f"{WITHOUT_ONNX} is not installed")


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory) -> Path:
    """A finished retraining on digits, with averaged weights."""
    run = tmp_path_factory.mktemp("digits") / "run"
    nge_search.evaluate(None, *WORDS, f"run.dir={run}", "train.ema_decay=0.9")
    return run


@pytest.fixture(scope="module")
def digits_model(digits_run: Path, tmp_path_factory) -> Path:
    return export_run(digits_run, tmp_path_factory.mktemp("digits_model") / "model")


@pytest.fixture(scope="module")
def imagenet_run(tmp_path_factory) -> Path:
    """An unfinished retraining of an ImageNet network, with an auxiliary head, in float64, with random weights."""
    return write_run(tmp_path_factory.mktemp("imagenet") / "run", "imagenet", side=64, resize=73)


@pytest.fixture(scope="module")
def imagenet_model(imagenet_run: Path, tmp_path_factory) -> Path:
    return export_run(imagenet_run, tmp_path_factory.mktemp("imagenet_model") / "model")


@pytest.fixture(scope="module")
def digit(tmp_path_factory) -> Path:
    """An image file of a digit."""
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    pixels = load_digits().images[7] * (255 / 16)
    Image.fromarray(pixels.round().astype(np.uint8)).save(path)
    return path


def write_run(run: Path, kind: str, side: int, resize: int) -> Path:
    """A run folder as a retraining leaves it: 5 classes, statistics that are not those of an untrained network."""
    torch.manual_seed(0)
    genotype = load_genotype("p_darts")
    network = FAMILIES[kind].build(genotype, 4, 3, 5, auxiliary=True).double()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 1.5)
    run.mkdir()
    words = (*WORDS, f"run.dir={run}", f"network.kind={kind}", "network.channels=4", "data.name=tiny_imagenet")
    (run / "config.yaml").write_text(to_yaml(load_config(EvalConfig, None, words)))
    (run / "genotype.json").write_text(genotype.to_json())
    dataset = {
        "name": "somewhere",
        "classes": ["ant", "bee", "cat", "dog", "eel"],
        "image_size": side,
        "channels": 3,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
        "resize": resize,
    }
    (run / "dataset.json").write_text(json.dumps(dataset))
    state = {
        "kind": "eval",
        "task": {"network": network.state_dict(), "ema": None},
        "position": {"epoch": 0},
    }
    CheckpointFolder(run / "checkpoints").save(state, 1)
    return run


def trained(run: Path, which: str = "network") -> dict[str, torch.Tensor]:
    state, _, _ = CheckpointFolder(run / "checkpoints").load_newest()
    return {name: tensor for name, tensor in state["task"][which].items() if not name.startswith("auxiliary.")}


@pytest.mark.parametrize("which", ["last", "ema"])
def test_weights_are_those_of_the_run_bit_for_bit(which, digits_run, tmp_path):
    out = export_run(digits_run, tmp_path / "model", weights=which)
    expected = trained(digits_run, {"last": "network", "ema": "ema"}[which])
    for given in (load_file(out / "model.safetensors"), read_weights(out)):
        assert given.keys() == expected.keys()
        assert all(torch.equal(given[name], expected[name]) for name in expected)
    assert sorted(path.name for path in out.iterdir()) == [
        RECORD,
        "README.md",
        "config.json",
        "genotype.json",
        "model.safetensors",
    ]
    assert load_genotype(out) == load_genotype(digits_run)
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1


def test_the_two_kinds_of_weights_differ(digits_run):
    assert not torch.equal(trained(digits_run)["stem.0.weight"], trained(digits_run, "ema")["stem.0.weight"])


def test_float64_weights_become_float32_without_the_auxiliary_head(imagenet_run, imagenet_model):
    expected = trained(imagenet_run)
    given = load_file(imagenet_model / "model.safetensors")
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))


def test_read_weights_takes_all_forms(imagenet_run, imagenet_model):
    forms = [read_weights(path) for path in (imagenet_run, imagenet_model, imagenet_model / "model.safetensors")]
    for form in forms[1:]:
        assert form.keys() == forms[0].keys()
        assert all(torch.equal(form[name], tensor) for name, tensor in forms[0].items())


@pytest.mark.parametrize(("side", "resize"), [(64, 73), (64, 64), (64, 0)])
def test_timm_loads_it_with_its_preprocessing(side, resize, tmp_path):
    """For a wide photograph timm's own crop is ours to the rounding of a pixel, and exactly ours under `resize`."""
    out = export_run(write_run(tmp_path / "run", "imagenet", side, resize), tmp_path / "model")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == ["ant", "bee", "cat", "dog", "eel"]
    data = resolve_data_config({}, model=model)
    assert tuple(data["input_size"]) == (3, side, side)
    assert math.floor(side / data["crop_pct"]) == (resize or side)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 151, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    theirs = create_transform(**data)(Image.open(tmp_path / "photo.png"))
    exported = read_exported(out)
    ours = exported.normalise(exported.read_image(str(tmp_path / "photo.png"))[None])[0]
    assert ours.shape == theirs.shape
    if resize:
        torch.testing.assert_close(ours, theirs)
    else:
        assert (ours - theirs).abs().mean() < 0.25
    x = ours[None]
    own = exported.network.state_dict()
    assert model.state_dict().keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    # Some processors round by where tensors lie in memory: equal weights do not make equal bits.
    torch.testing.assert_close(model(x), exported.network(x))


def test_features_of_an_exported_model(imagenet_model):
    model = timm.create_model(f"local-dir:{imagenet_model}", pretrained=True, features_only=True).eval()
    whole = timm.create_model(f"local-dir:{imagenet_model}", pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(x)[-1], whole.forward_features(x))


def test_readme_loads_it(digits_model, digit, tmp_path):
    """The example, as it is written, and `nge classify` agree."""
    text = (digits_model / "README.md").read_text()
    script = text.split("```python\n")[1].split("```")[0].replace("image.png", str(digit))
    assert 'convert("L")' in script
    ended = run([sys.executable, "-W", "error", "-c", script], digits_model)
    assert ended.returncode == 0, ended.stderr
    name, probability = ended.stdout.split()
    (found,) = classify(digits_model, [str(digit)])
    assert found.classes[0][0] == name
    assert found.classes[0][1] == pytest.approx(float(probability), abs=1e-6)


@needs_onnx
def test_all_that_the_readme_says_runs(digits_run, tmp_path, monkeypatch, capsys):
    """In a folder with a blank in its name: shell lines and scripts, as they are written, from top to bottom."""
    out = export_run(digits_run, tmp_path / "my model", formats=("onnx", "torch"))
    monkeypatch.chdir(out)
    blocks = (out / "README.md").read_text().split("```")[1::2]
    languages = [block.partition("\n")[0] for block in blocks]
    assert languages == ["sh", "python", "python", "python", "sh"]
    (make, classify_line), script, onnx, pt2, (train_line,) = (block.splitlines()[1:] for block in blocks)
    assert make.startswith("[ -e image.png ] || python -c ")
    made = shlex.split(make.replace("python", sys.executable).partition("||")[2])
    assert run(made, out).returncode == 0
    assert len(find_images(["."])) == 1
    assert main(shlex.split(classify_line)[1:]) == 0
    named = capsys.readouterr().out.split()[1]
    for number, lines in enumerate((script, onnx, pt2)):
        (tmp_path / f"{number}.py").write_text("\n".join(lines))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what loading a .pt2 file warns of is torch's own affair
            runpy.run_path(str(tmp_path / f"{number}.py"))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [named, named, "torch.Size([2,"]
    assert main([*shlex.split(train_line)[1:], "threads=1", "run.progress=none"]) == 0
    further = json.loads((out / "runs" / "eval" / "further" / "summary.json").read_text())
    assert further["epochs"] == 1
    assert further["params"] == json.loads((digits_run / "summary.json").read_text())["params"]


def test_the_readme_speaks_of_what_is_there(digits_model):
    text = (digits_model / "README.md").read_text()
    assert "model.onnx" not in text
    assert "model.pt2" not in text


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_classifying_is_what_evaluation_does(digits_run, digits_model, tmp_path):
    """Test images written to files get the logits that the trained network gives the dataset's own."""
    config = load_config(EvalConfig, digits_run / "config.yaml")
    dataset = load_dataset(config.data)
    images = dataset.test.read(range(20))
    for position, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{position:02}.png")
    network = FAMILIES["cifar"].build(load_genotype(digits_run), 2, 3, 10, 1)
    network.load_state_dict(trained(digits_run))
    with torch.no_grad():
        probabilities = network.eval()(Augmentation(config.data, dataset).evaluate(images))[0].softmax(dim=1)
    found = list(classify(digits_model, [str(tmp_path)], top=3, batch=7))
    assert [Path(one.path).name for one in found] == [f"{position:02}.png" for position in range(20)]
    for one, expected in zip(found, probabilities):
        best = expected.topk(3)
        assert [int(name) for name, _ in one.classes] == best.indices.tolist()
        assert [probability for _, probability in one.classes] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_images_of_every_kind_become_what_the_network_takes(imagenet_model, digits_model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 64, 4), np.uint8)
    photo = Image.fromarray(pixels)
    for name, mode in (("a.png", "RGBA"), ("b.png", "P"), ("c.jpg", "L"), ("d.png", "1"), ("e.bmp", "RGB")):
        (photo if mode == "RGBA" else photo.convert("RGB").convert(mode)).save(tmp_path / name)
    for model in (imagenet_model, digits_model):
        found = list(classify(model, [str(tmp_path)]))
        assert len(found) == 5
        assert all(one.error is None and len(one.classes) == 1 for one in found)
    exported = read_exported(digits_model)
    grey = exported.read_image(str(tmp_path / "c.jpg"))
    assert grey.shape == (1, 8, 8)


def test_folders_are_searched(tmp_path):
    for name in ("b/z.png", "b/a.JPG", "a.webp", ".hidden/a.png", "b/.a.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([str(tmp_path), "as it is"])
    assert found == [*(str(tmp_path / name) for name in ("a.webp", "b/a.JPG", "b/z.png")), "as it is"]


def test_commands(digits_run, digit, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["export", str(digits_run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "config.json" in printed
    assert "unfinished" not in printed
    assert main(["classify", str(out), str(digit), "--top", "2"]) == 0
    line = capsys.readouterr().out
    (found,) = classify(out, [str(digit)], top=2)
    assert line == f"{digit}: " + ", ".join(f"{name} {share:.4f}" for name, share in found.classes) + "\n"
    assert main(["classify", str(out), str(digit), str(digit), "--top", "99", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(documents) == 2
    assert documents[0]["image"] == str(digit)
    assert sum(one["probability"] for one in documents[0]["classes"]) == pytest.approx(1)
    assert len(documents[0]["classes"]) == 10


def test_unfinished_run_says_so(imagenet_run, tmp_path, capsys):
    assert main(["export", str(imagenet_run), "--out", str(tmp_path / "model")]) == 0
    assert "is unfinished: these are the weights after 0 of 1 epochs" in capsys.readouterr().out


@needs_onnx
@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_onnx(name, digits_run, imagenet_run, tmp_path, capfd):
    import onnxruntime

    source = {"digits": digits_run, "imagenet": imagenet_run}[name]
    out = export_run(source, tmp_path / "model", formats=("onnx",))
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    exported = read_exported(out)
    for batch in (1, 2, 5):
        x = torch.randn(batch, exported.channels, exported.side, exported.side)
        (logits,) = session.run(None, {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), exported.network(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_torch_export(name, digits_run, imagenet_run, tmp_path, capfd):
    source = {"digits": digits_run, "imagenet": imagenet_run}[name]
    out = export_run(source, tmp_path / "model", formats=("torch",))
    assert capfd.readouterr() == ("", "")
    program = torch.export.load(out / "model.pt2").module()
    exported = read_exported(out)
    for batch in (1, 2, 5):
        x = torch.randn(batch, exported.channels, exported.side, exported.side)
        torch.testing.assert_close(program(x), exported.network(x), atol=1e-4, rtol=1e-4)


def test_a_file_that_computes_something_else_is_a_failure(digits_run, tmp_path, monkeypatch):
    def export_something_else(model: torch.nn.Module, input_size: list[int], folder: Path) -> None:
        (folder / "model.pt2").touch()
        export._require_agreement("model.pt2", model, model, input_size)
        export._require_agreement("model.pt2", model, lambda x: model(x) + 2e-4 * (len(x) == 3), input_size)

    monkeypatch.setitem(export.FORMATS, "torch", export_something_else)
    with pytest.raises(RunFailure, match=r"model\.pt2 does not compute .* differ by 0\.0002 on a batch of 3"):
        export_run(digits_run, tmp_path / "model", formats=("torch",))
    assert not (tmp_path / "model").exists()


def test_missing_onnx_is_named(digits_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'nge-search\[export\]'"):
        export_run(digits_run, tmp_path / "model", formats=("onnx",))
    assert not (tmp_path / "model").exists()


def write_something(model: torch.nn.Module, input_size: list[int], folder: Path) -> None:
    (folder / "model.pt2").write_text("something")


def test_overwriting_keeps_other_files_and_leaves_none_of_another_format(digits_run, tmp_path, monkeypatch):
    out = tmp_path / "model"
    out.mkdir()
    monkeypatch.setitem(export.FORMATS, "torch", write_something)
    export_run(digits_run, out, formats=("torch",))
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export_run(digits_run, out)
    export_run(digits_run, out, weights="ema", overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert not (out / "model.pt2").exists()
    assert torch.equal(read_weights(out)["stem.0.weight"], trained(digits_run, "ema")["stem.0.weight"])


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "config.json"])
def test_what_no_export_wrote_is_not_replaced(name, digits_run, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}' was not written by nge export"):
        export_run(digits_run, out, overwrite=True)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_models_that_no_export_wrote_stay(digits_run, tmp_path, monkeypatch):
    """One of a name that is not written this time, one that took the place of an export's, one behind a link."""
    out, said = tmp_path / "model", []
    out.mkdir()
    (out / "model.onnx").write_text("mine")
    monkeypatch.setitem(export.FORMATS, "torch", write_something)
    export_run(digits_run, out, formats=("torch",), overwrite=True, say=said.append)
    (out / "model.pt2").write_text("quantised by me")
    export_run(digits_run, out, overwrite=True, say=said.append)
    assert (out / "model.onnx").read_text() == "mine"
    assert (out / "model.pt2").read_text() == "quantised by me"
    assert len([line for line in said if "stays" in line]) == 3
    (out / "model.safetensors").replace(tmp_path / "weights")
    (out / "model.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(UserError, match=r"model\.safetensors' was not written"):
        export_run(digits_run, out, overwrite=True)
    assert (out / "model.safetensors").is_symlink()


def test_exports_from_before_there_was_a_record_are_replaced(digits_run, tmp_path):
    out = tmp_path / "model"
    export_run(digits_run, out)
    (out / RECORD).unlink()
    export_run(digits_run, out, weights="ema", overwrite=True)
    (out / RECORD).unlink()
    (out / "README.md").write_text("# My model")
    with pytest.raises(UserError, match="was not written by nge export"):
        export_run(digits_run, out, overwrite=True)


def test_an_interrupted_export_leaves_no_model(digits_run, tmp_path, monkeypatch):
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(export, "readme", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, out)
    assert not out.exists()
    export_run(digits_run, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(export, "readme", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, out, weights="ema", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda old, new: interrupt() if "config" in str(new) else replace(old, new))
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, out, weights="ema", overwrite=True)
    assert not (out / "config.json").exists()
    (out / ".nge-export.tmp").mkdir()  # as SIGKILL leaves it
    (out / ".nge-export.tmp" / "model.onnx").touch()
    export_run(digits_run, out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / ".nge-export.tmp").mkdir()
    (out / ".nge-export.tmp" / "mine.txt").touch()
    with pytest.raises(UserError, match="was not left by an export"):
        export_run(digits_run, out, overwrite=True)
    assert (out / ".nge-export.tmp" / "mine.txt").exists()


def test_without_room_no_model_is_left_and_the_next_try_succeeds(digits_run, tmp_path, capsys, largest_file):
    whole, out = tmp_path / "whole", tmp_path / "new" / "model"
    words = ["export", str(digits_run), "--format", "torch", "--out"]
    assert main([*words, str(whole)]) == 0
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    for room in (10, len(before["model.safetensors"]), len(before["model.pt2"]) - 1):
        with largest_file(room):
            refused([*words, str(out)], (f"cannot use '{out}'",), capsys)
            refused([*words, str(whole), "--overwrite"], (f"cannot use '{whole}'",), capsys)
        assert not out.exists()
        assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert main([*words, str(out)]) == 0
    assert {path.name for path in out.iterdir()} == set(before)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


Damage = Callable[[Path], object]


def refused(words: list[str], says: tuple[str, ...], capsys) -> None:
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    for word in says:
        assert word in err


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def in_file(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def changed(name: str, *keys: str, value: object) -> Damage:
    """Sets an entry of a JSON file."""

    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / name).write_text(json.dumps(document))

    return damage


def search_checkpoint(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    CheckpointFolder(run / "checkpoints").save({"kind": "search", "task": {}, "position": {"epoch": 1}}, 1)


#: How a copy of the run is damaged, more words after `nge export run --out model`, and what the message must hold.
RUNS: dict[str, tuple[Damage, tuple[str, ...], tuple[str, ...]]] = {
    "no run": (remove("config.yaml"), (), ("'run'", "not the folder of a run")),
    "a search": (search_checkpoint, (), ("'run' is the run folder of a search", "network.genotype=run")),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoints"), (), ("'run' has no checkpoint",)),
    "damaged checkpoints": (
        lambda run: [path.write_bytes(b"x") for path in (run / "checkpoints").iterdir()],
        (),
        ("every checkpoint in run/checkpoints is damaged",),
    ),
    "config.yaml not YAML": (in_file("config.yaml", "seed: [1"), (), ("run/config.yaml", "YAML")),
    "another size": (
        lambda run: in_file("config.yaml", (run / "config.yaml").read_text().replace("channels: 4", "channels: 8"))(
            run
        ),
        (),
        ("'stem0.0.weight'", "(2, 3, 3, 3)", "(4, 3, 3, 3)"),
    ),
    "no genotype": (remove("genotype.json"), (), ("run/genotype.json",)),
    "another genotype": (
        lambda run: in_file("genotype.json", load_genotype("darts_v2").to_json())(run),
        (),
        ("tensor 'cells.0.", "run"),
    ),
    "no dataset.json": (remove("dataset.json"), (), ("dataset.json",)),
    "dataset.json not JSON": (in_file("dataset.json", "{"), (), ("run/dataset.json is damaged",)),
    "dataset.json not UTF-8": (in_file("dataset.json", b"\xff"), (), ("run/dataset.json is damaged",)),
    "dataset.json nested": (in_file("dataset.json", "[" * 100_000), (), ("run/dataset.json is damaged",)),
    "no classes": (changed("dataset.json", "classes", value=[]), (), ("'classes' must be a list of names",)),
    "no mean": (changed("dataset.json", "mean", value=[1.0]), (), ("'mean' must be 3 numbers, not [1.0]",)),
    "no spread": (changed("dataset.json", "std", value=[1, 1, 0]), (), ("'std' must be 3 numbers above 0",)),
    "other resize": (changed("dataset.json", "resize", value=63), (), ("'resize' is below 'image_size'",)),
    "weights that are no tensors": (
        lambda run: CheckpointFolder(run / "checkpoints").save(
            {"kind": "eval", "task": {"network": {"a": 5}}, "position": {"epoch": 0}}, 2
        ),
        (),
        ("not a checkpoint of a retraining",),
    ),
    "no place": (
        lambda run: CheckpointFolder(run / "checkpoints").save({"kind": "eval", "task": {}, "position": 5}, 2),
        (),
        ("'position' must be an object",),
    ),
    "an image of kilometres": (changed("dataset.json", "image_size", value=60_000), (), ("'image_size'",)),
    "more classes": (
        changed("dataset.json", "classes", value=["a", "b"]),
        (),
        ("'classifier.weight'", "(5, 64)", "(2, 64)"),
    ),
    "no average": (lambda run: None, ("--weights", "ema"), ("'run' kept no average", "ema_decay")),
    "unknown weights": (lambda run: None, ("--weights", "best"), ("weights 'best'", "last, ema")),
    "unknown format": (lambda run: None, ("--format", "onxx"), ("format 'onxx'", "did you mean 'onnx'")),
    "into a run": (lambda run: None, ("--out", "run", "--overwrite"), ("'run' is the folder of a run",)),
    "into a file": (lambda run: None, ("--out", "run/genotype.json"), ("run/genotype.json",)),
    "into nowhere": (lambda run: None, ("--out", "/proc/model"), ("/proc/model",)),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_cannot_be_exported(name, imagenet_run, tmp_path, monkeypatch, capsys):
    damage, words, says = RUNS[name]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(imagenet_run, "run")
    (tmp_path / "run" / "summary.json").write_text("{}")
    damage(tmp_path / "run")
    refused(["export", "run", "--out", "model", *words], says, capsys)
    assert not (tmp_path / "model").exists()


def narrower(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["stem0.3.weight"] = torch.zeros(3, 2, 3, 3)
    save_file(weights, folder / "model.safetensors")


#: How a copy of the exported folder is damaged, and what the message must hold.
MODELS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "no folder": (shutil.rmtree, ("'model' holds no config.json", "nge export")),
    "a run": (
        lambda model: (in_file("config.yaml", "")(model), remove("config.json")(model)),
        ("'model' is a run folder", "nge export model --out"),
    ),
    "config.json not JSON": (in_file("config.json", "{"), ("model/config.json is damaged",)),
    "config.json a list": (in_file("config.json", "[]"), ("model/config.json is damaged: not a JSON object",)),
    "config.json empty": (
        in_file("config.json", "{}"),
        ("model/config.json is damaged: 'architecture' is missing",),
    ),
    "another architecture": (changed("config.json", "architecture", value="resnet18"), ("nge_cifar", "'resnet18'")),
    "channels text": (changed("config.json", "model_args", "channels", value="4"), ("'channels'", "not '4'")),
    "no genotype": (changed("config.json", "model_args", "genotype", value={}), ("key 'format' is missing",)),
    "a class less": (changed("config.json", "label_names", value=["a"]), ("'num_classes'", "not 5")),
    "not square": (changed("config.json", "pretrained_cfg", "input_size", value=[3, 64, 32]), ("square",)),
    "crop_pct": (changed("config.json", "pretrained_cfg", "crop_pct", value=0), ("'crop_pct'", "not 0")),
    "std": (changed("config.json", "pretrained_cfg", "std", value=[1, 1, None]), ("'std'",)),
    "another size": (
        changed("config.json", "model_args", "channels", value=8),
        ("model/model.safetensors", "'stem0.0.weight'", "(2, 3, 3, 3)", "(4, 3, 3, 3)"),
    ),
    "an image of kilometres": (
        changed("config.json", "pretrained_cfg", "input_size", value=[3, 1 << 14, 1 << 14]),
        ("'input_size'", "from 1 to 2048"),
    ),
    "an image without end": (
        changed("config.json", "pretrained_cfg", "input_size", value=[3, 10**30, 10**30]),
        ("'input_size'",),
    ),
    "a crop of nothing": (changed("config.json", "pretrained_cfg", "crop_pct", value=5e-324), ("'crop_pct'",)),
    "a spread of nothing": (changed("config.json", "pretrained_cfg", "std", value=[1e-300] * 3), ("'std'",)),
    "more cells than weights": (
        changed("config.json", "model_args", "cells", value=1000),
        ("'cells'", "from 1 to 3"),
    ),
    "channels without end": (changed("config.json", "model_args", "channels", value=10**12), ("'channels'",)),
    "classes without end": (
        changed("config.json", "label_names", value=["x"] * 300_000),
        ("'num_classes'", "not 5"),
    ),
    "values without end": (
        in_file("config.json", '{"a": [' + "[]," * 1_000_001 + "[]]}"),
        ("more than the 2000000",),
    ),
    "weights that are a pipe": (
        lambda model: (remove("model.safetensors")(model), os.mkfifo(model / "model.safetensors")),
        ("model.safetensors' is a named pipe",),
    ),
    "weights with a header without end": (
        in_file("model.safetensors", b"\xff" * 7 + b"\x0f" + b"{}"),
        ("its header has",),
    ),
    "weights that are not finite": (
        lambda model: save_file(
            {
                name: x * float("nan") if x.is_floating_point() else x
                for name, x in load_file(model / "model.safetensors").items()
            },
            model / "model.safetensors",
        ),
        ("not finite",),
    ),
    "another shape": (narrower, ("'stem0.3.weight'", "(3, 2, 3, 3)", "(4, 2, 3, 3)")),
    "no weights": (remove("model.safetensors"), ("'model/model.safetensors' does not exist",)),
    "damaged weights": (in_file("model.safetensors", b"x" * 99), ("'model/model.safetensors'", "damaged")),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_classify(name, imagenet_model, digit, tmp_path, monkeypatch, capsys):
    damage, says = MODELS[name]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(imagenet_model, "model")
    damage(tmp_path / "model")
    refused(["classify", "model", str(digit)], says, capsys)


def test_folder_without_images_and_other_words(imagenet_model, digit, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(["classify", str(imagenet_model), str(tmp_path)], (f"'{tmp_path}' holds no image files",), capsys)
    for words, says in (
        (["--top", "0"], "--top=0"),
        (["--batch", "x"], "--batch"),
        (["--device", "cuda"], "no GPU"),
    ):
        refused(["classify", str(imagenet_model), str(digit), *words], (says,), capsys)


def test_unreadable_images_are_named_after_the_others(imagenet_model, digit, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save("deep.png")
    Path("half.png").write_bytes(digit.read_bytes()[:90])
    os.mkfifo("pipe.png")
    shutil.copy(digit, "good.png")
    shutil.copy(digit, "last.png")
    words = ["text.png", "good.png", "deep.png", "pipe.png", "nowhere.png", "half.png", "last.png"]
    assert main(["classify", str(imagenet_model), *words, "--batch", "2"]) == 2
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["good.png", "last.png"]
    lines = err.splitlines()
    assert len(lines) == 5
    for line, name in zip(lines, [name for name in words if name not in ("good.png", "last.png")]):
        assert line.startswith("error: ")
        assert f"'{name}'" in line
    refused(["classify", str(imagenet_model), "text.png"], ("'text.png'",), capsys)


@pytest.mark.parametrize("place", ["nowhere", "empty", "text", "text.safetensors", "model"])
def test_weights_that_cannot_be_read(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text").write_text("text")
    Path("text.safetensors").write_text("")
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    with pytest.raises(UserError, match=f"'{place}"):
        read_weights(place)
