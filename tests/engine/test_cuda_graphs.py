"""Steps that are recorded and replayed; a tape of tensor operations stands in for a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nge_search.cli import main
from nge_search.data import Batch
from nge_search.engine import cuda_graphs as recording
from nge_search.engine.cuda_graphs import WARM_UP, Recorder, choose_record
from nge_search.engine.distributed import World
from nge_search.engine.session import open_session
from nge_search.errors import RunFailure, UserError
from nge_search.gradient.run import build_task
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig

_READS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "unique")
_MAKES = ("lift_fresh", "scalar_tensor")
SAMPLED = ("search.mixture=sampled",)
DIRICHLET = (
    "search.mixture=dirichlet",
    "search.edge_normalisation=true",
    "search.beta_weight=1",
    "embedding.edges=split",
)


class Tape(TorchDispatchMode):
    """What a CUDA graph is, for tensors on the CPU: operations at fixed addresses, with fixed numbers.

    Recording has no effect: what it writes to is put back. As on a GPU, the host must neither read a result nor
    make a tensor of its numbers meanwhile; and a tensor that is neither there before (`known`) nor a result of an
    operation is one that the host made.
    """

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.kept: list[Any] = list(known)
        self.steps: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function._schema.name.split("::")[1]
        assert name not in _READS, f"the host reads from the device: {function}"
        assert name not in _MAKES, f"the host makes a tensor: {function}"
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        for x in inputs:
            assert x.untyped_storage()._cdata in self.known, f"{function} reads a tensor of the host's, {x}"
        for argument, x in zip(function._schema.arguments, args):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written or argument.name in ("running_mean", "running_var"):  # which its schema does not tell
                for target in tree_leaves(x):
                    if isinstance(target, Tensor):
                        self.before.setdefault(target.data_ptr(), (target, target.clone()))
        out = function(*args, **kwargs)
        self.kept.append(out)
        self.known.update(x.untyped_storage()._cdata for x in tree_leaves(out) if isinstance(x, Tensor))
        if not function.is_view:
            self.steps.append((function, args, kwargs, out))
        return out

    def rewind(self) -> None:
        for target, value in self.before.values():
            target.copy_(value)

    def replay(self) -> None:
        for function, args, kwargs, out in self.steps:
            found = function(*args, **kwargs)
            for target, value in zip(tree_leaves(out), tree_leaves(found)):
                if isinstance(target, Tensor) and target.data_ptr() != value.data_ptr():
                    target.copy_(value)


def tape_of(known: Callable[[], list[Tensor]], recordings: list[Tape]) -> recording.Record:
    def record(step: Callable[[], None]) -> Callable[[], None]:
        with torch.no_grad():
            there = known()
        tape = Tape(
            there
            + [x for cell in step.__closure__ for x in tree_leaves(cell.cell_contents) if isinstance(x, Tensor)]
        )
        with tape:
            step()
        with torch.no_grad():
            tape.rewind()
        recordings.append(tape)

        def replay() -> None:
            with torch.no_grad():
                tape.replay()

        return replay

    return record


def batch(value: float, size: int = 2, total: int = 2) -> Batch:
    return Batch(torch.full((size, 1), value), torch.zeros(size), torch.arange(size), total)


def test_a_recording_reads_each_batch_and_repeats_numbers():
    total, factor, tapes = torch.zeros(()), [1.0], []

    def step(own: Batch) -> None:
        total.add_(own.images_BCHW.sum() * factor[0])

    recorder = Recorder(tape_of(lambda: [total], tapes))
    for number in range(WARM_UP + 3):
        recorder.run("train", step, (batch(1.0 + number),))
    assert float(total) == sum(2 * (1.0 + number) for number in range(WARM_UP + 3))
    assert len(tapes) == 1
    total.zero_()
    factor[0] = 10.0
    recorder.run("train", step, (batch(1.0),))
    assert float(total) == 2.0  # as recorded
    recorder.run("train", step, (batch(1.0, size=3),))  # another shape: not the recording
    assert float(total) == 32.0
    recorder.run("train", step, (batch(1.0, total=4),))
    assert float(total) == 52.0
    recorder.forget()
    recorder.run("train", step, (batch(1.0),))
    assert float(total) == 72.0
    assert len(tapes) == 2  # at once: this kind of step is warm


def test_without_recording_every_step_is_run():
    seen = []
    recorder = Recorder(None)
    for number in range(5):
        recorder.run("train", lambda own: seen.append(own), (batch(float(number)),))
    assert [float(own.images_BCHW[0]) for own in seen] == [0, 1, 2, 3, 4]


def test_a_step_that_cannot_be_recorded():
    def record(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore about it")

    seen: list[Batch] = []
    batches = [batch(float(number)) for number in range(WARM_UP + 2)]

    def run(recorder: Recorder) -> None:
        for own in batches:
            recorder.run("train", seen.append, (own,))

    with pytest.warns(UserWarning, match=r"when stream is capturing\); steps run one by one") as caught:
        run(Recorder(record))
    assert len(caught) == 1
    assert all(one is other for one, other in zip(seen, batches))
    assert len(seen) == len(batches)
    with pytest.raises(RunFailure, match=r"use search\.cuda_graphs=auto"):
        run(Recorder(record, required=True))


def test_the_tape_notices_what_a_graph_cannot_do():
    x = torch.arange(3.0)
    for wrong in (lambda: float(x.sum()), lambda: x[[0, 2]], lambda: x + torch.tensor([1.0, 2.0, 3.0])):
        with pytest.raises(AssertionError, match="host"), Tape([x]):
            wrong()


@pytest.mark.parametrize(
    ("space", "embedding", "loop", "order", "more"),
    [("darts", "nge", "epochwise", "first", ()), ("darts", "nge", "batchwise", "second", ()),
     ("nasbench201", "rnn", "batchwise", "first", ()), ("nasbench201", "plain", "epochwise", "second", ()),
     ("nasbench201", "direct", "epochwise", "first", ()), ("darts", "nge", "epochwise", "first", SAMPLED),
     ("nasbench201", "nge", "epochwise", "first", ()), ("nasbench201", "rnn", "batchwise", "second", SAMPLED),
     ("nasbench201", "nge", "epochwise", "first", (*SAMPLED, "search.gradient=score")),
     ("nasbench201", "nge", "epochwise", "first", DIRICHLET),
     ("nasbench201", "nge", "batchwise", "first", ("search.warmup_epochs=1",))],
)  # fmt: skip
def test_replayed_searches_equal_those_step_by_step(
    tiny_search, dense_search, tmp_path, torch_kernels, space, loop, order, embedding, more
):
    """With PyTorch's kernels, as on a GPU: P, weights, statistics and figures after two epochs."""
    own = tiny_search if space == "darts" else dense_search
    words = [*own, "supernet.kernel=fused", "precision=fp64", "search.epochs=2"]
    words += [f"search.loop={loop}", f"search.order={order}"]
    words += [f"embedding.kind={embedding}", *more]
    words += ["search.entropy_weight=0.1", "data.limit=64", "search.batch_size=8"]
    ends, tapes = [], []
    for name in ("plain", "replayed"):
        config = load_config(SearchConfig, None, [*words, f"run.dir={tmp_path / name}"])
        with open_session(config) as session:
            task = build_task(session)

            def known(task=task) -> list[Tensor]:
                optimisers = (task.weight_optimiser, task.architecture.optimiser)
                state = [x for o in optimisers for entry in o.state.values() for x in entry.values()]
                modules = [
                    x for m in (task.supernet, *task.architecture.modules) for x in (*m.parameters(), *m.buffers())
                ]
                meters = [meter.sums for meter in task.meters.values()]
                fixed = [
                    task.finite,
                    *task.architecture.cost_gradients,
                    *(p_EO for phase in task.phases for p_EO in getattr(phase, "p", ())),
                    *(task.mixture.noise if task.mixture else ()),
                ]
                return [x for x in (*state, *modules, *meters, *fixed) if isinstance(x, Tensor)]

            if name == "replayed":
                task.recorder = Recorder(tape_of(known, tapes))
            for epoch in range(2):
                for phase in task.phases:
                    phase.start(epoch)
                    for batches in phase.batches(epoch, 0):
                        phase.step(*batches)
                    phase.finish(epoch)
            assert bool(task.finite)
            ends.append({"state": task.state_dict(), "meters": [meter.sums for meter in task.meters.values()]})
    assert len(tapes) >= 3
    for one, other in zip(*(tree_leaves(end) for end in ends)):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_setting(tiny_search, capsys):
    cpu, gpu = World(torch.device("cpu")), World(torch.device("cuda", 0))
    two = World(torch.device("cuda", 0), 0, 2)
    assert [choose_record("auto", world) for world in (cpu, two)] == [None, None]
    assert choose_record("auto", gpu) is choose_record("always", gpu) is recording.record_cuda_graph
    assert choose_record("never", gpu) is None
    with pytest.raises(UserError, match="one process only"):
        choose_record("always", two)
    assert main(["search", *tiny_search, "search.cuda_graphs=always"]) == 2
    assert "search.cuda_graphs=always needs device=cuda" in capsys.readouterr().err
