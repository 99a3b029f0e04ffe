"""Predictors that are kept: the same scores again, bit for bit; everything else is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from nge_search.errors import UserError
from nge_search.predict.labels import Labelled
from nge_search.predict.predictors import open_predictor
from nge_search.predict.saved import Lesson, SavedPredictor, load_predictor, save_predictor
from nge_search.predict.shipped_predictor import open_shipped
from nge_search.spaces import SPACES, NasBench101Space

QUALITY = {"kendall_tau": 0.5, "interval": [0.25, 0.7], "covered_0.5": None}


def some(space: Any, count: int) -> tuple[list[dict], np.ndarray]:
    random = np.random.default_rng(0)
    cells = [space.graphs(space.random(random)) for _ in range(count)]
    return cells, 80 + 10 * random.random(count)


def trained(name: str, space: Any) -> SavedPredictor:
    cells, label_N = some(space, 12)
    predictor = open_predictor(name, space)
    predictor.fit(cells, torch.from_numpy(label_N), 0)
    lesson = Lesson.of(Labelled(space, [()] * 12, label_N, "'a.csv'"), 3)
    return SavedPredictor(name, space, predictor, lesson, QUALITY)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a predictor."""
    folder = tmp_path_factory.mktemp("predictor")
    save_predictor(folder, trained("nasbowl", SPACES["nasbench201"]()))
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "predictor")


@pytest.fixture
def change(folder: Path) -> Callable[[Callable[[dict], object]], None]:
    """Change predictor.json."""

    def changed(how: Callable[[dict], object]) -> None:
        path = folder / "predictor.json"
        document = json.loads(path.read_text())
        how(document)
        path.write_text(json.dumps(document))

    return changed


@pytest.mark.parametrize("name", SPACES)
def test_scores_are_the_same_again(name: str, tmp_path: Path) -> None:
    space = SPACES[name]() if name != "nasbench101" else NasBench101Space(5)
    saved = trained("nasbowl", space)
    paths = save_predictor(tmp_path, saved)
    assert [path.name for path in paths] == ["predictor.safetensors", "predictor.json"]
    cells, _ = some(space, 40)
    for reference in (tmp_path, *paths):
        again = load_predictor(reference, name)
        assert torch.equal(again.predictor.scores(cells), saved.predictor.scores(cells))
    assert again.space.cell_space.vertices == space.cell_space.vertices
    assert (again.model, again.lesson, again.quality) == (saved.model, saved.lesson, QUALITY)


def test_it_says_what_it_is(kept: Path) -> None:
    lesson = load_predictor(kept).lesson
    assert load_predictor(kept).describe() == (
        f"nasbowl for nasbench201, trained on 12 labels ({lesson.lowest:.2f} to {lesson.highest:.2f} %) of "
        "'a.csv'; "
        "Kendall's tau 0.50 (95 % interval 0.25 to 0.70) on labels that it had not seen"
    )


