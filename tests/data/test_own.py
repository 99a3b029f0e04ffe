"""Images and modules that a Python program gives to a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import nge_search
from nge_search import Images, UserError
from nge_search.architecture.load import load_genotype
from nge_search.data import load_dataset
from nge_search.data.own import load_own, picture
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.weights import read_weights
from nge_search.report import write_report
from nge_search.settings.data import DataSection

pytestmark = pytest.mark.usefixtures("unreported")
DIGITS = ("threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=40", "seed=3")
TRAINING = (*DIGITS, "network.channels=2", "network.cells=1", "train.epochs=2", "train.batch_size=20")

#: A training of one epoch of a module.
MODULE = (*DIGITS, "train.epochs=1", "train.batch_size=20")


class Items:
    """A map-style dataset of items as they are."""

    def __init__(self, items: list[Any], **more: Any):
        self.items = items
        self.__dict__.update(more)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]


class Narrow(nn.Module):
    """The network of a genotype, as a module from images to logits alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.network(x_BCHW)[0]


def grey(count: int = 8, side: int = 8) -> Items:
    random = np.random.default_rng(0)
    return Items([(random.integers(0, 256, (side, side), np.uint8), at % 2) for at in range(count)])


@pytest.fixture(scope="module")
def digits() -> Images:
    """scikit-learn's digits as a program has them: tensors from 0 to 1, and their published statistics."""
    dataset = load_dataset(DataSection())
    parts = []
    for source in (dataset.train, dataset.test):
        labels = source.labels_N.tolist()
        parts.append(Items([(image / 255, label) for image, label in zip(source.images_NCHW, labels)]))
    return Images(*parts, [str(number) for number in range(10)], dataset.mean, dataset.std)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retraining on the digits that ship."""
    run = tmp_path_factory.mktemp("own") / "shipped"
    nge_search.evaluate(None, *TRAINING, f"run.dir={run}")
    return run


def test_own_images_and_an_own_module_train_as_those_that_ship(
    trained: Path, digits: Images, tmp_path: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """Bit for bit: the same pixels, and the network of the same genotype with the same first weights."""
    torch.manual_seed(3)
    module = Narrow(CifarNetwork(load_genotype("darts_v2"), 2, 1, 10, 1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    words = (*TRAINING, "data.flip=false", f"run.dir={tmp_path / 'run'}")
    summary = nge_search.evaluate(None, *words, dataset=digits, network=module)
    assert rows_of(tmp_path / "run") == rows_of(trained)
    theirs = json.loads((trained / "summary.json").read_text())
    assert (summary["params"], summary["macs"]) == (theirs["params"], theirs["macs"])
    assert summary["network"] == "Narrow"
    assert "genotype" not in summary
    assert not torch.equal(module.state_dict()["network.classifier.weight"], before["network.classifier.weight"])
    described = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert described["name"] == "own"
    assert "Top-1 error" in write_report(tmp_path / "run").read_text()
    with pytest.raises(UserError, match="trained a module that was given from Python"):
        nge_search.evaluate(None, *words, "network.genotype=darts_v2", dataset=digits)
    with pytest.raises(UserError, match="trains a genotype, and no module"):
        nge_search.evaluate(None, *TRAINING, f"run.dir={trained}", network=module)


@pytest.mark.parametrize(
    "given",
    [
        Image.fromarray(np.full((2, 2), 51, np.uint8)),
        np.full((2, 2), 51, np.uint8),
        torch.full((1, 2, 2), 51, dtype=torch.uint8),
        torch.full((2, 2), 51, dtype=torch.uint8),
        torch.full((1, 2, 2), 0.2),
        torch.full((1, 2, 2), 0.2, dtype=torch.float64),
    ],
)
def test_all_forms_of_a_grey_image_are_one(given: Any) -> None:
    image = picture(given, "here")
    assert (image.mode, image.size) == ("L", (2, 2))
    assert np.asarray(image).tolist() == [[51, 51], [51, 51]]


def test_all_forms_of_a_colour_image_are_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    opaque = np.concatenate([pixels, np.full((3, 4, 1), 255, np.uint8)], axis=2)
    for given in (pixels, Image.fromarray(pixels), Image.fromarray(opaque), tensor, tensor / 255):
        assert np.array_equal(np.asarray(picture(given, "here")), pixels)


def test_statistics_classes_and_targets(tmp_path: Path) -> None:
    train, test = grey(8), grey(4)
    dataset = load_own(Images(train, test), DataSection(name="own"))
    pixels = torch.stack([torch.from_numpy(image) for image, _ in train.items]).double() / 255
    assert dataset.mean == pytest.approx([float(pixels.mean())])
    assert dataset.std == pytest.approx([float(pixels.std(correction=0))])
    assert (dataset.classes, dataset.channels, dataset.image_size) == (("0", "1"), 1, 8)
    named = Items(train.items, classes=["a", "b"], targets=[at % 2 for at in range(8)])
    assert load_own(Images(named, test), DataSection(name="own")).classes == ("a", "b")
    wrong = Items(train.items, targets=[0] * 8)  # as under a target_transform: items count
    found = load_own(Images(wrong, test), DataSection(name="own"))
    assert found.train.labels_N.tolist() == [0, 1] * 4
    assert found.fingerprint == dataset.fingerprint


def test_data_settings_hold(tmp_path: Path) -> None:
    """`data.limit` takes as many of each class; `data.image_size` crops the centre and resizes."""
    train = Items([(np.full((6, 10), 20 * at, np.uint8), at % 2) for at in range(8)])
    dataset = load_own(Images(train, train), DataSection(name="own", limit=4, image_size=3))
    assert (len(dataset.train), len(dataset.test)) == (4, 8)
    assert torch.bincount(dataset.train.labels_N).tolist() == [2, 2]
    assert dataset.test.read([3]).tolist() == [[[[60] * 3] * 3]]


def test_lists_arrays_and_tensors_say_what_images_are_like() -> None:
    plain = Images(1, 2, ("0", "1"), (0.5, 0.25), (0.5, 0.25))
    assert Images(1, 2, [0, 1], np.array([0.5, 0.25]), torch.tensor([0.5, 0.25])).mean == plain.mean
    assert Images(1, 2, [0, 1], [np.float32(0.5), torch.tensor(0.25)], plain.std).mean == plain.mean
    assert Images(1, 2, np.array(["0", "1"])).classes == plain.classes


def test_other_pixels_are_other_images() -> None:
    """Where a dataset gives other ones each time, they are not compared."""
    train, test = grey(), grey(4)
    section = DataSection(name="own")
    before = load_own(Images(train, test), section).fingerprint
    image, label = test.items[1]
    changed = Items([*test.items[:1], (255 - image, label), *test.items[2:]])
    assert load_own(Images(train, changed), section).fingerprint != before

    class Noisy(Items):
        def __getitem__(self, position: int) -> Any:
            return torch.rand(1, 8, 8), self.items[position][1]

    found = {load_own(Images(Noisy(train.items), test), section).fingerprint for _ in range(2)}
    assert len(found) == 1
    assert before not in found


def test_names_that_a_dataset_has_twice_are_numbered() -> None:
    train = Items(grey().items, classes=["crane", "crane"])
    assert load_own(Images(train, grey()), DataSection(name="own")).classes == ("crane (0)", "crane (1)")


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A training of a module of one epoch, and the module."""
    run, module = tmp_path_factory.mktemp("module") / "run", linear()
    nge_search.evaluate(None, *MODULE, f"run.dir={run}", network=module)
    return run, module


