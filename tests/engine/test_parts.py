"""The engine's smaller parts, each against a plain statement of what it does."""

from __future__ import annotations

import math
import os
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from nge_search.cli import main
from nge_search.engine import checkpoint, sync_batchnorm
from nge_search.engine.checkpoint import CheckpointFolder, load_module, read_checkpoint
from nge_search.engine.distributed import World
from nge_search.engine.loop import average_buffers, float_buffers
from nge_search.engine.optimisers import build_sgd, clip_gradients, cosine, set_gradients, step_capturable
from nge_search.engine.session import open_session
from nge_search.errors import UserError
from nge_search.files import write_atomic
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig

WORLD = World(torch.device("cpu"))


def test_cosine_starts_high_and_heads_for_the_end():
    assert cosine(0, 25, 0.025, 0.001) == 0.025
    assert cosine(25, 25, 0.025, 0.001) == pytest.approx(0.001)
    assert cosine(5, 25, 1, 0) == pytest.approx((1 + math.cos(math.pi / 5)) / 2)


def test_clipping_equals_scaling_by_the_total_norm():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    gradients = [torch.randn_like(p) for p in layer.parameters()]
    total = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    for largest, factor in ((1.0, 1.0 / total), (100.0, 1.0), (0.0, 1.0)):
        for parameter, gradient in zip(layer.parameters(), gradients):
            parameter.grad = gradient.clone()
        norm = clip_gradients(list(layer.parameters()), largest)
        assert norm.item() == pytest.approx(total, rel=1e-5)
        for parameter, gradient in zip(layer.parameters(), gradients):
            torch.testing.assert_close(parameter.grad, gradient * factor, rtol=1e-4, atol=1e-6)


def test_sgd_is_the_textbook_one():
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimiser = build_sgd([weight], 0.1, 0.9, 0.01)
    w, buffer = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for step in range(4):
        weight.grad = torch.tensor([0.5, step], dtype=torch.float64)
        gradient = weight.grad + 0.01 * w
        buffer = 0.9 * buffer + gradient if step else gradient
        w = w - 0.1 * buffer
        optimiser.step()
    torch.testing.assert_close(weight.detach(), w, rtol=0, atol=1e-15)


def test_the_last_two_checkpoints_are_kept_in_order(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load_newest() == (None, None, [])
    for step in (5, 5, 7, 7, 100000):
        folder.save({"step": step, "tensor": torch.arange(step % 9)}, step)
    names = [path.name.rpartition("-")[0] for path in folder.newest_first()]
    assert names == ["000005-step-100000", "000004-step-7"]
    for path in folder.newest_first():
        os.utime(path, (0, 0))  # as after a copy: times do not matter
    state, path, damaged = folder.load_newest()
    assert (state["step"], path, damaged) == (100000, folder.newest_first()[0], [])


def test_two_good_checkpoints_remain_after_a_damaged_one(tmp_path):
    folder = CheckpointFolder(tmp_path)
    first = folder.save({"step": 1}, 1)
    folder.save({"step": 2}, 2).write_bytes(b"broken")
    state, path, damaged = folder.load_newest()
    assert (state, path, len(damaged)) == ({"step": 1}, first, 1)
    third = folder.save({"step": 3}, 3)
    assert folder.newest_first() == [third, first]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "rename"])
def test_damage_is_found_wherever_it_is(tmp_path, damage):
    folder = CheckpointFolder(tmp_path)
    path = folder.save({"tensor": torch.arange(1000)}, 3)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncate": content[:-7], "empty": b""}.get(damage, bytes(content)))
    if damage == "rename":
        path = path.rename(path.with_name("000002-step-4-" + "0" * 16 + ".pt"))
    with pytest.raises(UserError, match="does not match its checksum"):
        read_checkpoint(path)
    with pytest.raises(UserError, match="every checkpoint in"):
        folder.load_newest()


def test_a_checkpoint_that_needs_code_to_load_is_refused(tmp_path, monkeypatch):
    path = CheckpointFolder(tmp_path).save({"callable": print}, 1)
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        read_checkpoint(path)


def test_states_that_do_not_fit_name_the_tensor():
    layer = nn.Linear(2, 3)
    wrong_shape = nn.Linear(2, 4).state_dict()
    with pytest.raises(UserError, match=r"here: tensor '(weight|bias)' is torch.float32 \(4, ?2?\)"):
        load_module(layer, wrong_shape, "here")
    with pytest.raises(UserError, match=r"torch\.float64"):
        load_module(layer, nn.Linear(2, 3).double().state_dict(), "here")
    with pytest.raises(UserError, match="'bias' is missing"):
        load_module(layer, {"weight": layer.weight.detach()}, "here")
    with pytest.raises(UserError, match="'extra' is unknown"):
        load_module(layer, {**layer.state_dict(), "extra": torch.zeros(1)}, "here")


