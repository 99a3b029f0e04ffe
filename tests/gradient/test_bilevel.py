"""What a step of each phase moves, and that the loops do what Algorithm 1 and DARTS say."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nge_search.architecture.cell_space import CellSpace
from nge_search.engine.session import open_session
from nge_search.gradient.run import build_task
from nge_search.gradient.sampling import Sampler, score_gradient
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig

DENSE = ("supernet.space=nasbench201", "supernet.nodes=4")


@pytest.fixture
def make_task(tmp_path, tiny_search):
    """Build a tiny search from extra settings; sessions are closed at the end."""
    numbers = itertools.count()
    with contextlib.ExitStack() as opened:

        def make(*settings):
            words = [*tiny_search, "precision=fp64", f"run.dir={tmp_path / str(next(numbers))}", *settings]
            return build_task(opened.enter_context(open_session(load_config(SearchConfig, None, words))))

        yield make


def snapshot(task):
    return {
        "weights": [w.detach().clone() for w in task.weights],
        "embedding": [p.detach().clone() for p in task.architecture.embedding.parameters()],
        "weight_optimiser": tensors(task.weight_optimiser),
        "embedding_optimiser": tensors(task.architecture.optimiser),
    }


def tensors(optimiser):
    return [t.clone() for state in optimiser.state.values() for t in state.values() if isinstance(t, torch.Tensor)]


def changed(before, after):
    """Which groups differ anywhere, by name."""
    return {
        name
        for name in before
        if len(before[name]) != len(after[name])
        or any(not torch.equal(a, b) for a, b in zip(before[name], after[name]))
    }


def run_steps(task, index, count, epoch=0):
    phase = task.phases[index]
    phase.start(epoch)
    for _, batches in zip(range(count), phase.batches(epoch, 0)):
        phase.step(*batches)


@pytest.mark.parametrize("kind", ["nge", "direct", "plain", "rnn"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_each_phase_moves_its_own_parameters_only(make_task, kind, order):
    task = make_task(f"embedding.kind={kind}", f"search.order={order}")
    start = snapshot(task)
    run_steps(task, 0, 1)
    after_weights = snapshot(task)
    assert changed(start, after_weights) == {"weights", "weight_optimiser"}
    run_steps(task, 1, 1)
    after_architecture = snapshot(task)
    assert changed(after_weights, after_architecture) == {"embedding", "embedding_optimiser"}
    run_steps(task, 2, 1)
    assert changed(after_architecture, snapshot(task)) == set()
    every = [*task.weights, *task.architecture.embedding.parameters()]
    assert all(parameter.grad is None for parameter in every)


def test_every_weight_trains_and_every_embedding_parameter_too(make_task):
    task = make_task("embedding.weight_decay=0", "search.weight_decay=0")
    start = snapshot(task)
    run_steps(task, 0, 1)
    run_steps(task, 1, 1)
    end = snapshot(task)
    for group in ("weights", "embedding"):
        assert all(not torch.equal(a, b) for a, b in zip(start[group], end[group]))


def test_p_is_constant_through_the_weight_phase_and_fresh_in_the_architecture_phase(make_task):
    task = make_task("embedding.learning_rate=0.05")
    seen = []
    forward = task.supernet.forward

    def watch(images, p_normal_EO, p_reduce_EO):
        seen.append(p_normal_EO.detach().clone())
        return forward(images, p_normal_EO, p_reduce_EO)

    task.supernet.forward = watch
    run_steps(task, 0, 2)
    assert torch.equal(seen[0], seen[1])
    run_steps(task, 1, 2)
    assert torch.equal(seen[2], seen[0])
    assert not torch.equal(seen[3], seen[2])


def test_the_batchwise_loop_moves_the_embedding_first(make_task):
    task = make_task("search.loop=batchwise", "embedding.learning_rate=0.05")
    calls = []
    task.architecture_step = lambda valid, train: calls.append(("architecture", train))
    task.weight_step = lambda train, p: calls.append(("weights", train))
    run_steps(task, 0, 2)
    assert [name for name, _ in calls] == ["architecture", "weights"] * 2
    assert calls[0][1] is None
    second = make_task("search.loop=batchwise", "search.order=second")
    second.architecture_step = lambda valid, train: calls.append(("second", train, valid))
    second.weight_step = lambda train, p: calls.append(("weights", train))
    run_steps(second, 0, 1)
    assert torch.equal(calls[-2][1].index_B, calls[-1][1].index_B)  # unrolled on the batch that then trains
    assert not set(calls[-2][2].index_B.tolist()) & set(calls[-1][1].index_B.tolist())


def plain_gradients(task, batch):
    """Gradient of the embedding by plain autograd from the loss through P to X and Theta."""
    p = task.architecture.embedding()
    loss = functional.cross_entropy(task.supernet(batch.images_BCHW, *p), batch.labels_B)
    return torch.autograd.grad(loss, list(task.architecture.embedding.parameters()))


def test_the_architecture_gradient_equals_plain_autograd(make_task):
    task = make_task("embedding.weight_decay=0")
    task.supernet.train()
    batch = next(task.valid.iterate(0))
    expected = plain_gradients(task, batch)
    found = []
    task.architecture.optimiser.step = lambda: found.extend(
        p.grad.clone() for p in task.architecture.embedding.parameters()
    )
    task.architecture_step(batch, None)
    for value, target in zip(found, expected):
        torch.testing.assert_close(value, target, rtol=1e-9, atol=1e-14)


def test_cost_and_entropy_add_their_gradients(make_task, monkeypatch):
    plain, both = make_task(), make_task("search.cost_weight=0.7", "search.entropy_weight=0.4")
    leaves = [p_EO.detach().requires_grad_() for p_EO in both.architecture.embedding()]
    cost = sum((gradient_EO * p_EO).sum() for gradient_EO, p_EO in zip(both.cost.relative_gradients(), leaves))
    entropy = sum(torch.special.entr(p_EO).sum(dim=1).mean() for p_EO in leaves)
    expected = torch.autograd.grad(0.7 * cost - 0.4 * entropy, leaves)
    found = {}
    backward = torch.autograd.backward
    for name, task in (("plain", plain), ("both", both)):

        def catch(matrices, gradients, name=name):
            found[name] = [g.clone() for g in gradients]
            backward(matrices, gradients)

        task.start_epoch(0)
        batch = next(task.valid.iterate(0))
        with monkeypatch.context() as patch:
            # only the call that carries P's gradients through the embedding hands over two matrices
            patch.setattr(torch.autograd, "backward", catch)
            task.architecture_step(batch, None)
    for with_both, without, target in zip(found["both"], found["plain"], expected):
        torch.testing.assert_close(with_both - without, target, rtol=1e-9, atol=1e-13)


def test_a_cost_weight_makes_cells_cheaper(make_task):
    costs = {}
    for weight in (0, 5):
        task = make_task(f"search.cost_weight={weight}", "embedding.learning_rate=0.02")
        for epoch in range(3):
            run_steps(task, 1, 2, epoch)
        costs[weight] = task.cost.expected(*task.architecture.probabilities())
    assert costs[5] < 0.7 * costs[0]


def test_second_order_leaves_running_statistics_alone(make_task):
    task = make_task("search.order=second")
    before = [buffer.clone() for buffer in task.local_buffers()]
    run_steps(task, 1, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, task.local_buffers()))


def test_learning_rate_follows_a_cosine_from_the_first_epoch_on(make_task):
    task = make_task("search.epochs=4", "search.learning_rate=0.1")
    rates = []
    for epoch in range(4):
        task.start_epoch(epoch)
        rates.append(task.weight_optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0.05 * (1 - 0.5**0.5)])


def test_mixed_precision_keeps_p_and_its_gradient_in_single(make_task):
    """bf16 runs the convolutions; P, the sum over operations and the loss stay in fp32."""
    gradients = {}
    for precision in ("fp32", "bf16"):
        task = make_task(f"precision={precision}", "supernet.channels=8")
        task.supernet.train()
        leaves = [p_EO.detach().requires_grad_() for p_EO in task.architecture.probabilities()]
        loss = task.loss(next(task.valid.iterate(0)), leaves)
        gradients[precision] = torch.autograd.grad(loss, leaves)
        run_steps(task, 0, 2)
        assert bool(task.finite)
        assert all(weight.dtype == torch.float32 for weight in task.weights)
    for half, single in zip(gradients["bf16"], gradients["fp32"]):
        assert half.dtype == torch.float32
        assert torch.cosine_similarity(half.flatten(), single.flatten(), dim=0) > 0.9
        assert not torch.equal(half, half.bfloat16().float())


class NoReading(TorchDispatchMode):
    """Fails when a value travels from the device to the host."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function._schema.name.removeprefix("aten::") not in self.READS, function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [
        ("search.order=first",),
        ("search.order=second",),
        ("search.loop=batchwise", "search.cost_weight=1", "search.entropy_weight=1"),
        ("data.cutout=2", "embedding.kind=rnn"),
        ("search.mixture=sampled",),
        (*DENSE, "supernet.kernel=fused", "search.mixture=sampled", "search.gradient=score"),
        (
            "search.mixture=dirichlet",
            "search.edge_normalisation=true",
            "search.beta_weight=1",
            "embedding.edges=split",
        ),
        ("search.temperature_end=0.1", "supernet.channels=4", "supernet.partial=2", "embedding.jumping=true"),
        ("supernet.kernel=fused",),
        (*DENSE, "supernet.kernel=fused"),
        (*DENSE, "supernet.kernel=reference", "search.order=second", "search.mixture=sampled"),
    ],
)
def test_no_step_reads_a_tensor_back(make_task, torch_kernels, settings):
    task = make_task(*settings, "precision=fp32")
    for phase in task.phases:
        phase.start(0)
        batches = phase.batches(0, 0)
        with NoReading():
            for _ in range(2):
                phase.step(*next(batches))


