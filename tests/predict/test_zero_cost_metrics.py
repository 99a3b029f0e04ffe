"""Zero-cost metrics of one network against finite differences, whole Hessians and direct counting, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.counting import count_parameters, multiply_adds
from nge_search.predict import zero_cost_metrics as metrics
from nge_search.predict.zero_cost import operation_layers
from nge_search.predict.zero_cost_metrics import METRICS, SALIENCIES, measure_network
from nge_search.spaces import Code, DartsSpace, NasBench101Space, NasBench201Space, Space

SPACES = (NasBench201Space(), NasBench101Space(), DartsSpace())


class Tiny(nn.Module):
    """Convolution, normalisation, ReLU, twice, the second time without normalisation; classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 2, 1)
        self.unused = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 3)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, None]:
        x_BCHW = torch.relu(self.second(functional.relu(self.norm(self.first(x_BCHW)))))
        return self.classifier(x_BCHW.mean(dim=(2, 3))), None


def batch(channels: int = 3, side: int = 6, count: int = 4, classes: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x_BCHW = torch.randn(count, channels, side, side, generator=generator, dtype=torch.float64)
    return x_BCHW, torch.randint(classes, (count,), generator=generator)


def network_of(space: Space, code: Code, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return space.network(code, channels=8, cells=3).double()


def drawn(space: Space, count: int) -> list[Code]:
    random = np.random.default_rng(3)
    return [space.random(random) for _ in range(count)]


def saliency(rows: dict[str, np.ndarray], name: str) -> dict[str, float]:
    return {layer: float(row[SALIENCIES.index(name)]) for layer, row in rows.items()}


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(1)
    return Tiny().double().train()


def test_first_order_saliencies_equal_finite_differences(tiny: Tiny) -> None:
    x_BCHW, label_B = batch(2, 4, classes=3)
    step = 1e-6

    @torch.no_grad()
    def loss() -> float:
        return float(functional.cross_entropy(tiny(x_BCHW)[0], label_B))

    found = measure_network(tiny, x_BCHW, label_B).layer_S
    tiny.train()
    assert found.keys() == {"first", "second", "unused", "classifier"}
    for name, w in metrics.weights_of(tiny).items():
        flat = w.detach().view(-1)
        slopes = []
        for i, value in enumerate(flat.tolist()):
            flat[i] = value + step
            above = loss()
            flat[i] = value - step
            slopes.append((above - loss()) / (2 * step))
            flat[i] = value
        wg = flat.numpy() * np.array(slopes)
        expected = np.linalg.norm(slopes), np.abs(wg).sum(), wg.sum()
        row = [found[name][SALIENCIES.index(metric)] for metric in ("grad_norm", "snip", "plain")]
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-8)
    assert not found["unused"].any()


def test_grasp_equals_the_whole_hessian(tiny: Tiny) -> None:
    x_BCHW, label_B = batch(2, 4, classes=3)
    weights = metrics.weights_of(tiny)
    sizes = [w.numel() for w in weights.values()]
    at = torch.cat([w.detach().flatten() for w in weights.values()])

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        given = {f"{name}.weight": part.view(w.shape) for (name, w), part in zip(weights.items(), parts)}
        return functional.cross_entropy(torch.func.functional_call(tiny, given, (x_BCHW,))[0], label_B)

    gradient = torch.autograd.functional.jacobian(loss, at)
    hessian = torch.autograd.functional.hessian(loss, at)
    expected = [-part.sum() for part in (at * (hessian @ gradient)).split(sizes)]
    found = saliency(measure_network(tiny, x_BCHW, label_B).layer_S, "grasp")
    np.testing.assert_allclose(list(found.values()), torch.stack(expected).numpy(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_before_a_normalisation_plain_is_zero_and_grasp_the_square_of_grad_norm(space: Space) -> None:
    """Exactly, once epsilon is gone; elsewhere (the classifier) they are something else."""
    x_BCHW, label_B = batch()
    for code in drawn(space, 2):
        network = network_of(space, code)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-30
        rows = measure_network(network, x_BCHW, label_B).layer_S
        norm, snip, grasp, plain = (saliency(rows, name) for name in ("grad_norm", "snip", "grasp", "plain"))
        layers = [layer for _, _, own in operation_layers(network) for layer in own]
        assert any(norm[layer] > 1e-3 for layer in layers)
        for layer in layers:
            assert abs(plain[layer]) <= 1e-11 * snip[layer]
            assert grasp[layer] == pytest.approx(norm[layer] ** 2, rel=1e-8, abs=1e-14)
        assert abs(plain["classifier"]) > 1e-3 * snip["classifier"]
        assert grasp["classifier"] != pytest.approx(norm["classifier"] ** 2, rel=1e-2)


def test_plain_with_epsilon() -> None:
    """Of each output channel c: epsilon / (v + epsilon) s dL/ds."""
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(2, 3, 3).double(), nn.BatchNorm2d(3, eps=0.3).double()
    nn.init.uniform_(norm.weight, 0.5, 2)
    x_BCHW, _ = batch(2)
    y_BCHW = convolution(x_BCHW)
    g_CIKK, ds_C = torch.autograd.grad(norm(y_BCHW).tanh().pow(2).sum(), [convolution.weight, norm.weight])
    variance_C = y_BCHW.var(dim=(0, 2, 3), correction=0)
    expected_C = norm.eps / (variance_C + norm.eps) * norm.weight * ds_C
    torch.testing.assert_close((convolution.weight * g_CIKK).sum(dim=(1, 2, 3)), expected_C, rtol=1e-10, atol=0)
    assert expected_C.abs().min() > 1e-3


@pytest.mark.parametrize("space", [NasBench201Space(), DartsSpace()], ids=lambda space: space.name)
def test_synflow_is_what_goes_when_a_layer_goes(space: Space) -> None:
    """All positive and without normalisation, a network is linear in each layer: w dR/dw adds up to R - R(w = 0).

    Average pools are linear; a largest value is not, so that DARTS' max pools become average ones.
    """
    for code in drawn(space, 2):
        network = network_of(space, code)
        _replace(network, nn.MaxPool2d, lambda pool: nn.AvgPool2d(3, pool.stride, 1))
        found = metrics.synflow(network, (3, 6, 6))
        _replace(network, nn.BatchNorm2d, lambda _: nn.Identity())
        network.eval()

        @torch.no_grad()
        def total(network: nn.Module = network) -> float:
            return float(network(torch.ones(1, 3, 6, 6, dtype=torch.float64))[0].sum())

        with torch.no_grad():
            for parameter in network.parameters():
                parameter.abs_()
            whole = total()
            for name, w in metrics.weights_of(network).items():
                kept = w.clone()
                w.zero_()
                assert found[name] == pytest.approx(whole - total(), rel=1e-9, abs=1e-9 * whole)
                w.copy_(kept)


def _replace(network: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, make(child))


def test_synflow_leaves_the_network_alone(tiny: Tiny) -> None:
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    metrics.synflow(tiny, (2, 4, 4))
    torch.testing.assert_close(tiny.state_dict(), before, rtol=0, atol=0)
    assert isinstance(tiny.norm, nn.BatchNorm2d)
    assert tiny.training


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_naswot_counts_units_of_all_relus(space: Space) -> None:
    x_BCHW, label_B = batch(count=5)
    for code in drawn(space, 2):
        network = network_of(space, code).train()
        on_BU = _units(network, x_BCHW)
        kernel_BB = [[int((a == b).sum()) for b in on_BU] for a in on_BU]
        sign, logarithm = np.linalg.slogdet(np.array(kernel_BB, dtype=np.float64))
        assert sign == 1
        assert measure_network(network, x_BCHW, label_B).naswot == pytest.approx(logarithm, rel=1e-12)


def _units(network: nn.Module, x_BCHW: Tensor) -> np.ndarray:
    """Which units of ReLUs are on, by hooks: [B, U]. NAS-Bench-201's last ReLU is a function behind `norm`."""
    seen: list[np.ndarray] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, y: seen.append((y > 0).flatten(1).numpy(force=True)))
        for name, module in network.named_modules()
        if isinstance(module, nn.ReLU) or name == "norm"
    ]
    network(x_BCHW)
    for hook in hooks:
        hook.remove()
    return np.concatenate(seen, axis=1)


def test_naswot_of_images_that_are_not_told_apart_is_zero() -> None:
    on_BU = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 1]])
    kernel_BB = (on_BU[:, None] == on_BU).sum(axis=2).astype(float)
    assert metrics.log_determinant(kernel_BB) == 0
    assert metrics.log_determinant(1e6 * np.ones((32, 32))) == 0
    assert metrics.log_determinant(np.array([[3.0, 1.0], [1.0, 3.0]])) == pytest.approx(np.log(8))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_jacob_cov_equals_the_whole_jacobian(space: Space) -> None:
    """Of each image's own logits, with the statistics of the batch held: as evaluation with running ones of it."""
    x_BCHW, label_B = batch(count=4, side=8)
    network = network_of(space, drawn(space, 1)[0])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1
    network.train()(x_BCHW)
    network.eval()
    whole = torch.autograd.functional.jacobian(lambda x: network(x)[0], x_BCHW).sum(dim=1)
    gradient_BF = torch.stack([whole[b, b].flatten() for b in range(len(x_BCHW))]).numpy()
    v_B = np.linalg.eigvals(np.corrcoef(gradient_BF)).real
    expected = -np.sum(np.log(v_B + 1e-5) + 1 / (v_B + 1e-5))
    assert measure_network(network, x_BCHW, label_B).jacob_cov == pytest.approx(expected, rel=1e-6)


