"""Link models that are kept: the same scores again, bit for bit; everything else is refused in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from nge_search.design.configured import drawing_rules
from nge_search.design.darts import DartsRules
from nge_search.design.generator import DrawSettings
from nge_search.design.growth import Rules
from nge_search.design.link_model import LinkModelSettings, build_model
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.design.saved import SavedLinks, load_links, save_links
from nge_search.errors import UserError
from nge_search.tables.labels import Lesson

LESSON = Lesson("'a.csv'", 40, 70.0, 94.5, 3)


def untrained(rules: Rules, into: Rules, members: int = 2) -> SavedLinks:
    """Models with the weights that they begin with, as good as any others to be kept."""
    random = np.random.default_rng(0)
    codes = [code for code in (rules.space.random(random) for _ in range(12)) if rules.graphs(code)][:4]
    model = build_model(rules, LinkModelSettings(width=4, hidden=3), members, 7)
    sizes = tuple(rules.size(code) for code in codes[:2])
    good, bad = tuple(codes[:2]), tuple(codes[2:])
    return SavedLinks(rules, into, model, members == 3, DrawSettings(0.7), sizes, good, bad, LESSON)


@pytest.mark.parametrize(
    ("rules", "space"),
    [
        (NasBench101Rules(5), ""),
        (NasBench101Rules(6, dangling=True), "darts"),
        (NasBench201Rules(), ""),
        (DartsRules(), ""),
    ],
    ids=["nasbench101", "transfer", "nasbench201", "darts"],
)
def test_draws_are_the_same_again(rules: Rules, space: str, tmp_path: Path) -> None:
    saved = untrained(rules, drawing_rules(rules, space, {"skip_connect": ("conv1x1-bn-relu",)} if space else {}))
    paths = save_links(tmp_path, saved)
    assert [path.name for path in paths] == ["links.safetensors", "links.json"]
    drawn = saved.generator(5).draw(30)
    for reference in (tmp_path, *paths):
        again = load_links(reference)
        assert again.generator(5).draw(30) == drawn
    assert again.describe() == saved.describe()
    for kept, own in ((again.good, saved.good), (again.bad, saved.bad)):
        assert [rules.key(code) for code in kept] == [rules.key(code) for code in own]
    assert (again.sizes, again.lesson) == (saved.sizes, LESSON)
    assert again.into.space.name == saved.into.space.name
    assert getattr(again.into, "replacements", 0) == getattr(saved.into, "replacements", 0)
    assert again.rules.space.cell_space.vertices == rules.space.cell_space.vertices
    for name, tensor in saved.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = NasBench201Rules()
    save_links(tmp_path, untrained(rules, rules))
    return tmp_path


@pytest.fixture
def change(folder: Path) -> Callable[[Callable[[dict], object]], None]:
    """Change links.json."""

    def changed(how: Callable[[dict], object]) -> None:
        document = json.loads((folder / "links.json").read_text())
        how(document)
        (folder / "links.json").write_text(json.dumps(document))

    return changed


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda own: own.update(format="nge-links/2"), "of another version (nge-links/2, and this one"),
        (lambda own: own.update(format="nge-predictor/1"), "is no link model: its format is 'nge-predictor/1'"),
        (lambda own: own.update(space="nasbench301"), "'space' must be one of darts"),
        (lambda own: own.update(space="enas_macro"), "a cell of enas_macro has"),
        (lambda own: own.update(space="darts", vertices=7), "is damaged"),
        (lambda own: own.update(into="darts"), "what cells of nasbench201 teach cannot draw cells of darts"),
        (lambda own: own.update(dangling=True), "nodes of cells of nasbench201 always lead on"),
        (lambda own: own.update(dangling=1), "'dangling' must be true or false"),
        (lambda own: own.update(together=None), "'together' must be true or false"),
        (lambda own: own.update(sizes=[]), "'sizes' must be 1 to 10000 integers"),
        (lambda own: own.update(sizes=[9]), "a cell of nasbench201 with 9 links: it has 1 to 6"),
        (lambda own: own.update(sizes="many"), "'sizes' must be 0 integers"),
        (lambda own: own["draw"].update(temperature=0), "'temperature' must be a number above 0"),
        (lambda own: own["draw"].update(temperature=float("nan")), "'temperature' must be a number above 0"),
        (lambda own: own["draw"].update(score="odds"), "'score' must be one of logit, probability"),
        (lambda own: own["model"].update(width=10**9), "'width' must be an integer from 1 to 1024"),
        (lambda own: own["model"].update(width=1024, hidden=4096, members=100), "not torch.float32 ["),
        (lambda own: own["model"].update(reverse=False), "not torch.float32 ["),
        (lambda own: own["model"].update(layers=2), "holds no weights of such link models"),
        (lambda own: own.update(good=["|a|"]), "is no architecture of nasbench201"),
        (lambda own: own.update(good=[]), "'good' must be a list of names"),
        (lambda own: own.update(replacements=[]), "'replacements' must be an object of texts"),
        (lambda own: own["learnt"].update(lowest=float("nan")), "'lowest' must be a number"),
        (lambda own: own.update(tensors="0" * 64), "does not belong to the links.json beside it"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(change: Callable, folder: Path, how: Callable, says: str) -> None:
    change(how)
    with pytest.raises(UserError) as error:
        load_links(folder)
    assert says in str(error.value)
    assert "links." in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda own: own.pop("score_bias_M"), "holds no weights of such link models"),
        (
            lambda own: own.update(score_bias_M=own["score_bias_M"].double()),
            "score_bias_M is torch.float64 [2], not",
        ),
        (lambda own: own.update(score_bias_M=torch.full((2,), float("nan"))), "values that are not finite"),
        (lambda own: own.update(score_bias_M=torch.zeros(3)), "score_bias_M is torch.float32 [3], not"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder: Path, change: Callable, how: Callable, says: str) -> None:
    """By somebody who knows how to name their checksum."""
    tensors = load((folder / "links.safetensors").read_bytes())
    how(tensors)
    content = save(tensors)
    (folder / "links.safetensors").write_bytes(content)
    change(lambda own: own.update(tensors=hashlib.sha256(content).hexdigest()))
    with pytest.raises(UserError) as error:
        load_links(folder)
    assert says in str(error.value)


def test_other_spaces_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(UserError, match=r"links\.json: what cells of nasbench201 teach cannot draw cells of darts"):
        load_links(folder, "darts")
    with pytest.raises(UserError, match=r"holds no links\.json; give the run folder of `nge design train`"):
        load_links(folder.parent)