def test_other_spaces_are_refused_by_name(kept: Path) -> None:
    with pytest.raises(UserError, match=r"is a predictor for nasbench201, not for darts"):
        load_predictor(kept, "darts")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            lambda own: own.update(format="nge-predictor/2"),
            "of another version (nge-predictor/2, and this one",
        ),
        (lambda own: own.update(format="nge-genotype/1"), "is no predictor: its format is 'nge-genotype/1'"),
        (lambda own: own.pop("format"), "is no predictor: its format is None"),
        (lambda own: own.update(space="nasbench301"), "'space' must be one of darts"),
        (lambda own: own.update(model="tree"), "'model' must be one of ta_gates"),
        (lambda own: own.update(model="gates"), "is damaged"),
        (lambda own: own.update(model="xgboost"), "trees are the tensors root"),
        (lambda own: own.update(learnt=3), "'learnt' must be an object"),
        (lambda own: own["learnt"].update(labels=-1), "'labels' must be an integer from 2"),
        (lambda own: own["learnt"].update(lowest=float("nan")), "'lowest' must be a number"),
        (lambda own: own.update(tensors="0" * 64), "does not belong to the predictor.json beside it"),
        (lambda own: own.update(state=[]), "'state' must be an object"),
        (lambda own: own["state"].update(rounds=7), "'rounds' must be one of 0, 1, 2, 3"),
        (lambda own: own["state"].update(rounds=True), "'rounds' must be one of 0, 1, 2, 3"),
        (lambda own: own["state"].update(names=["a"]), "'weight' is not one number for each of 'names'"),
        (lambda own: own["state"]["names"].__setitem__(0, own["state"]["names"][1]), "a list of distinct names"),
        (lambda own: own["state"]["names"].__setitem__(0, {}), "its state is none of this predictor"),
        (lambda own: own["state"].pop("names"), "its state is none of this predictor"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(change: Callable, folder: Path, how: Callable, says: str) -> None:
    change(how)
    with pytest.raises(UserError) as error:
        load_predictor(folder)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"weight": torch.zeros(3, dtype=torch.float64)}, "'weight' is not one number for each"),
        ({"weight": torch.zeros(3)}, "'weight' is not one number for each"),
        ({"weight": torch.tensor(1.0, dtype=torch.float64)}, "'weight' is not one number for each"),
        ({"weights": torch.zeros(3)}, "its state is none of this predictor"),
        ({"weight": torch.tensor([float("nan")] * 3)}, "holds values that are not finite"),
        ({"weight": torch.zeros(3, dtype=torch.bfloat16)}, "is of the type torch.bfloat16"),
        ({"weight": torch.zeros(3, dtype=torch.bool)}, "'BOOL'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder: Path, change: Callable, tensors: dict, says: str) -> None:
    """By somebody who knows how to name their checksum."""
    import hashlib

    content = save(tensors)
    (folder / "predictor.safetensors").write_bytes(content)
    change(lambda own: own.update(tensors=hashlib.sha256(content).hexdigest()))
    with pytest.raises(UserError) as error:
        load_predictor(folder)
    assert says in str(error.value)


def test_files_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    tensors, document = folder / "predictor.safetensors", folder / "predictor.json"
    content, text = tensors.read_bytes(), document.read_text()
    for broken, says in (
        (content[:-5], "does not belong to the predictor.json beside it"),
        (content[:5], "its header has"),
        (b"\xff" * 64, "its header has 18446744073709551615 bytes"),
    ):
        tensors.write_bytes(broken)
        with pytest.raises(UserError, match=says):
            load_predictor(folder)
    tensors.write_bytes(content)
    for broken, says in (
        (text[:-20], "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "not a JSON object"),
        ('{"a": ' * 50_000, "nested too deeply"),
    ):
        document.write_text(broken)
        with pytest.raises(UserError, match=says):
            load_predictor(folder)
    tensors.unlink()
    document.write_text(text)
    with pytest.raises(UserError, match=r"predictor\.safetensors' does not exist"):
        load_predictor(folder)
    with pytest.raises(UserError, match=r"holds no predictor\.json; give the run folder of `nge predict train`"):
        load_predictor(tmp_path)
    with pytest.raises(UserError, match="does not exist; give the run folder"):
        load_predictor(tmp_path / "nowhere")


def test_the_one_that_ships_goes_by_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_predictor("darts")
    cells, _ = some(found.space, 3)
    assert found.predictor.scores(cells).tolist() == open_shipped(found.space).scores(cells).tolist()
    assert "trained on 214 labels" in found.describe()
    assert "Kendall's tau 0.5" in found.describe()
    with pytest.raises(UserError, match=r"is for cells of darts, not of nasbench201"):
        load_predictor("darts", "nasbench201")
    Path("darts").mkdir()  # what a user calls so comes first
    with pytest.raises(UserError, match=r"'darts' holds no predictor\.json"):
        load_predictor("darts")