def test_a_finished_run_gives_its_weights_to_a_module(finished: tuple[Path, nn.Module], tmp_path: Path) -> None:
    run, module = finished
    fresh = linear(1).train()
    nge_search.evaluate(None, *MODULE, f"run.dir={run}", network=fresh)
    assert not fresh.training
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(fresh.parameters(), module.parameters()))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    with pytest.raises(UserError, match="belongs to another architecture"):
        nge_search.evaluate(None, *MODULE, f"run.dir={run}", network=other)
    with pytest.raises(UserError, match="network=3: give a"):
        nge_search.evaluate(None, *MODULE, f"run.dir={run}", network=3)
    copied = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(UserError, match="kept no checkpoint"):
        nge_search.evaluate(None, *MODULE, f"run.dir={copied}", network=fresh)


def test_the_run_of_a_module_says_how_its_weights_are_used(finished: tuple[Path, nn.Module]) -> None:
    run, _ = finished
    for use in (
        lambda: read_weights(run),
        lambda: nge_search.Run.load(run).networks,
        lambda: nge_search.test(run),
        lambda: nge_search.evaluate(None, f"network.genotype={run}"),
        lambda: nge_search.evaluate(None, "task=segmentation", f"network.genotype={run}"),
    ):
        with pytest.raises(UserError, match=r"trained a module that was given from Python; nge_search\.evaluate"):
            use()


