"""Two processes under torchrun: equal ranks, and equality with a single process."""

from __future__ import annotations

import json

import pytest
import torch

from nge_search.cli import main
from nge_search.engine import distributed, session
from nge_search.engine.cuda_graphs import choose_record
from nge_search.engine.distributed import World, choose_device, sum_over_ranks
from nge_search.errors import UserError
from nge_search.settings.load import load_config
from nge_search.settings.names import SIGNALS
from nge_search.settings.trial import TrialConfig
from nge_search.training.trial_run import run_trial

pytestmark = pytest.mark.xdist_group("distributed")  # in one process, which launches others once


def relative_difference(name: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """||a - b|| / ||b||, for a running mean in units of its standard deviation: a mean may be zero by symmetry."""
    a, b = found[name].double(), expected[name].double()
    scale = b.norm()
    if name.endswith("running_mean"):
        scale = expected[name.replace("running_mean", "running_var")].double().sqrt().norm()
    return float((a - b).norm() / scale.clamp_min(1e-30))


def named(state, prefix=""):
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {name: t for key, value in items for name, t in named(value, f"{prefix}/{key}").items()}


def test_ranks_are_bit_identical_after_every_epoch(two_ranks):
    worlds, _, _ = two_ranks
    for loop in ("epochwise", "batchwise", "stateful"):
        first, second = (torch.load(worlds / loop / f"epochs-{rank}.pt") for rank in range(2))
        assert len(first) == len(second) == 2
        for one, other in zip(first, second):
            assert one.keys() == other.keys()
            groups = {name.split("/")[1] for name in one}
            assert groups == {"supernet", "embedding", "weight_optimiser", "embedding_optimiser"}
            assert any("running_mean" in name for name in one)
            assert all(torch.equal(one[name], other[name]) for name in one)
        assert any(not torch.equal(first[0][name], first[1][name]) for name in first[0])


@pytest.mark.parametrize("name", ["perturbation", "short"])
def test_ranks_choose_alike(two_ranks, name):
    """Both have the same summary, and a training that a process alone repeats bit for bit."""
    folder = two_ranks[0] / name
    first, second = (json.loads((folder / f"chosen-{rank}.json").read_text()) for rank in range(2))
    assert first["genotype"] == second["genotype"]
    for part in ("selection", "baselines"):
        ours, theirs = ({**found.get(part, {}), "seconds": 0} for found in (first, second))
        assert ours == theirs
    trials = sorted((folder / "run2" / "trials").glob("*/summary.json"))
    for path in trials[:1]:
        found = json.loads(path.read_text())
        again = run_trial(load_config(TrialConfig, path.parent / "config.yaml", [f"run.dir={folder / 'again'}"]))
        assert {signal: again[signal] for signal in SIGNALS} == {signal: found[signal] for signal in SIGNALS}
    assert len(trials) >= 5 or "decisions" in first["selection"]


def test_ranks_that_are_not_alike_are_named(two_ranks):
    worlds, _, _ = two_ranks
    told = [(worlds / "disagree" / f"told-{rank}").read_text().splitlines() for rank in range(2)]
    assert told[0] == told[1]
    setting, images, seed = told[0]
    assert setting.startswith("2 rank 1 differs from rank 0 in search.momentum: 0.1, on rank 0 0.0;")
    assert images.startswith("2 rank 1 differs from rank 0 in the image file 'a/6.png'")
    assert seed.startswith("2 rank 1 differs from rank 0 in seed")


def test_a_rank_that_stands_still_is_named(two_ranks):
    worlds, _, _ = two_ranks
    assert (worlds / "stall" / "told-0").read_text().startswith("rank 1 stood still for longer than run.stall")


#: By the folder of a search, how far its ranks may be from a single process.
SHARED_STATISTICS = {
    "reference-fp64-first": 1e-9,
    "reference-fp64-second": 1e-9,
    "reference-fp32-first": 1e-4,
    "fused-fp64-first": 1e-9,
    "fused-fp64-second": 1e-9,
    "dense": 1e-9,
    "score": 1e-9,
    "dirichlet": 1e-9,
    "partial": 1e-9,
    "own": 1e-9,
}


def test_two_ranks_with_shared_statistics_equal_one(one_rank, two_ranks):
    """Without shared statistics the numbers are others."""

    def largest_difference(name: str) -> float:
        folder = one_rank / name
        alone = named(torch.load(folder / "1-0.pt"))
        ranks = [named(torch.load(folder / f"2-{rank}.pt")) for rank in range(2)]
        assert all(rank.keys() == alone.keys() for rank in ranks)
        return max(relative_difference(name, rank, alone) for rank in ranks for name in alone)

    for name, tolerance in SHARED_STATISTICS.items():
        assert largest_difference(name) < tolerance
    assert largest_difference("local") > 1e-6


def test_two_ranks_equal_one_that_accumulates(one_rank, two_ranks):
    for name in ("plain", "mixing"):
        alone = torch.load(one_rank / name / "1-0.pt")
        assert alone["state"]["updates"] == 8
        expected = named(alone["state"])
        for rank in range(2):
            own = torch.load(one_rank / name / f"2-{rank}.pt")
            together = named(own["state"])
            assert together.keys() == expected.keys()
            assert any("running_var" in name for name in together)
            assert max(relative_difference(name, together, expected) for name in expected) < 1e-9
            assert own["figures"][0] == pytest.approx(alone["figures"][0], rel=1e-9)


def test_evaluation_does_not_depend_on_the_number_of_ranks(one_rank, two_ranks, three_ranks):
    """599 test images in batches of 250 divide neither by two nor by three."""
    found = []
    for processes in (1, 2, 3):
        for rank in range(processes):
            own = torch.load(one_rank / "evaluation" / f"{processes}-{rank}.pt")
            found.append(own["figures"])
    counts, predicted_N, losses_N = found[0]
    assert (predicted_N >= 0).all()
    assert len(predicted_N) == 599
    for other, other_predicted_N, other_losses_N in found[1:]:
        assert (other["top1"], other["top5"]) == (counts["top1"], counts["top5"])
        assert other["loss"] == pytest.approx(counts["loss"], rel=1e-6)
        assert torch.equal(other_predicted_N, predicted_N)
        torch.testing.assert_close(other_losses_N, losses_N, rtol=1e-5, atol=1e-6)


def test_segmentation_on_two_ranks_equals_one(one_rank, two_ranks, three_ranks):
    alone = torch.load(one_rank / "segmentation" / "1-0.pt")
    assert alone["state"]["updates"] == 6
    expected = named(alone["state"])
    assert any("backbone.auxiliary" in name for name in expected)
    for rank in range(2):
        own = torch.load(one_rank / "segmentation" / f"2-{rank}.pt")
        together = named(own["state"])
        assert together.keys() == expected.keys()
        assert max(relative_difference(name, together, expected) for name in expected) < 1e-9
        assert torch.equal(own["figures"][1], alone["figures"][1])
    untrained = [torch.load(one_rank / "untrained" / name)["figures"] for name in ("1-0.pt", "3-0.pt", "3-2.pt")]
    assert int(untrained[0][1].sum()) > 0
    for figures, counts in untrained[1:]:
        assert torch.equal(counts, untrained[0][1])
        assert figures == pytest.approx(untrained[0][0], rel=1e-12)


def test_drifting_ranks_are_noticed(two_ranks):
    worlds, _, printed = two_ranks
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: ranks have drifted apart: '/supernet/stem.0.weight' differs between them; please report this"
    ]
    assert [(worlds / "drift" / f"code-{rank}").read_text() for rank in range(2)] == ["1", "1"]