def test_all_logits_together_say_nothing_of_images_behind_a_normalisation() -> None:
    """Why the batch's statistics are held: in training mode the sum of DARTS' logits is constant, skips apart."""
    space = DartsSpace()
    operations = space.cell_space.operations
    code = tuple(
        part
        for _ in space.cell_space.kinds
        for _ in space.cell_space.inner
        for part in (0, 1, *[operations.index("sep_conv_3x3")] * 2)
    )
    network, (x_BCHW, _) = network_of(space, code), batch(side=8)
    images_BCHW = x_BCHW.requires_grad_()
    (together,) = torch.autograd.grad(network.train()(images_BCHW)[0].sum(), [images_BCHW])
    alone = metrics.image_gradients(network.eval(), x_BCHW)
    assert together.abs().max() < 1e-9 * alone.abs().max()


def test_jacob_cov_of_images_without_influence() -> None:
    """Two that count as alike, and one of its own: eigenvalues 0, 1, 2."""
    score = metrics.jacobian_score(np.array([[0.0, 0, 0], [2, 2, 2], [1, 2, 4]]))
    v = np.array([0, 1, 2]) + 1e-5
    assert score == pytest.approx(-np.sum(np.log(v) + 1 / v), rel=1e-9)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_sizes_are_those_that_counting_counts(space: Space) -> None:
    x_BCHW, label_B = batch(side=7)
    for code in drawn(space, 3):
        network = network_of(space, code)
        measured = measure_network(network, x_BCHW, label_B)
        assert measured.parameters == count_parameters(network)
        assert measured.mult_adds == multiply_adds(network, (1, 3, 7, 7))
        assert measured.row()[METRICS.index("parameters") :].tolist() == [measured.parameters, measured.mult_adds]


def test_memory_layout_makes_no_difference() -> None:
    """Even where networks have faster forms for it, which cannot be differentiated twice."""
    space = DartsSpace()
    code = drawn(space, 1)[0]
    torch.manual_seed(0)
    x_BCHW = torch.randn(6, 3, 16, 16)
    rows = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        network = space.network(code, channels=8, cells=3)
        rows.append(measure_network(network, x_BCHW.to(memory_format=layout), torch.arange(6)).row())
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)
