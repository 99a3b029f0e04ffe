"""A trained model as two files: what is written is read again; what does not belong together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nge_search.engine.model_files import ModelFiles
from nge_search.errors import UserError
from nge_search.json_reader import Reader

FILES = ModelFiles("toy", "nge-toy", 2, "toy.json", "toy.safetensors", "the folder of a toy")


def test_both_files_are_read_again_by_any_of_their_names(tmp_path: Path) -> None:
    weights = {"a": torch.arange(3.0), "b": torch.tensor([[1, 2]])}
    paths = FILES.save(tmp_path, weights, {"size": 3})
    for reference in (tmp_path, *paths):
        found = FILES.read(reference)
        assert (found.source, found.document["size"]) == (str(tmp_path / "toy.json"), 3)
        tensors = FILES.read_tensors(found)
        assert tensors.keys() == weights.keys()
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)


def test_files_of_two_models_are_refused(tmp_path: Path) -> None:
    for name, value in (("one", 1.0), ("two", 2.0)):
        (tmp_path / name).mkdir()
        FILES.save(tmp_path / name, {"a": torch.tensor([value])}, {})
    (tmp_path / "two" / "toy.safetensors").replace(tmp_path / "one" / "toy.safetensors")
    with pytest.raises(UserError, match=r"does not belong to the toy\.json beside it"):
        FILES.read_tensors(FILES.read(tmp_path / "one"))


def test_versions_and_sorts_are_told_apart(tmp_path: Path) -> None:
    ModelFiles("toy", "nge-toy", 3, "toy.json", "toy.safetensors", "").save(tmp_path, {}, {})
    with pytest.raises(UserError, match=r"another version \(nge-toy/3, and this one reads nge-toy/2\); train"):
        FILES.read(tmp_path)
    ModelFiles("car", "nge-car", 2, "toy.json", "toy.safetensors", "").save(tmp_path, {}, {})
    with pytest.raises(UserError, match=r"is no toy: its format is 'nge-car/2', not nge-toy/2"):
        FILES.read(tmp_path)
    with pytest.raises(UserError, match=r"holds no toy\.json; give the folder of a toy"):
        FILES.read(tmp_path.parent)
    with pytest.raises(UserError, match=r"toy '.*none' does not exist; give the folder of a toy"):
        FILES.read(tmp_path / "none")


def test_what_a_model_stumbles_over_names_the_file() -> None:
    found = Reader("a/toy.json", {})
    for error, says in (
        (UserError("'size' is odd"), "a/toy.json is damaged: 'size' is odd"),
        (UserError("a/toy.json lacks a wheel"), "a/toy.json lacks a wheel"),
        (KeyError("wheel"), "a/toy.json is damaged: its state is none of this toy"),
        (RuntimeError("shapes"), "a/toy.json is damaged: its state is none of this toy"),
    ):

        def opened(error: Exception = error) -> None:
            raise error

        with pytest.raises(UserError) as caught:
            FILES.open(found, opened)
        assert str(caught.value).startswith(says)
    assert FILES.open(found, lambda: 7) == 7
