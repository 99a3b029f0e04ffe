"""The link model against loops over nodes, in float64; and models side by side against each alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from nge_search.design.growth import Choice, LinkGraph, Move, Rules, single
from nge_search.design.link_model import (
    LinkModel,
    LinkModelSettings,
    TrainingSettings,
    build_model,
    link_batch,
    move_scores,
    train,
)
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.design.samples import Sample

RULES = NasBench101Rules(5)
SAMPLES = [
    Sample(LinkGraph((0, 1, 2), ((0, 1), (1, 2), (0, 2))), ((1, ~3), (2, ~0), (0, ~2)), (1, 0, 0)),
    Sample(LinkGraph((0, 4, 3, 1), ((0, 1), (0, 2), (2, 3))), ((3, 1),), (1,)),
    Sample(LinkGraph((0,), ()), ((0, ~1), (0, ~3)), (0, 1)),
]


def judged_by_loops(model: LinkModel, member: int, sample: Sample, parts: tuple[LinkGraph, ...]) -> list[Tensor]:
    """Logits where new nodes stand in the graph itself, isolated, as NAL has them."""
    found = []
    for source, target in sample.links:
        part = parts[~target] if target < 0 else LinkGraph((), ())
        first = len(sample.graph.labels)
        labels = (*sample.graph.labels, *part.labels)
        links = [*sample.graph.links, *((first + u, first + v) for u, v in part.links)]
        ends = source, first if target < 0 else target
        h = []
        for direction in range(model.directions):
            turned = [(v, u) for u, v in links] if direction else links
            nodes = [model.features_LF[label] for label in labels]
            for position, layer in enumerate(model.layers):
                nodes = heard(layer, direction * model.members + member, nodes, turned)
                nodes = [node if position + 1 == len(model.layers) else node.clamp(min=0) for node in nodes]
            h.append(nodes)
        joined = torch.cat([torch.cat([nodes[end] for nodes in h]) for end in ends])
        hidden = (joined @ model.hidden_weight_MDH[member] + model.hidden_bias_MH[member]).clamp(min=0)
        found.append(hidden @ model.score_weight_MH[member] + model.score_bias_M[member])
    return found


def heard(layer, m: int, nodes: list[Tensor], links: list[tuple[int, int]]) -> list[Tensor]:
    s = [node @ layer.weight_MDF[m] for node in nodes]
    rows = []
    for i in range(len(nodes)):
        sources = [i, *(u for u, v in links if v == i)]
        score = [
            layer.heard_MF[m] @ s[j] + layer.hearing_MF[m] @ s[i] if layer.attention else s[i][0] * 0
            for j in sources
        ]
        weight = [torch.exp(torch.maximum(x, 0.2 * x)) for x in score]
        rows.append(sum(w / sum(weight) * s[j] for w, j in zip(weight, sources)) + layer.bias_MF[m])
    return rows


def built(rules: Rules = RULES, members: int = 2, **settings: bool) -> LinkModel:
    model = build_model(rules, LinkModelSettings(**settings), members, seed=1).double()
    for layer in model.layers:
        torch.nn.init.normal_(layer.bias_MF)
    return model


@pytest.mark.parametrize("settings", [{}, {"attention": False}, {"reverse": False}])
def test_logits_against_loops(settings: dict[str, bool]) -> None:
    model, chain = built(**settings), (*RULES.parts[:3], LinkGraph((1, 2, 1), ((0, 1), (1, 2))))
    for parts in (RULES.parts, chain):
        logit_MBP = model(link_batch([SAMPLES, SAMPLES[::-1]], parts))
        for m, own in enumerate([SAMPLES, SAMPLES[::-1]]):
            for b, sample in enumerate(own):
                expected = torch.stack(judged_by_loops(model, m, sample, parts))
                torch.testing.assert_close(logit_MBP[m, b, : len(expected)], expected, rtol=1e-10, atol=1e-10)


def test_sizes_are_those_of_the_paper() -> None:
    model = build_model(RULES, members=1)
    shapes = [tuple(layer.weight_MDF.shape) for layer in model.layers]
    assert shapes == [(2, 5, 16), (2, 16, 16), (2, 16, 16)]
    assert model.hidden_weight_MDH.shape == (1, 64, 32)


def test_every_weight_learns() -> None:
    model = built()
    model(link_batch([SAMPLES, SAMPLES], RULES.parts)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.flatten(1).any(dim=1).all() if parameter.dim() > 1 else parameter.grad.all(), name


def test_models_side_by_side_learn_as_each_alone() -> None:
    both, settings = built(), TrainingSettings(epochs=5, batch_size=0, learning_rate=1e-2)
    alone = built(members=1)
    second = [1, 3]  # of its two directions
    for (name, parameter), (_, source) in zip(alone.named_parameters(), both.named_parameters()):
        parameter.data = source.data[second if name.startswith("layers") else [1]].clone()
    train(both, [SAMPLES[:1], SAMPLES], RULES.parts, settings, seed=0)
    train(alone, [SAMPLES], RULES.parts, settings, seed=3)
    batch = link_batch([SAMPLES], RULES.parts)
    twice = link_batch([SAMPLES, SAMPLES], RULES.parts)
    torch.testing.assert_close(both(twice)[1], alone(batch)[0], rtol=1e-6, atol=1e-8)


def test_training_tells_good_from_bad() -> None:
    model = build_model(RULES, members=2, seed=0)
    progress = train(
        model,
        [SAMPLES, SAMPLES[:2]],
        RULES.parts,
        TrainingSettings(epochs=150, batch_size=2, learning_rate=1e-2),
        0,
    )
    assert [one.epoch for one in progress] == list(range(1, 151))
    assert progress[-1].accuracy == 1
    assert progress[-1].loss < 0.1 < progress[0].loss


def test_scores_of_moves_are_means_over_their_links() -> None:
    rules = NasBench201Rules()
    state = rules.start(6)
    for edge, choice in ((0, 3), (1, 2), (2, 1)):
        state = rules.moved(state, Move((), (edge, choice)))
    choice = Choice(rules.graph(state), rules.moves(state))
    model = built(rules)
    (first, again), (second,) = move_scores(model, rules.parts, [[choice, choice], [choice]])
    np.testing.assert_allclose(first, again)
    assert any(len(move.links) == 2 for move in choice.moves)
    for m, scores in enumerate((first, second)):
        for move, score in zip(choice.moves, scores):
            sample = Sample(choice.graph, move.links, (0,) * len(move.links))
            logits = judged_by_loops(model, m, sample, rules.parts)
            assert score == pytest.approx(float((sum(logits) / len(logits)).detach()), abs=1e-9)


def test_scores_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, state = built(), RULES.start(7)
    choices = []
    for source, target in ((0, ~1), (0, ~2), (1, ~4)):
        choices.append(Choice(RULES.graph(state), RULES.moves(state)))
        state = RULES.moved(state, Move((), (source, target)))
    at_once = move_scores(model, RULES.parts, [choices, choices[:1]])
    monkeypatch.setattr("nge_search.design.link_model._AT_ONCE", 2)
    for own, again in zip(at_once, move_scores(model, RULES.parts, [choices, choices[:1]])):
        for scores, other in itertools.zip_longest(own, again):
            np.testing.assert_allclose(scores, other)


def test_parts_are_single_nodes() -> None:
    assert RULES.parts == tuple(map(single, (1, 2, 3, 4)))
