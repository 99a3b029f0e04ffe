"""NAL's link model: how good a link from one node to another would be, by what both know of the cell so far.

Two graph attention networks, one on the graph and one with its links turned round, tell each node of the others; an
MLP judges the two ends of a link (NAL, Section 3.2, Eq. 1 to 4). A new node, or chain of nodes, that is not linked
to the cell yet hears nothing of it, and is not heard: it is computed once for all, and one pass of a cell's graph
serves all moves that there are.

Legend: M models, B graphs, V nodes of the largest, D and F features, P the most links of a graph, Q parts that
moves may add, H units of the MLP, L labels.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.design.growth import Choice, LinkGraph, Rules
from nge_search.design.samples import Sample
from nge_search.graph_attention import DenseGraphAttention

#: Graphs of one model in a pass that only judges.
_AT_ONCE = 512


@dataclass(frozen=True)
class LinkModelSettings:
    """Sizes and parts of a link model; the defaults are NAL's.

    Attributes:
        layers: of each of the two networks.
        width: features of a node behind each layer.
        hidden: H.
        attention: False: nodes hear all alike (the ablation "GCN").
        reverse: whether there is a network on the links turned round.
    """

    layers: int = 3
    width: int = 16
    hidden: int = 32
    attention: bool = True
    reverse: bool = True


@dataclass(frozen=True)
class TrainingSettings:
    """Adam by binary cross-entropy.

    NAL has a rate of 5e-4 and 200 epochs. With the rate here 40 epochs reach a lower loss than 120 with NAL's (for
    the 30 best and worst cells of up to five vertices).

    Attributes:
        epochs: passes through the samples.
        batch_size: graphs in a step; 0: all.
        learning_rate: of Adam.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 5e-3


@dataclass(frozen=True)
class Progress:
    """What an epoch reached, for each model on average: mean loss, and share of links on the right side of 0."""

    epoch: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class LinkBatch:
    """Graphs with links to judge, for each model its own.

    Attributes:
        label_MBV: labels of nodes, int64; -1: no node.
        hears_MBVV: which nodes (rows) hear which, bool.
        source_MBP: nodes that links leave, int64.
        target_MBP: nodes that they lead to, and V + k for the first node of part k, int64.
        good_MBP: 1 for good links, 0 for others.
        weight_MBP: 1 for links, 0 where a graph has fewer.
        part_label_QV, part_hears_QVV: what moves may add, the same for all models.
    """

    label_MBV: Tensor
    hears_MBVV: Tensor
    source_MBP: Tensor
    target_MBP: Tensor
    good_MBP: Tensor
    weight_MBP: Tensor
    part_label_QV: Tensor
    part_hears_QVV: Tensor

    def take(self, row_MB: Tensor) -> LinkBatch:
        """For each model some of its graphs."""
        model_M1 = torch.arange(len(row_MB))[:, None]
        own = "label_MBV", "hears_MBVV", "source_MBP", "target_MBP", "good_MBP", "weight_MBP"
        return dataclasses.replace(self, **{name: getattr(self, name)[model_M1, row_MB] for name in own})


def link_batch(samples: Sequence[Sequence[Sample]], parts: Sequence[LinkGraph]) -> LinkBatch:
    """Samples of each of M models as one batch; models with fewer have graphs without links at the end.

    Args:
        parts: what moves may add, which targets below 0 name.
    """
    shape = len(samples), max(map(len, samples))
    nodes = max(len(sample.graph.labels) for own in samples for sample in own)
    most = max(len(sample.links) for own in samples for sample in own)
    graphs = [[sample.graph for sample in own] for own in samples]
    label_MBV, hears_MBVV = _padded(graphs, shape[1], nodes)
    source_MBP, target_MBP, good_MBP, weight_MBP = (np.zeros((*shape, most), dtype=int) for _ in range(4))
    for m, own in enumerate(samples):
        for b, (_, links, good) in enumerate(own):
            count = len(links)
            source_MBP[m, b, :count] = [source for source, _ in links]
            target_MBP[m, b, :count] = [target if target >= 0 else nodes + ~target for _, target in links]
            good_MBP[m, b, :count] = good
            weight_MBP[m, b, :count] = 1
    part_label_1QV, part_hears_1QVV = _padded([parts], len(parts), max(len(part.labels) for part in parts))
    own_links = (source_MBP, target_MBP, good_MBP, weight_MBP)
    return LinkBatch(
        *map(torch.from_numpy, (label_MBV, hears_MBVV, *own_links, part_label_1QV[0], part_hears_1QVV[0]))
    )