def test_a_run_on_the_cpu_leaves_a_gpu_alone(monkeypatch):
    """A context there takes hundreds of MB of somebody else's memory."""
    state = checkpoint.random_state()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.delattr(torch.cuda, "get_rng_state")
    monkeypatch.delattr(torch.cuda, "set_rng_state")
    assert checkpoint.random_state()["cuda"] is None
    checkpoint.restore_random_state({**state, "cuda": torch.zeros(16, dtype=torch.uint8)})


def test_random_states_come_back(tmp_path):
    checkpoint.seed_everything(5)
    folder = CheckpointFolder(tmp_path)
    folder.save({"random": checkpoint.random_state()}, 0)

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    expected = draw()
    state, _, _ = folder.load_newest()
    checkpoint.restore_random_state(state["random"])
    assert draw() == expected


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_averaging_buffers_of_one_process_changes_nothing():
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(4, 3, 2, 2))
    before = [buffer.clone() for buffer in float_buffers(norm)]
    average_buffers(norm, WORLD)
    assert len(before) == 2
    assert all(torch.equal(a, b) for a, b in zip(before, float_buffers(norm)))


@pytest.mark.parametrize("phase", ["weights", "architecture"])
def test_a_loss_that_explodes_stops_the_run(tmp_path, tiny_search, capsys, phase):
    """One line, exit code 1, the last good checkpoint named and still there, no later one."""
    run = tmp_path / "run"
    words = [*tiny_search, f"run.dir={run}", "run.checkpoint_seconds=0"]
    explode = {
        "weights": ["search.learning_rate=1e38", "search.clip=0"],
        "architecture": ["search.cost_weight=1e38", "embedding.kind=direct", "embedding.learning_rate=1e38"],
    }[phase]
    assert main(["search", *words, *explode]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not finite in epoch 1" in error
    kept = CheckpointFolder(run / "checkpoints").newest_first()
    if kept:
        assert str(kept[0]) in error
        state = read_checkpoint(kept[0])
        assert all(t.isfinite().all() for t in state["task"]["embedding"].values())
    else:
        assert "there is no checkpoint yet" in error
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_float32_is_rounded_only_on_request(precision, tmp_path):
    words = [f"precision={precision}", "run.progress=none", f"run.dir={tmp_path / 'run'}"]
    with open_session(load_config(SearchConfig, None, words)):
        flags = {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}
    assert flags == {precision == "tf32"}


def test_gradients_of_another_layout_reach_their_own_weights():
    weight, gradient = nn.Parameter(torch.zeros(2, 3)), torch.arange(6.0).view(3, 2).t()
    set_gradients([weight], [gradient])
    build_sgd([weight], 1.0, 0.0, 0.0).step()
    assert torch.equal(weight.detach(), -gradient)


def test_a_step_that_may_be_recorded_brings_no_advice_to_record_it(monkeypatch):
    """PyTorch gives it on a GPU at the first step that is not; other warnings come through."""
    weight = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([weight], lr=0.5)
    advice = "This instance was constructed with capturable=True or some of all the param_groups came with it"
    step = optimiser.step

    def warn_and_step(words):
        warnings.warn(words, stacklevel=1)
        return step()

    weight.grad = torch.ones(2)
    monkeypatch.setattr(optimiser, "step", lambda: warn_and_step(advice))
    step_capturable(optimiser)
    assert weight.tolist() == [0.5, 0.5]
    monkeypatch.setattr(optimiser, "step", lambda: warn_and_step("something else"))
    with pytest.warns(UserWarning, match="something else"):
        step_capturable(optimiser)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shared_statistics_keep_the_type_of_images(dtype, monkeypatch):
    """As `nn.BatchNorm2d` does, and with its values; a single rank stands in for all."""
    monkeypatch.setattr(sync_batchnorm.dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(sync_batchnorm.dist, "all_gather", lambda rows, local: rows[0].copy_(local))
    monkeypatch.setattr(sync_batchnorm.dist, "all_reduce", lambda sums: None)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    shared, own = sync_batchnorm.SyncedBatchNorm2d(3, dtype=wide), nn.BatchNorm2d(3, dtype=wide)
    found, expected = shared(x), own(x)
    assert found.dtype == expected.dtype == dtype
    tolerance = {torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