def test_the_watch_for_reading_works():
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReading():
        torch.ones(1).item()


def test_sampling_draws_from_p_and_has_the_softmax_s_gradient():
    """Frequencies of 4,000 draws; the gradient by finite differences of the softmax at the same noise."""
    space = CellSpace(nodes=2, operations=("skip_connect", "max_pool_3x3", "sep_conv_3x3"))
    sampler = Sampler(space, 0.7, 3, torch.device("cpu"), torch.float64)
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.rand(space.shape, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2)]
    matrices = [p_EO / p_EO.sum(dim=1, keepdim=True) for p_EO in matrices]
    counts = [torch.zeros_like(p_EO) for p_EO in matrices]
    for step in range(4000):
        sampler.draw(0, 1, step)
        for count_EO, hard_EO in zip(counts, sampler(matrices)):
            torch.testing.assert_close(hard_EO.sort(dim=1).values, torch.eye(3).double()[2].expand(5, 3))
            count_EO += hard_EO
    for count_EO, p_EO in zip(counts, matrices):
        deviation_EO = (p_EO * (1 - p_EO) / 4000).sqrt()
        assert ((count_EO / 4000 - p_EO).abs() < 4.5 * deviation_EO).all()
    first = [x.clone() for x in sampler(matrices)]
    sampler.draw(0, 1, 3999)
    assert all(torch.equal(a, b) for a, b in zip(first, sampler(matrices)))  # the position decides
    p_EO, noise_EO = matrices[0].clone().requires_grad_(), sampler.noise[0][0]
    weight_EO = torch.rand(space.shape, generator=generator, dtype=torch.float64)
    (found_EO,) = torch.autograd.grad((sampler([p_EO, matrices[1]])[0] * weight_EO).sum(), p_EO)

    def soft(p_EO):
        return (torch.softmax((p_EO.log() + noise_EO) / 0.7, dim=1) * weight_EO).sum()

    for e, o in ((0, 0), (3, 1), (4, 2)):
        step_EO = torch.zeros_like(p_EO)
        step_EO[e, o] = 1e-6
        slope = (soft(matrices[0] + step_EO) - soft(matrices[0] - step_EO)) / 2e-6
        assert found_EO[e, o] == pytest.approx(float(slope), rel=1e-6)
    sampler.settle()
    for hard_EO, p_EO in zip(sampler(matrices), matrices):
        assert torch.equal(hard_EO.argmax(dim=1), p_EO.argmax(dim=1))


