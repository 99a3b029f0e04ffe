"""NGE against an independent NumPy transcription of the paper's equations, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding import build_embedding, propagation_matrix
from nge_search.settings.embedding import EmbeddingSection

SPACE = CellSpace()


def numpy_adjacency(kind: str, vertices: int) -> np.ndarray:
    """A_hat as FACTS words it, element by element."""
    a = np.zeros((vertices, vertices))
    for i in range(vertices):
        for j in range(vertices):
            if kind == "predecessors" and i >= 2 and j < i:
                a[i, j] = 1.0 / (i + 1)
            if kind == "printed" and i >= 2 and i < j:
                a[i, j] = 1.0 / (i + 1)
            if kind == "symmetric" and i != j and max(i, j) >= 2:
                a[i, j] = 1.0
            if i == j:
                a[i, j] += 1.0
    if kind == "symmetric":
        degree = a.sum(axis=1)
        return a / np.sqrt(np.outer(degree, degree))
    return a


def numpy_nge(state: dict[str, np.ndarray], cell: str, layers: str, adjacency: str, space: CellSpace) -> np.ndarray:
    """Eq. 5-10, loops and all: P [edges, operations]."""
    h = state[f"x_{cell}"]
    a_hat = numpy_adjacency(adjacency, space.nodes + 2)
    depth = 0
    while f"{layers}.convolutions.{depth}.weight" in state:
        h = np.maximum(a_hat @ h @ state[f"{layers}.convolutions.{depth}.weight"].T, 0)
        depth += 1
    rows = []
    for k in range(2, space.nodes + 2):
        for i in range(k):
            pair = np.concatenate([h[i], h[k]])
            hidden = np.maximum(state[f"{layers}.head.hidden.weight"] @ pair, 0)
            edge = state[f"{layers}.head.embed.weight"] @ hidden
            logits = state[f"{layers}.head.classify.weight"] @ edge
            exponentials = np.exp(logits - logits.max())
            rows.append(exponentials / exponentials.sum())
    return np.array(rows)


def numpy_state(embedding: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in embedding.state_dict().items()}


@pytest.mark.parametrize("adjacency", ["predecessors", "printed", "symmetric"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("space", [SPACE, CellSpace(2, SPACE.operations[:3]), CellSpace(5)])
def test_matches_the_equations(adjacency, shared, space):
    torch.manual_seed(3)
    embedding = build_embedding(EmbeddingSection(adjacency=adjacency, shared=shared), space).double()
    with torch.no_grad():
        for x in embedding.node_vectors():
            x += 0.3 * torch.randn_like(x)
    state = numpy_state(embedding)
    for position, (kind, p_EO) in enumerate(zip(space.kinds, embedding())):
        layers = "layers.0" if shared else f"layers.{position}"
        expected = numpy_nge(state, kind, layers, adjacency, space)
        np.testing.assert_allclose(p_EO.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_messages_run_from_earlier_to_later_nodes():
    """Changing X of a node moves the embedding of itself and later nodes alone (a fault seen elsewhere)."""
    a_hat = propagation_matrix(SPACE, "predecessors")
    assert torch.equal(a_hat, a_hat.tril())
    assert torch.allclose(a_hat[2:].sum(dim=1), torch.tensor([1 + 2 / 3, 1 + 3 / 4, 1 + 4 / 5, 1 + 5 / 6]).double())
    printed = propagation_matrix(SPACE, "printed")
    assert torch.equal(printed, printed.triu())


@pytest.mark.parametrize("kind", ["nge", "plain", "rnn", "direct"])
def test_gradients_equal_finite_differences(kind):
    torch.manual_seed(1)
    space = CellSpace(2, SPACE.operations[:3])
    sizes = {"input_dim": 5, "hidden_dim": 7, "output_dim": 6, "edge_dim": 4}
    embedding = build_embedding(EmbeddingSection(kind=kind, **sizes), space).double()
    targets = [torch.randn(space.shape, dtype=torch.float64) for _ in space.kinds]

    def loss() -> torch.Tensor:
        return sum((target * p_EO).sum() for target, p_EO in zip(targets, embedding()))

    loss().backward()
    step = 1e-6
    for parameter in embedding.parameters():
        numeric = torch.zeros_like(parameter)
        with torch.no_grad():
            for index in range(parameter.numel()):
                entry = parameter.view(-1)[index]
                before = entry.item()
                parameter.view(-1)[index] = before + step
                above = loss()
                parameter.view(-1)[index] = before - step
                numeric.view(-1)[index] = (above - loss()) / (2 * step)
                parameter.view(-1)[index] = before
        torch.testing.assert_close(parameter.grad, numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["nge", "plain", "rnn", "direct"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_parameter_receives_a_gradient(kind, shared):
    torch.manual_seed(0)
    embedding = build_embedding(EmbeddingSection(kind=kind, shared=shared), SPACE)
    sum((torch.randn(SPACE.shape) * p_EO).sum() for p_EO in embedding()).backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["nge", "plain", "rnn", "direct"])
def test_rows_are_distributions_that_can_reach_certainty(kind):
    """A softmax applied twice could never give an operation more than 0.312 (a fault seen elsewhere)."""
    torch.manual_seed(0)
    embedding = build_embedding(EmbeddingSection(kind=kind), SPACE)
    with torch.no_grad():
        for name, parameter in embedding.named_parameters():
            if "classify" in name or "alpha" in name:
                parameter.normal_(std=100)
    for p_EO in embedding():
        torch.testing.assert_close(p_EO.sum(dim=1), torch.ones(len(SPACE.edges)))
        assert p_EO.max() > 0.99


def test_dead_share_counts_units_that_never_fire():
    torch.manual_seed(0)
    embedding = build_embedding(EmbeddingSection(), SPACE)
    units = 128 + 128 + 64 + 64
    with torch.no_grad():
        for convolution in embedding.layers[0].convolutions:
            convolution.weight.abs_()
        for x in embedding.node_vectors():
            x.abs_()
        embedding.layers[0].head.hidden.weight.abs_()
        assert embedding.dead_share() == 0
        embedding.layers[0].convolutions[2].weight[:10].neg_()
        embedding.layers[0].head.hidden.weight[:5].neg_()
        assert embedding.dead_share() == pytest.approx(15 / units)


def test_initial_values_follow_the_options():
    torch.manual_seed(0)
    he = build_embedding(EmbeddingSection(), SPACE)
    assert torch.equal(he.x_normal, torch.eye(6, 64))
    for weight in (he.layers[0].convolutions[1].weight, he.layers[0].head.hidden.weight):
        assert weight.std().item() == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.05)
    normal = build_embedding(EmbeddingSection(initialisation="normal", init_std=0.03), SPACE)
    assert normal.layers[0].convolutions[1].weight.std().item() == pytest.approx(0.03, rel=0.05)


def test_double_precision_is_not_rounded_through_single():
    embedding = build_embedding(EmbeddingSection(), SPACE).double()
    assert torch.equal(embedding.layers[0].a_VV, propagation_matrix(SPACE, "predecessors"))
