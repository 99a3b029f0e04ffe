"""Ways to tell edges apart: against NumPy, what they do not see, where they start, and weights of edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding import EdgeWeights, build_embedding
from nge_search.embedding.base import split_rows
from nge_search.settings.embedding import EmbeddingSection

SPACE = CellSpace(3, CellSpace().operations[:4])
SIZES = {"input_dim": 6, "hidden_dim": 7, "output_dim": 5, "edge_dim": 4}


def settings(**more) -> EmbeddingSection:
    return EmbeddingSection(**{**SIZES, **more})


def moved(config: EmbeddingSection, seed: int = 0) -> torch.nn.Module:
    """An embedding in float64 whose parameters have all left their initial values."""
    torch.manual_seed(seed)
    embedding = build_embedding(config, SPACE).double()
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return embedding


def rms(values: np.ndarray) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in values.flat) / values.size)


def numpy_head(state: dict[str, np.ndarray], z: np.ndarray, split: bool) -> np.ndarray:
    """P row by row, from vectors of the vertices."""
    vectors = []
    for target in SPACE.inner:
        for source in range(target):
            pair = np.concatenate([z[source], z[target]])
            hidden = np.maximum(state["layers.0.head.hidden.weight"] @ pair, 0)
            vectors.append(state["layers.0.head.embed.weight"] @ hidden)
    if split:
        mean = sum(vectors) / len(vectors)
        apart = np.array([vector - mean for vector in vectors])
        vectors = [np.concatenate([mean / rms(mean), row / rms(apart)]) for row in apart]
    exponentials = [np.exp(state["layers.0.head.classify.weight"] @ vector) for vector in vectors]
    return np.array([row / row.sum() for row in exponentials])


@pytest.mark.parametrize("edges", ["printed", "split"])
@pytest.mark.parametrize("jumping", [False, True])
@pytest.mark.parametrize("kind", ["nge", "rnn", "plain"])
def test_matches_the_equations(kind, edges, jumping):
    embedding = moved(settings(kind=kind, edges=edges, jumping=jumping))
    state = {name: tensor.detach().numpy() for name, tensor in embedding.state_dict().items()}
    for name, p_EO in zip(SPACE.kinds, embedding()):
        x = state[f"x_{name}"]
        z = embedding.layers[0].propagate(torch.from_numpy(x))[0].detach().numpy()
        if jumping and kind != "plain":  # whose vectors are X itself
            z = np.array([np.concatenate(pair) for pair in zip(z, x)])
        expected = numpy_head(state, z, edges == "split")
        np.testing.assert_allclose(p_EO.detach().numpy(), expected, rtol=0, atol=1e-9)


def test_a_split_sees_neither_the_size_of_vectors_nor_who_is_first():
    generator = torch.Generator().manual_seed(0)
    v_EK = torch.randn(9, 5, generator=generator, dtype=torch.float64) + 3
    parts_EF = split_rows(v_EK)
    common_EK, own_EK = parts_EF.split(5, dim=1)
    for part_EK in (common_EK, own_EK):
        assert float(part_EK.square().mean().sqrt()) == pytest.approx(1, rel=1e-9)
    assert torch.equal(common_EK, common_EK[:1].expand(9, 5))
    torch.testing.assert_close(own_EK.sum(dim=0), torch.zeros(5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(split_rows(1e3 * v_EK), parts_EF, rtol=1e-9, atol=1e-9)
    order = torch.randperm(9, generator=generator)
    torch.testing.assert_close(split_rows(v_EK[order]), parts_EF[order], rtol=1e-12, atol=1e-12)
    shift_K = torch.randn(5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(split_rows(v_EK + shift_K)[:, 5:], own_EK, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(split_rows(v_EK + shift_K)[:, :5], common_EK)
    nearly_EK = 1 + 1e-3 * torch.randn(
        9, 5, generator=generator, dtype=torch.float64
    )  # as graph convolutions leave
    cosine = torch.nn.functional.cosine_similarity
    assert float(cosine(nearly_EK[0], nearly_EK[1], dim=0)) > 0.999
    assert float(cosine(*split_rows(nearly_EK)[:2], dim=0)) < 0.9


def test_a_split_of_equal_rows_is_finite_and_so_is_its_gradient():
    v_EK = torch.zeros(4, 3, requires_grad=True)
    split_rows(v_EK).sum().backward()
    assert torch.equal(split_rows(v_EK), torch.zeros(4, 6))
    assert v_EK.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["nge", "rnn", "plain", "direct"])
def test_who_starts_uniform(kind):
    """And nothing else starts otherwise than without."""
    for more in ({"edges": "split"}, {"uniform_start": True}):
        torch.manual_seed(0)
        embedding = build_embedding(settings(kind=kind, **more), SPACE)
        if kind != "direct" or "uniform_start" in more:
            for p_EO in embedding():
                torch.testing.assert_close(p_EO, torch.full_like(p_EO, 0.25), rtol=0, atol=0)
        torch.manual_seed(0)
        printed = dict(build_embedding(settings(kind=kind), SPACE).named_parameters())
        same = {name for name, own in embedding.named_parameters() if torch.equal(own, printed[name])}
        left = {"layers.0.head.classify.weight"} if kind != "direct" else set(printed)
        assert set(printed) - same == (left if kind != "direct" or "uniform_start" in more else set())


@pytest.mark.parametrize("kind", ["nge", "rnn"])
def test_gradients_equal_finite_differences(kind):
    embedding = moved(settings(kind=kind, edges="split", jumping=True), seed=1)
    targets = [torch.randn(SPACE.shape, dtype=torch.float64) for _ in SPACE.kinds]

    def loss() -> torch.Tensor:
        return sum((target * p_EO).sum() for target, p_EO in zip(targets, embedding()))

    loss().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter += 1e-6 * direction
            above = float(loss())
            parameter -= 2e-6 * direction
            slope = (above - float(loss())) / 2e-6
            parameter += 1e-6 * direction
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_a_split_moves_one_edge_without_the_others():
    """A loss that asks one edge for another operation than all others: what the printed form takes long for."""
    steps = {}
    for edges in ("printed", "split"):
        torch.manual_seed(0)
        embedding = build_embedding(EmbeddingSection(edges=edges, uniform_start=True), CellSpace())
        optimiser = torch.optim.Adam(embedding.parameters(), lr=6e-4, betas=(0.5, 0.999))
        wanted = torch.ones(14, dtype=torch.int64)
        wanted[5] = 3
        for step in range(300):  # noqa: B007 - told below
            matrices = embedding()
            if all(torch.equal(p_EO.argmax(dim=1), wanted) for p_EO in matrices):
                break
            loss = sum(torch.nn.functional.nll_loss(p_EO.log(), wanted) for p_EO in matrices)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        steps[edges] = step
    assert steps["split"] < 0.6 * steps["printed"]


def test_weights_of_edges_are_a_softmax_for_each_node():
    module = EdgeWeights(SPACE).double()
    for own in module():
        even = [1 / target for _, target in SPACE.edges]
        torch.testing.assert_close(own, torch.tensor(even, dtype=torch.float64))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    for name, own_E in zip(module.names, module()):
        weights_E = own_E.detach()
        logits = module.get_parameter(name).tolist()
        for edge, (_, target) in enumerate(SPACE.edges):
            into = [math.exp(x) for x, (_, other) in zip(logits, SPACE.edges) if other == target]
            assert float(weights_E[edge]) == pytest.approx(math.exp(logits[edge]) / sum(into), rel=1e-12)