def test_the_score_gradient_is_that_of_the_expected_loss():
    """In its mean over all pairs of draws, weighted by their probabilities; by autograd over all architectures."""
    random = torch.Generator().manual_seed(0)
    shapes = [(2, 2), (1, 3)]
    matrices = [torch.rand(*shape, generator=random, dtype=torch.float64).softmax(dim=1) for shape in shapes]
    codes = list(itertools.product(range(2), range(2), range(3)))
    losses = torch.rand(len(codes), generator=random, dtype=torch.float64)

    def one_hot(code):
        return [functional.one_hot(torch.tensor(part), n).double() for part, n in ((code[:2], 2), (code[2:], 3))]

    def probability(code, matrices):
        first, second = matrices
        return first[0, code[0]] * first[1, code[1]] * second[0, code[2]]

    leaves = [p_EO.clone().requires_grad_() for p_EO in matrices]
    expected_loss = sum(probability(code, leaves) * loss for code, loss in zip(codes, losses))
    exact = torch.autograd.grad(expected_loss, leaves)
    mean = [torch.zeros_like(p_EO) for p_EO in matrices]
    for (a, one), (b, other) in itertools.product(zip(codes, losses), repeat=2):
        weight = probability(a, matrices) * probability(b, matrices)
        estimate = score_gradient(torch.stack([one, other]), [one_hot(a), one_hot(b)], matrices)
        for total_EO, own_EO in zip(mean, estimate):
            total_EO += weight * own_EO
    for own_EO, exact_EO in zip(mean, exact):  # a softmax does not see what all of a row have in common
        own_EO, exact_EO = (x_EO - x_EO.mean(dim=1, keepdim=True) for x_EO in (own_EO, exact_EO))
        torch.testing.assert_close(own_EO, exact_EO, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loop", ["epochwise", "batchwise"])
def test_a_search_by_the_score_compares_draws_on_one_batch(make_task, loop):
    """What moves the embedding is the gradient of what each draw loses, and weights stay."""
    task = make_task("search.mixture=sampled", "search.gradient=score", "search.draws=3", f"search.loop={loop}")
    phase = task.phases[0 if loop == "batchwise" else 1]
    batch = next(iter(task.valid.iterate(0, 0)))
    task.mixture.draw(0, 0, 1)
    weights = [weight.detach().clone() for weight in task.weights]
    matrices = [p_EO.detach() for p_EO in task.architecture.probabilities()]
    draws = [task.mixture(matrices, draw) for draw in range(3)]
    with torch.no_grad():
        losses = [functional.cross_entropy(task.supernet(batch.images_BCHW, *own), batch.labels_B) for own in draws]
    expected = [torch.zeros_like(p_EO) for p_EO in matrices]
    for k, own in enumerate(draws):
        others = [loss for j, loss in enumerate(losses) if j != k]
        for total_EO, drawn_EO, p_EO in zip(expected, own, matrices):
            total_EO += (losses[k] - sum(others) / 2) / 3 * drawn_EO / p_EO
    seen, step = [], task.architecture.step
    task.architecture.step = lambda gradient: step(lambda leaves: seen.append(gradient(leaves)) or seen[-1])
    task.architecture_step(batch, None)
    for own_EO, exact_EO in zip(seen[0], expected):
        torch.testing.assert_close(own_EO, exact_EO, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(weights, task.weights))
    before = snapshot(task)
    phase.start(0)
    for _, batches in zip(range(2), phase.batches(0, 0)):
        phase.step(*batches)
    assert {"embedding", "embedding_optimiser"} <= changed(before, snapshot(task))


@pytest.mark.parametrize("loop", ["epochwise", "batchwise"])
def test_a_sampled_search_weights_one_operation_per_edge(make_task, loop):
    task = make_task("search.mixture=sampled", f"search.loop={loop}", "search.order=second")
    seen, forward = [], task.supernet.forward

    def watch(images, *matrices):
        seen.append([p_EO.detach().clone() for p_EO in matrices])
        return forward(images, *matrices)

    task.supernet.forward = watch
    before = snapshot(task)
    for index in range(len(task.phases)):
        run_steps(task, index, 2)
    assert all(((p_EO == 0) | (p_EO == 1)).all() and p_EO.sum() == len(p_EO) for pair in seen for p_EO in pair)
    assert len({tuple(p_EO.argmax(dim=1).tolist()) for p_EO, _ in seen}) > 2
    derived = task.architecture.probabilities()
    assert all(torch.equal(a.argmax(dim=1), b.argmax(dim=1)) for a, b in zip(seen[-1], derived))
    assert changed(before, snapshot(task)) == set(before)