def test_retraining_runs_on_two_ranks(two_ranks):
    worlds, printed, _ = two_ranks
    assert printed.count("test error") == 1
    error = json.loads((worlds / "retraining" / "run2" / "summary.json").read_text())["top1_error"]
    assert error * 599 / 100 == pytest.approx(round(error * 599 / 100))  # of exactly 599 test images


def test_a_single_process_is_a_world_of_one():
    world = World(torch.device("cpu"))
    tensor = torch.arange(3.0)
    world.sum_tensors([tensor])
    assert torch.equal(tensor, torch.arange(3.0))
    assert world.agree(True, False) == [True, False]
    assert torch.equal(world.gather_rows(tensor), tensor[None])


def test_a_group_of_one_talks_to_itself(group_of_one):
    """As several do; a GPU's steps are then not recorded."""

    def refuse():
        raise UserError("no")

    with group_of_one(torch.device("cpu")) as world:
        assert not world.alone
        tensor = torch.arange(3.0)
        world.sum_tensors([tensor])
        assert torch.equal(tensor, torch.arange(3.0))
        assert world.agree(True, False) == [True, False]
        assert torch.equal(world.gather_rows(tensor), tensor[None])
        assert world.gather_objects({"host": 1}) == [{"host": 1}]
        assert world.on_main(lambda: 7) == world.everywhere(lambda: 7) == 7
        for way in (world.on_main, world.everywhere):
            with pytest.raises(UserError, match="no"):
                way(refuse)
        world.assert_identical({"weight": tensor})
        assert choose_record("auto", World(torch.device("cuda", 0), group=world.group)) is None


def test_a_search_by_a_group_of_one_equals_one_alone(tiny_search, group_of_one, tmp_path, monkeypatch):
    sums, found = [], []
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda own: (sums.append(len(own)), sum_over_ranks(own))[1])
    for name in ("alone", "group"):
        assert main(["search", *tiny_search, "search.epochs=1", f"run.dir={tmp_path / name}"]) == 0
        row = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        found.append([row[key] for key in ("train_loss", "architecture_loss", "valid_loss")])
        assert bool(sums) == (name == "group")
        monkeypatch.setattr(session, "join_world", lambda *_: group_of_one(torch.device("cpu")))
    assert found[0] == found[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="device=cuda"):
        choose_device("cuda")
