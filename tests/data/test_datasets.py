"""Digits and CIFAR: their values, their division, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets as vision

from nge_search.data import load_dataset
from nge_search.errors import UserError
from nge_search.settings.data import DATASETS, DataSection


class OldPickler(pickle.Pickler):
    """Writes dtypes as the NumPy that made CIFAR's files did: flags are integers, not booleans."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, np.dtype):
            return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def write_pickle(path: Path, content: dict[str, Any]) -> str:
    """Write as CIFAR's files are written; returns the MD5 sum."""
    with path.open("wb") as file:
        OldPickler(file, protocol=2).dump(content)
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, np.ndarray]]:
    """Write CIFAR-like files into tmp_path and make torchvision take them; returns their pixels and labels."""

    def write(name: str) -> dict[str, np.ndarray]:
        kind = vision.CIFAR10 if name == "cifar10" else vision.CIFAR100
        classes = DATASETS[name].classes
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        random = np.random.default_rng(0)
        written: dict[str, np.ndarray] = {}
        for part, files in (("train", kind.train_list), ("test", kind.test_list)):
            sums, pixels, labels = [], [], []
            for file, _ in files:
                count = 4 * classes
                pixels.append(random.integers(0, 256, (count, 3072), dtype=np.uint8))
                labels.append(np.arange(count) % classes)
                key = "labels" if name == "cifar10" else "fine_labels"
                content = {"data": pixels[-1], key: labels[-1].tolist()}
                sums.append([file, write_pickle(folder / file, content)])
            monkeypatch.setattr(kind, f"{part}_list", sums)
            written[part] = np.concatenate(pixels).reshape(-1, 3, 32, 32)
            written[f"{part}_labels"] = np.concatenate(labels)
        meta = dict(kind.meta)
        names = [f"name{number:02}" for number in range(classes)]
        meta["md5"] = write_pickle(folder / meta["filename"], {meta["key"]: names})
        monkeypatch.setattr(kind, "meta", meta)
        return written

    return write


def test_digits_hold_scikit_learns_pixels() -> None:
    dataset = load_dataset(DataSection())
    bunch = load_digits()
    assert (dataset.name, dataset.image_size, dataset.channels) == ("digits", 8, 1)
    assert dataset.classes == tuple("0123456789")
    assert dataset.notices == ()
    assert (len(dataset.train), len(dataset.test)) == (1198, 599)
    pixels = torch.cat([dataset.train.images_NCHW, dataset.test.images_NCHW])[:, 0].numpy()
    labels = torch.cat([dataset.train.labels_N, dataset.test.labels_N]).numpy()
    expected = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    found = sorted((int(label), image.tobytes()) for label, image in zip(labels, pixels))
    assert found == sorted((int(label), image.tobytes()) for label, image in zip(bunch.target, expected))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_digits_statistics_are_those_of_the_pixels() -> None:
    dataset = load_dataset(DataSection())
    pixels = torch.cat([dataset.train.images_NCHW, dataset.test.images_NCHW]).double() / 255
    assert float(pixels.mean()) == pytest.approx(dataset.mean[0], abs=1e-3)
    assert float(pixels.std()) == pytest.approx(dataset.std[0], abs=1e-3)


def test_digits_test_set_is_stratified_and_fixed() -> None:
    dataset, again = load_dataset(DataSection()), load_dataset(DataSection(limit=100))
    sizes = np.bincount(load_digits().target)
    test_sizes = np.bincount(dataset.test.labels_N.numpy())
    assert (abs(test_sizes - sizes / 3) < 1).all()
    assert torch.equal(dataset.test.images_NCHW, again.test.images_NCHW)


def test_digits_upsampled_to_16() -> None:
    small, large = load_dataset(DataSection()), load_dataset(DataSection(image_size=16))
    assert large.image_size == 16
    assert large.train.images_NCHW.shape == (1198, 1, 16, 16)
    assert large.train.images_NCHW.dtype == torch.uint8
    assert torch.equal(large.train.labels_N, small.train.labels_N)
    # Bilinear with half-pixel centres: an inner pixel is 9/16 its nearest, 3/16 each neighbour, 1/16 the diagonal.
    image = small.train.images_NCHW[0, 0].double().numpy()
    expected = (9 * image[3, 4] + 3 * image[3, 5] + 3 * image[4, 4] + image[4, 5]) / 16
    assert abs(int(large.train.images_NCHW[0, 0, 7, 9]) - expected) <= 0.5 + 1e-4


def test_limit_takes_equally_many_per_class() -> None:
    dataset = load_dataset(DataSection(limit=55))
    assert len(dataset.train) == 55
    assert set(np.bincount(dataset.train.labels_N.numpy())) == {5, 6}
    assert len(dataset.test) == 599
    assert dataset.train.nbytes == 55 * 64
    with pytest.raises(UserError, match=r"data\.limit=19: too few for 10 classes; at least 20"):
        load_dataset(DataSection(limit=19))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_holds_the_files_pixels(name: str, tmp_path: Path, small_cifar: Callable) -> None:
    written = small_cifar(name)
    dataset = load_dataset(DataSection(name=name, root=str(tmp_path)))
    classes = DATASETS[name].classes
    assert (dataset.image_size, dataset.channels, len(dataset.classes)) == (32, 3, classes)
    assert dataset.classes[1] == "name01"
    for part, source in (("train", dataset.train), ("test", dataset.test)):
        np.testing.assert_array_equal(source.images_NCHW.numpy(), written[part])
        np.testing.assert_array_equal(source.labels_N.numpy(), written[f"{part}_labels"])
        assert source.labels_N.dtype == torch.int64
        assert torch.equal(source.read([2, 0]), source.images_NCHW[[2, 0]])


def test_cifar_is_resized_and_limited(tmp_path: Path, small_cifar: Callable) -> None:
    written = small_cifar("cifar10")
    dataset = load_dataset(DataSection(name="cifar10", root=str(tmp_path), image_size=8, limit=40))
    assert dataset.train.images_NCHW.shape == (40, 3, 8, 8)
    assert dataset.test.images_NCHW.shape == (40, 3, 8, 8)
    pixels, whole = dataset.test.images_NCHW.double(), written["test"].astype(np.float64)
    assert float(pixels.mean()) == pytest.approx(whole.mean(), abs=0.5)
    # The triangle filter of antialiasing, 8 pixels wide, has squared weights that add up to 2 / (3 x 4) per axis.
    assert float(pixels.std()) == pytest.approx(whole.std() / 6, rel=0.1)


def test_missing_cifar_advises_download(tmp_path: Path) -> None:
    config = DataSection(name="cifar10", root=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"data\.root=.*none: cifar10's files .* set data\.download=true$"):
        load_dataset(config)


def test_damaged_cifar_is_refused(tmp_path: Path, small_cifar: Callable) -> None:
    small_cifar("cifar10")
    with (tmp_path / "cifar-10-batches-py" / "data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="missing or damaged"):
        load_dataset(DataSection(name="cifar10", root=str(tmp_path)))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/cifar.tar.gz", "http://host.invalid/cifar.tar.gz"])
def test_failed_download_is_one_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision.CIFAR100, "url", url)
    with pytest.raises(
        UserError, match=re.escape(f"cannot download cifar100 from {url} into '{tmp_path}'")
    ) as caught:
        load_dataset(DataSection(name="cifar100", root=str(tmp_path), download=True))
    assert "\n" not in str(caught.value)
