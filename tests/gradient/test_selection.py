"""What is chosen at the end of a search: by short trainings and by the predictor, against a brute force."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

import nge_search
from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.load import read_architecture
from nge_search.cli import main
from nge_search.gradient import selection
from nge_search.gradient.selection import Answer, by_predictor, by_short_trainings, candidates, difference
from nge_search.predict.shipped import expected
from nge_search.spaces import DartsSpace, NasBench201Space, likely_operations
from nge_search.training.short import ShortTraining

DENSE = NasBench201Space()
#: Two inner nodes and three operations: 59,049 architectures, 243 for each cell.
SMALL = DartsSpace(CellSpace(2, ("skip_connect", "max_pool_3x3", "sep_conv_3x3")))


def probabilities(space, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(table.shape, generator=generator, dtype=torch.float64) for table in space.cell_space.tables]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_edits_of_a_dense_cell(count: int) -> None:
    (p_EO,) = matrices = probabilities(DENSE, count)
    code = (3, 1, 0, 2, 4, 3)
    ranks_EO = (p_EO[:, None, :] > p_EO[:, :, None]).sum(dim=2)  # how many are likelier
    brute = {
        other
        for other in itertools.product(range(5), repeat=6)
        for edges in [[edge for edge in range(6) if other[edge] != code[edge]]]
        if len(edges) == 1 and ranks_EO[edges[0], other[edges[0]]] < count
    }
    found = candidates(DENSE, code, likely_operations(matrices, count))
    assert found[0] == code
    assert set(found[1:]) == brute
    assert len(found) == len(brute) + 1


def edges_of(space: DartsSpace, code: tuple[int, ...], kind: str) -> Counter:
    cell = space.graphs(code)[kind]
    return Counter(
        (e.source, e.target, e.label.name) for e in cell.edges if e.label.name in space.cell_space.operations
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_edits_of_two_cells(count: int) -> None:
    """One edge gives way to another into the same node: likely where it was, the likeliest elsewhere."""
    space, matrices = SMALL, probabilities(SMALL, count)
    names, code = space.cell_space.operations, (0, 1, 0, 2, 1, 2, 2, 1, 0, 1, 1, 1, 0, 2, 0, 0)
    assert space.code(space.graphs(code)) == code
    nodes = [[(a, b) for a, b in itertools.combinations(range(node), 2)] for node in (2, 3)]
    cells = [
        (*first, *ops[:2], *second, *ops[2:])
        for first in nodes[0]
        for second in nodes[1]
        for ops in itertools.product(range(3), repeat=4)
    ]
    assert len(cells) == 243
    brute = set()
    for at, kind in enumerate(space.cell_space.kinds):
        likely = [p_O.argsort(descending=True).tolist() for p_O in matrices[at]]
        before = edges_of(space, code, kind)
        for cell in cells:
            other = (*cell, *code[8:]) if at == 0 else (*code[:8], *cell)
            removed, added = before - edges_of(space, other, kind), edges_of(space, other, kind) - before
            if removed.total() != 1 or next(iter(removed))[1] != next(iter(added))[1]:
                continue
            ((source, target, _),), ((new, _, name),) = removed, added
            choice = likely[space.cell_space.edges.index((new, target))]
            if names.index(name) in choice[: count if new == source else 1]:
                brute.add(other)
    found = candidates(space, code, likely_operations(matrices, count))
    assert found[0] == code
    assert set(found[1:]) == brute
    assert len(found) == len(brute) + 1


def test_likely_operations_of_ties_are_the_first() -> None:
    p_EO = torch.tensor([[0.2, 0.3, 0.3, 0.2], [0.1, 0.1, 0.7, 0.1]])
    assert likely_operations([p_EO], 3) == [[[1, 2, 0], [2, 0, 1]]]


def test_cells_of_one_operation() -> None:
    assert DENSE.throughout(3) == (3,) * 6
    cells = DartsSpace().genotype(DartsSpace().throughout(3))
    assert cells.normal == cells.reduce
    assert set(cells.normal.genes) == {("sep_conv_3x3", 0), ("sep_conv_3x3", 1)}


def test_the_best_value_wins_and_of_equals_the_first() -> None:
    codes = [(3,) * 6, (3, 3, 3, 3, 3, 1), (3, 3, 3, 3, 1, 3)]
    answers = [Answer(value, {"valid_loss": -value}) for value in (-2.0, -1.5, -1.5)]
    chosen, found = by_short_trainings(DENSE, codes, answers)
    assert chosen == codes[1]
    assert found["best"] == 1
    assert [trial["edit"] for trial in found["trials"]] == [
        "",
        "cell: nor_conv_3x3 2→3 becomes skip_connect 2→3",
        "cell: nor_conv_3x3 1→3 becomes skip_connect 1→3",
    ]
    assert difference(DENSE, (0,) * 6, (1, 0, 0, 0, 0, 0)) == "cell: none becomes skip_connect 0→1"


def test_the_predictor_chooses_what_it_expects_most_of() -> None:
    space = DartsSpace()
    matrices = [p_EO.softmax(dim=1) for p_EO in probabilities(space, 3)]
    codes = candidates(space, space.throughout(1), likely_operations(matrices, 2))
    chosen, found = by_predictor(space, codes)
    accuracies = [100 - expected(space.genotype(code)).error for code in codes]
    assert [trial["value"] for trial in found["trials"]] == pytest.approx(accuracies)
    assert chosen == codes[max(range(len(codes)), key=accuracies.__getitem__)]
    assert chosen != codes[0]


@pytest.fixture
def words(dense_search: list[str], tmp_path: Path):
    """A tiny search, the least of its P's choice, and so few trainings that it takes a moment."""

    def made(name: str, *own: str) -> list[str]:
        short = ("evaluator.steps=3", "evaluator.batch_size=8", "evaluator.channels=2", "evaluator.cells=3")
        few = (
            "search.epochs=1",
            "search.selection_operations=2",
            "search.selection_finalists=2",
            "search.selection_starts=0",
            "search.random_cells=2",
            "device=cpu",
        )
        free = "search.selection_convolutions=0"
        return [*dense_search, *short, *few, free, f"run.dir={tmp_path / name}", *own]

    return made