def test_other_images_are_refused_where_a_run_goes_on(tmp_path: Path) -> None:
    words = (*MODULE, "data.limit=0", "train.batch_size=4", f"run.dir={tmp_path / 'run'}")
    first, second = grey(8), Items([(255 - image, label) for image, label in grey(8).items])
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nge_search.evaluate(None, *words, dataset=(first, first), network=module)
    with pytest.raises(UserError, match="was trained on other images than dataset= holds now"):
        nge_search.evaluate(None, *words, "train.epochs=2", dataset=(second, first), network=module)


class Aside(nn.Module):
    """Gives auxiliary logits in training, as GoogLeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x_BCHW: Tensor) -> Any:
        logits_BK = self.linear(x_BCHW.flatten(1))
        return (logits_BK, logits_BK) if self.training else logits_BK


class Fewer(Aside):
    """Gives fewer logits in training."""

    def forward(self, x_BCHW: Tensor) -> Any:
        return self.linear(x_BCHW.flatten(1))[:, : 7 if self.training else 10]


def test_a_module_that_gives_more_in_training_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="network: Aside gives tuple in training mode; it must give logits"):
        nge_search.evaluate(None, *MODULE, f"run.dir={tmp_path / 'run'}", network=Aside())
    with pytest.raises(UserError, match=r"network: Fewer gives \[\d+, 7\] in training mode; it must give logits"):
        nge_search.evaluate(None, *MODULE, f"run.dir={tmp_path / 'other'}", network=Fewer())


def test_a_module_may_convolve_in_three_dimensions(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 2, 1), nn.Flatten(), nn.Linear(128, 10))
    summary = nge_search.evaluate(None, *MODULE, f"run.dir={tmp_path / 'run'}", network=module)
    assert summary["epochs"] == 1


def test_a_test_takes_own_images(monkeypatch: pytest.MonkeyPatch, digits: Images) -> None:
    monkeypatch.setattr("nge_search.deploy.testing.measure", lambda *given, **named: (given, named))
    assert nge_search.test("run", "precision=fp32", dataset=digits) == (
        ("run", ("precision=fp32",), "last"),
        {"dataset": digits},
    )


# -- what cannot be used

GOOD = [(np.zeros((8, 8), np.uint8), 0), (np.ones((8, 8), np.uint8), 1)]


def with_first(image: Any) -> Items:
    return Items([(image, 0), *GOOD])


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (3, "dataset=3: give nge_search.Images, or a pair"),
        ((Items(GOOD),), "or a pair (train, test) of datasets"),
        ((iter(GOOD), Items(GOOD)), "give a map-style dataset"),
        ((Items([]), Items(GOOD)), "train has no items"),
        ((Items([np.zeros((8, 8))]), Items(GOOD)), "an item is (image, class)"),
        ((with_first(np.zeros((8, 8))), Items(GOOD)), "item 0 of train is ndarray of float64 [8, 8]"),
        ((with_first(torch.full((1, 8, 8), 1.5)), Items(GOOD)), "numbers from 1.5 to 1.5"),
        ((with_first(torch.full((1, 8, 8), float("nan"))), Items(GOOD)), "numbers from nan to nan"),
        ((with_first(torch.zeros(4, 8, 8)), Items(GOOD)), "with 1 or 3 channels"),
        ((with_first("cat.png"), Items(GOOD)), "item 0 of train is 'cat.png'"),
        ((with_first(Image.new("F", (8, 8))), Items(GOOD)), "more than 8 bits per channel"),
        ((with_first(np.zeros((8, 9), np.uint8)), Items(GOOD)), "9x8 pixels; set data.image_size="),
        ((Items(GOOD), with_first(np.zeros((9, 9), np.uint8))), "item 0 of test has 9x9 pixels and the first 8x8"),
        ((Items(GOOD), with_first(np.zeros((8, 8, 3), np.uint8))), "has 3 channels and the first image 1"),
        ((Items([*GOOD, (GOOD[0][0], "cat")]), Items(GOOD)), "item 2 of train is of class 'cat'"),
        ((Items([*GOOD, (GOOD[0][0], -1)]), Items(GOOD)), "item 2 of train is of class -1"),
        ((Items(GOOD), Items([(GOOD[0][0], 5)])), "class 2 ('2') has no training images"),
        ((Items(GOOD[:1]), Items(GOOD[:1])), "all items are of one class"),
        (Images(Items(GOOD), Items(GOOD), ["a"]), "1 names of classes, and an item of class 1"),
        (Images(Items(GOOD), Items(GOOD), ["a", "a"]), "two classes are called 'a'"),
        (Images(Items(GOOD), Items(GOOD), (), [[0.5]]), "mean=[[0.5]]: give 1 finite numbers"),
        (Images(Items(GOOD), Items(GOOD), (), ["0.5"]), "mean=['0.5']: give 1 finite numbers"),
        (Images(Items(GOOD), Items(GOOD), (), [0.5, 0.5]), "mean=[0.5, 0.5]: give 1 finite numbers"),
        (Images(Items(GOOD), Items(GOOD), (), (), [0.0]), "give 1 finite numbers, of std above 0"),
    ],
)
def test_images_that_cannot_be_used_are_named_in_one_line(
    dataset: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        nge_search.evaluate(None, *DIGITS[:4], dataset=dataset)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_what_a_dataset_raises_names_the_item() -> None:
    class Broken(Items):
        def __getitem__(self, position: int) -> Any:
            return self.items[position] if position < 3 else 1 / 0

    class Endless(Items):
        def __len__(self) -> int:
            return 1 // 0

    with pytest.raises(UserError, match=r"dataset: test has no length \(ZeroDivisionError: "):
        load_own(Images(Items(GOOD), Endless(GOOD)), DataSection(name="own"))
    with pytest.raises(UserError, match=r"item 3 of train cannot be read \(ZeroDivisionError: division by zero\)"):
        load_own(Images(Broken(GOOD * 2), Items(GOOD)), DataSection(name="own"))


def test_own_images_have_no_command_and_no_processes(
    tmp_path: Path, digits: Images, tiny_search: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="such images are given from Python"):
        nge_search.search(None, *tiny_search, "data.name=own", f"run.dir={tmp_path / 'run'}")
    words = (*tiny_search, "evaluator.processes=2", f"run.dir={tmp_path / 'run'}")
    with pytest.raises(UserError, match=r"evaluator\.processes=2: other processes lack what dataset= gives"):
        nge_search.search(None, *words, dataset=digits)
    with pytest.raises(UserError, match=r"data\.corrupt=skip: images that are given as dataset="):
        load_own(digits, DataSection(name="own", corrupt="skip"))
    for name, given in (("classes", "ab"), ("classes", {"a": 0, "b": 1}), ("mean", 0.5), ("std", torch.tensor(1))):
        with pytest.raises(UserError, match=f"dataset: {name}=.*: give a list"):
            Images(digits.train, digits.test, **{name: given})
    with pytest.raises(UserError, match=r"data\.jitter=0\.4: needs colour images"):
        load_own(digits, DataSection(name="own", jitter=0.4))


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("resnet", (), "network='resnet': give a torch.nn.Module"),
        (nn.Flatten(), (), "network: Flatten has no parameters that learn"),
        (nn.Linear(3, 10), (), "network: Linear does not take images [2, 1, 8, 8]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), (), "Sequential gives [2, 7] for 2 images of 10 classes"),
        (nn.Conv2d(1, 10, 3), (), "gives [2, 10, 6, 6]"),
        (nn.Linear(64, 10, device="meta"), (), "network: Linear is on the meta device"),
        (nn.Conv2d(1, 10, 3), ("network.drop_path=0.1",), "network.drop_path=0.1: a module that is given"),
        (nn.Conv2d(1, 10, 3), ("network.weights=other",), "network.weights=other: a module that is given"),
    ],
)
def test_modules_that_cannot_be_trained_are_refused(
    module: Any, words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError) as refused:
        nge_search.evaluate(None, *DIGITS, *words, f"run.dir={run}", network=module)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not run.exists()


def test_a_module_of_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    words = (*DIGITS, "train.schedule=constant", "train.batch_size=20")
    once, again = linear(0), linear(0)
    nge_search.evaluate(None, *words, "train.epochs=4", f"run.dir={tmp_path / 'once'}", network=once)
    nge_search.evaluate(None, *words, "train.epochs=2", f"run.dir={tmp_path / 'run'}", network=again)
    other = linear(1)
    nge_search.evaluate(None, *words, "train.epochs=4", f"run.dir={tmp_path / 'run'}", network=other)
    assert torch.equal(other[1].weight, once[1].weight)
    larger = nn.Sequential(*linear(0), nn.Linear(10, 10))
    with pytest.raises(UserError, match="belongs to another architecture"):
        nge_search.evaluate(None, *words, "train.epochs=6", f"run.dir={tmp_path / 'run'}", network=larger)