def _padded(graphs: Sequence[Sequence[LinkGraph]], most: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of nodes, [M, B, V], and which hear which, [M, B, V, V]."""
    label_MBV = np.full((len(graphs), most, nodes), -1)
    hears_MBVV = np.zeros((len(graphs), most, nodes, nodes), dtype=bool)
    for m, own in enumerate(graphs):
        for b, (labels, links) in enumerate(own):
            label_MBV[m, b, : len(labels)] = labels
            for source, target in links:
                hears_MBVV[m, b, target, source] = True
    return label_MBV, hears_MBVV


class LinkModel(nn.Module):
    """M link models, their weights stacked; each judges graphs of its own.

    Args:
        features_LF: what is seen of each label, float32.
        members: M.
    """

    features_LF: Tensor

    def __init__(self, features_LF: np.ndarray, settings: LinkModelSettings | None = None, members: int = 1):
        super().__init__()
        self.settings, self.members = settings or LinkModelSettings(), members
        self.register_buffer("features_LF", torch.from_numpy(features_LF), persistent=False)
        sizes = [features_LF.shape[1], *[self.settings.width] * self.settings.layers]
        self.directions = 1 + self.settings.reverse
        self.layers = nn.ModuleList(
            DenseGraphAttention(before, after, members * self.directions, self.settings.attention)
            for before, after in itertools.pairwise(sizes)
        )
        ends, hidden = 2 * self.directions * self.settings.width, self.settings.hidden
        self.hidden_weight_MDH = nn.Parameter(_uniform(ends, members, ends, hidden))
        self.hidden_bias_MH = nn.Parameter(_uniform(ends, members, hidden))
        self.score_weight_MH = nn.Parameter(_uniform(hidden, members, hidden))
        self.score_bias_M = nn.Parameter(_uniform(hidden, members))

    def extra_repr(self) -> str:
        return f"members={self.members}, directions={self.directions}"

    def embedded(self, label_MBV: Tensor, hears_MBVV: Tensor) -> Tensor:
        """What each node knows, [M, B, V, directions F]: from nodes that lead to it, and from those it leads to."""
        features_LF = functional.pad(self.features_LF, (0, 0, 0, 1))  # of no node, whose label is -1: zeros
        h = features_LF[label_MBV]
        if self.settings.reverse:
            h, hears_MBVV = torch.cat([h, h]), torch.cat([hears_MBVV, hears_MBVV.transpose(2, 3)])
        for position, layer in enumerate(self.layers):
            h = layer(h, hears_MBVV)
            h = h if position + 1 == len(self.layers) else functional.relu(h)
        return torch.cat(h.split(self.members), dim=-1)

    def forward(self, batch: LinkBatch) -> Tensor:
        """The logit of each link, [M, B, P]."""
        h_MBVD = self.embedded(batch.label_MBV, batch.hears_MBVV)
        part_MQV = batch.part_label_QV.expand(self.members, -1, -1)
        part_MQVD = self.embedded(part_MQV, batch.part_hears_QVV.expand(self.members, -1, -1, -1))
        of_source_MDH, of_target_MDH = self.hidden_weight_MDH.chunk(2, dim=1)
        graphs, nodes = batch.label_MBV.shape[1:]
        source_MNH = h_MBVD.flatten(1, 2) @ of_source_MDH + self.hidden_bias_MH[:, None]
        heads_MND = torch.cat([h_MBVD.flatten(1, 2), part_MQVD[:, :, 0]], dim=1)
        target_MNH = heads_MND @ of_target_MDH
        first_B1 = torch.arange(graphs, device=h_MBVD.device)[:, None] * nodes
        new_MBP = batch.target_MBP >= nodes
        place_MBP = torch.where(new_MBP, batch.target_MBP + (graphs - 1) * nodes, batch.target_MBP + first_B1)
        hidden_MBPH = _rows(source_MNH, batch.source_MBP + first_B1) + _rows(target_MNH, place_MBP)
        scores_MBP = torch.einsum("mbph,mh->mbp", functional.relu(hidden_MBPH), self.score_weight_MH)
        return scores_MBP + self.score_bias_M[:, None, None]


def _rows(value_MNH: Tensor, row_MBP: Tensor) -> Tensor:
    """For each model the rows of its matrix, [M, B, P, H]."""
    index_MKH = row_MBP.flatten(1).unsqueeze(-1).expand(-1, -1, value_MNH.shape[-1])
    return value_MNH.gather(1, index_MKH).unflatten(1, row_MBP.shape[1:])


def _uniform(inputs: int, *shape: int) -> Tensor:
    """Initial values as PyTorch's linear layers have them."""
    return torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5)