def without_time(document):
    """A document without what is measured by the clock."""
    if isinstance(document, dict):
        return {key: without_time(value) for key, value in document.items() if "second" not in key}
    return [without_time(value) for value in document] if isinstance(document, list) else document


def require_compared(compared: dict, chosen: str, best: list[str], longer: dict[str, float]) -> None:
    """Simple cells are trained as long as those of which the best was chosen; `longer` has all such losses."""
    assert [record["name"] for record in compared["throughout"]] == list(DENSE.cell_space.operations[1:])
    assert len({record["architecture"] for record in compared["random"]}) == 2
    simple = [*compared["throughout"], *compared["random"]]
    assert set(longer) == {*best, *(record["architecture"] for record in simple)}
    assert all(record["valid_loss"] == longer[record["architecture"]] for record in simple)
    simplest = min(longer[record["architecture"]] for record in simple)
    assert compared["beats"] is (longer[chosen] < simplest)
    assert "(one training of 9 steps each)" in compared["verdict"]
    assert ("does not beat" in compared["verdict"]) is not compared["beats"]


def test_a_search_that_selects_and_compares(
    words, tmp_path: Path, torch_kernels: None, monkeypatch: pytest.MonkeyPatch, capsys, require_listed
) -> None:
    """Once at a go, and once killed within a training of the selection: the same, bit for bit."""
    own = ("search.selection=short", "search.baselines=true")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr("nge_search.gradient.selection._TOLD_SECONDS", -1)
        assert main(["search", *words("whole", *own, "run.progress=lines")]) == 0
    printed = capsys.readouterr().out
    assert "short trainings: 6 of 7, some 1 min to go" in printed
    assert "short trainings: 7 of 7" not in printed
    summary = json.loads((whole / "summary.json").read_text())
    chosen, compared = summary["selection"], summary["baselines"]
    losses, longer = {}, {}  # by what each folder says that it trained
    for folder in (whole / "trials").iterdir():
        text = json.loads((folder / "genotype.json").read_text())["architecture"]
        found = losses if "steps: 3\n" in (folder / "config.yaml").read_text() else longer
        found[text] = json.loads((folder / "summary.json").read_text())["valid_loss"]
    tried = [trial["architecture"] for trial in chosen["trials"]]
    assert len(tried) == 7
    assert tried[0] == chosen["derived"]["architecture"]
    assert summary["genotype"] == chosen["chosen"] == json.loads((whole / "genotype.json").read_text())
    best = sorted(tried, key=losses.__getitem__)[:2]
    assert summary["genotype"]["architecture"] == min(best, key=longer.__getitem__)
    assert tried[chosen["best"]] == summary["genotype"]["architecture"]
    assert {trial["architecture"]: trial["valid_loss"] for trial in chosen["finals"]} == {
        x: longer[x] for x in best
    }
    assert [trial["valid_loss"] for trial in chosen["trials"]] == [losses[text] for text in tried]
    require_compared(compared, summary["genotype"]["architecture"], best, longer)
    assert compared["verdict"] in printed
    report = (whole / "report.html").read_text()
    assert "Cells that were tried, the best first" in report
    assert "The best of them, trained 3 times as long" in report
    assert compared["verdict"] in report.replace("&#x27;", "'")
    require_listed(whole)

    step, taken = ShortTraining.train_step, iter(range(100))

    def killed(task: ShortTraining, batch: object, epoch: int) -> None:
        if next(taken) == 10:
            raise KeyboardInterrupt
        step(task, batch, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(ShortTraining, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            nge_search.search(None, *words("cut", *own, "run.checkpoint_seconds=0"))
    assert len(list((cut / "trials").glob("*/summary.json"))) == 3
    again = nge_search.search(None, *words("cut", *own))
    leave_out = {"images_per_second", "peak_memory_mb"}
    first, second = ({k: v for k, v in without_time(s).items() if k not in leave_out} for s in (summary, again))
    assert first == second
    assert nge_search.search(None, *words("cut", *own)) == again


def test_a_selection_is_off_where_few_convolutions_are(words, torch_kernels: None) -> None:
    found = nge_search.search(
        None, *words("off", "search.selection=short", "search.selection_convolutions=1", "seed=1")
    )
    assert found["genotype"] == found["selection"]["derived"] == found["selection"]["chosen"]
    assert "fewer than search.selection_convolutions=1" in found["selection"]["off"]
    assert "trials" not in found["selection"]


def test_likely_operations_throughout_are_the_likeliest_of_all_edges_together() -> None:
    for space, seed in ((DENSE, 5), (SMALL, 6)):
        matrices, names = probabilities(space, seed), space.cell_space.operations
        sums = [sum(float(p_EO[:, at].sum()) for p_EO in matrices) for at in range(len(names))]
        ranked = sorted((at for at, name in enumerate(names) if name != "none"), key=lambda at: -sums[at])
        for count in (0, 1, 3):
            found = selection.likely_throughout(space, matrices, count)
            assert found == [space.throughout(at) for at in ranked[:count]]


def test_a_selection_begins_with_the_best_start(words, tmp_path: Path, torch_kernels: None) -> None:
    """And where P derives a cell of one operation throughout, that is one start of two."""
    whole = tmp_path / "starts"
    found = nge_search.search(None, *words("starts", "search.selection=short", "search.selection_starts=4"))
    chosen, values = found["selection"], {}
    for folder in (whole / "trials").iterdir():
        if "steps: 9\n" in (folder / "config.yaml").read_text():
            text = json.loads((folder / "genotype.json").read_text())["architecture"]
            values[text] = json.loads((folder / "summary.json").read_text())["valid_loss"]
    starts = [record["architecture"] for record in chosen["starts"]]
    simple = {DENSE.text(DENSE.throughout(at)) for at in range(1, 5)}
    assert starts[0] == chosen["derived"]["architecture"]
    assert {*starts[1:]} == simple - {starts[0]}
    best = min(starts, key=values.__getitem__)
    assert starts[chosen["start"]] == best
    assert chosen["trials"][0] == {**chosen["trials"][0], "architecture": best, "edit": ""}
    report = (whole / "report.html").read_text()
    assert "Where the selection may begin, trained 3 times as long" in report


def test_too_few_convolutions_is_said() -> None:
    assert selection.too_few_convolutions(DENSE, (3, 3, 3, 0, 1, 4), 0.5) == ""
    assert selection.too_few_convolutions(DENSE, (3, 3, 1, 0, 1, 4), 0.5).startswith(
        "33 % of the operations to begin with"
    )
    space = DartsSpace()
    assert selection.too_few_convolutions(space, space.throughout(0), 0.1).startswith("0 % of")
    assert not selection.too_few_convolutions(space, space.throughout(3), 1.0)


def test_a_search_without_selection_says_nothing_of_it(words, torch_kernels: None) -> None:
    found = nge_search.search(None, *words("plain"))
    assert not {"selection", "baselines"} & set(found)
    assert read_architecture(found["genotype"]).space == "nasbench201"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (["search.selection=predictor"], "the predictor that ships with the package is for cells of darts"),
        (["search.selection=short", "evaluator.cells=4"], "evaluator.cells=4: networks of nasbench201 have three"),
        (["search.selection=best"], "search.selection=best: allowed are argmax, short, perturbation, predictor"),
        (["search.selection_longer=1"], "search.selection_longer=1: must be at least 2"),
        (["search.selection_operations=0"], "search.selection_operations=0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(words, own: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main(["search", *words("run", *own)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
