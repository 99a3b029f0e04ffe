"""What only a GPU can show: the fast supernet against the textbook form there, and steps replayed as graphs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._pytree import tree_leaves

from nge_search.architecture.cell_space import CellSpace
from nge_search.engine.precision import allow_tf32
from nge_search.engine.session import open_session
from nge_search.gradient.run import build_task
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig
from nge_search.supernet import FusedSupernet, Supernet

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]


def gradients(network, images, matrices):
    network.train()
    leaves = [p_EO.clone().requires_grad_() for p_EO in matrices]
    logits = network(images, *leaves)
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(images), device=images.device) % 5)
    return [logits.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-9), ("fp32", 1e-4), ("bf16", 0.5)])
def test_equals_the_textbook_on_the_cpu(precision, tolerance):
    allow_tf32(False)  # which convolutions may use unless they are told
    torch.manual_seed(0)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    textbook = Supernet(CellSpace(), 16, 3, 5).double()
    images = torch.randn(8, 3, 16, 16, dtype=torch.float64)
    matrices = [torch.randn(CellSpace().shape, dtype=torch.float64).softmax(dim=1) for _ in range(2)]
    target = gradients(copy.deepcopy(textbook), images, matrices)
    fused = FusedSupernet(textbook.to("cuda", dtype, memory_format=torch.channels_last))
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        found = gradients(fused, images.to("cuda", dtype), [p_EO.to("cuda", dtype) for p_EO in matrices])
    for one, other in zip(found, target):
        assert float((one.cpu().double() - other).norm() / other.norm()) < tolerance


@pytest.mark.parametrize(
    ("loop", "order", "warmup"), [("epochwise", "first", 0), ("batchwise", "second", 0), ("batchwise", "first", 1)]
)
@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_replayed_searches_equal_those_step_by_step(tiny_search, tmp_path, loop, order, warmup, precision):
    words = [*tiny_search, "device=cuda", f"precision={precision}", f"search.loop={loop}", f"search.order={order}"]
    words += ["search.epochs=2", "data.limit=96", "search.batch_size=8", f"search.warmup_epochs={warmup}"]
    ends = []
    for graphs in ("never", "always"):
        folder = f"run.dir={tmp_path / graphs}"
        config = load_config(SearchConfig, None, [*words, f"search.cuda_graphs={graphs}", folder])
        with open_session(config) as session:
            task = build_task(session)
            for epoch in range(2):
                for phase in task.phases:
                    phase.start(epoch)
                    for batches in phase.batches(epoch, 0):
                        phase.step(*batches)
                    phase.finish(epoch)
            assert bool(task.finite)
            ends.append([x.cpu() for x in tree_leaves(task.state_dict()) if isinstance(x, torch.Tensor)])
    for one, other in zip(*ends):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-2 if precision == "bf16" else 1e-6)