def build_model(
    rules: Rules, settings: LinkModelSettings | None = None, members: int = 1, seed: int = 0
) -> LinkModel:
    """An untrained link model for a space's cells; `seed` decides its initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LinkModel(rules.features_LF, settings, members)


def train(
    model: LinkModel,
    samples: Sequence[Sequence[Sample]],
    parts: Sequence[LinkGraph],
    settings: TrainingSettings,
    seed: int,
    after: Callable[[Progress], None] = lambda progress: None,
) -> list[Progress]:
    """Train each of the M models on its own samples, by Adam at a constant rate; `seed` decides their order.

    Args:
        after: is called with what each epoch reached.
    """
    whole = link_batch(samples, parts)
    counts = [len(own) for own in samples]
    optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    size = settings.batch_size or max(counts)
    progress = []
    for epoch in range(1, settings.epochs + 1):
        order_MB = torch.stack([_shuffled(count, max(counts), generator) for count in counts])
        sums_3 = torch.zeros(3)
        for row_MB in order_MB.split(size, dim=1):
            part = whole.take(row_MB)
            score_MBP = model(part)
            good_MBP, weight_MBP = part.good_MBP.to(score_MBP.dtype), part.weight_MBP.to(score_MBP.dtype)
            loss_MBP = functional.binary_cross_entropy_with_logits(
                score_MBP, good_MBP, weight_MBP, reduction="none"
            )
            loss_M = loss_MBP.sum(dim=(1, 2)) / weight_MBP.sum(dim=(1, 2)).clamp(min=1)
            optimiser.zero_grad(set_to_none=True)
            loss_M.sum().backward()
            optimiser.step()
            with torch.no_grad():
                right_MBP = weight_MBP * ((score_MBP > 0) == (good_MBP > 0))
                sums_3 += torch.stack([loss_MBP.sum(), right_MBP.sum(), weight_MBP.sum()])
        loss, right, links = sums_3.tolist()
        progress.append(Progress(epoch, loss / links, right / links))
        after(progress[-1])
    return progress


def _shuffled(count: int, length: int, generator: torch.Generator) -> Tensor:
    """A random order of `count` graphs, then the empty ones that fill up."""
    return torch.cat([torch.randperm(count, generator=generator), torch.arange(count, length)])


@torch.no_grad()
def move_scores(
    model: LinkModel, parts: Sequence[LinkGraph], choices: Sequence[Sequence[Choice]]
) -> list[list[np.ndarray]]:
    """For each of M models, and each of its choices, the logit of each move: the mean of those of its links."""
    found: list[list[np.ndarray]] = [[] for _ in choices]
    for first in range(0, max(map(len, choices)), _AT_ONCE):
        now = [own[first : first + _AT_ONCE] for own in choices]
        samples = [[_to_judge(choice) for choice in own] for own in now]
        logit_MBP = model(link_batch(samples, parts)).double().numpy()
        for m, own in enumerate(now):
            for b, choice in enumerate(own):
                counts = [len(move.links) for move in choice.moves]
                starts = np.cumsum([0, *counts[:-1]])
                found[m].append(np.add.reduceat(logit_MBP[m, b, : sum(counts)], starts) / counts)
    return found


def _to_judge(choice: Choice) -> Sample:
    links = tuple(link for move in choice.moves for link in move.links)
    return Sample(choice.graph, links, (0,) * len(links))
