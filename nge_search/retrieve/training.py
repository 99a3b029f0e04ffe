"""How encoders of graphs are trained: the published two stages, and on views of graphs without any label.

The defaults are NAR's (Pei et al., 2024, Table 5).

Legend: B graphs of a batch, N nodes, M motifs, C families, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nge_search.errors import RunFailure, UserError
from nge_search.graph_nn import SparseBatch
from nge_search.retrieve.contrast import context_loss, family_loss, pair_loss
from nge_search.retrieve.encoders import (
    GraphEncoder,
    LabelNumbers,
    MotifTable,
    batch_of_graphs,
    batch_of_macro_graphs,
    batch_of_parts,
)
from nge_search.retrieve.motifs import Motifs
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.views import random_view

#: Called after each epoch with its number, from 1, and its mean loss.
Tell = Callable[[int, float], None]


@dataclass(frozen=True)
class MotifTraining:
    """The first stage: motifs and their contexts (Eq. 4).

    Attributes:
        hops: how far a context reaches.
        clip: largest norm of a gradient; the published rate is high for layers so wide.
    """

    epochs: int = 5
    batch_size: int = 256
    learning_rate: float = 1e-2
    temperature: float = 1.0
    hops: int = 1
    clip: float = 1.0


@dataclass(frozen=True)
class GraphTraining:
    """The second stage, and that of encoders of whole graphs: families (Eq. 5 and 6).

    Attributes:
        contrast, classify: which terms the loss has; at least one.
    """

    epochs: int = 15
    batch_size: int = 512
    learning_rate: float = 1e-3
    temperature: float = 1.0
    contrast: bool = True
    classify: bool = True
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not (self.contrast or self.classify):
            raise UserError("training on families needs a loss: contrast, classify, or both")


@dataclass(frozen=True)
class ViewTraining:
    """On two views of every graph, which are to be found by each other; no label is seen.

    Attributes:
        least_share: of a graph's nodes in a view.
        most_repetitions: how many repetitions of a block are taken out at most.
    """

    epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 1e-3
    temperature: float = 0.1
    least_share: float = 0.5
    most_repetitions: int = 3
    clip: float = 1.0


class GraphInputs(Protocol):
    """Graphs as an encoder takes them."""

    def __len__(self) -> int: ...

    def nodes(self, position: int) -> int:
        """How many one of them has."""
        ...

    def batch(self, positions: Sequence[int]) -> tuple[SparseBatch, Tensor | None]:
        """Some of them, and the features of their nodes (None: labels)."""
        ...


class WholeGraphs:
    """Graphs as they are, for encoders of labels."""

    def __init__(self, graphs: Sequence[OrderedGraph], labels: LabelNumbers, normalised: bool = True):
        self.graphs, self.labels, self.normalised = graphs, labels, normalised

    def __len__(self) -> int:
        return len(self.graphs)

    def nodes(self, position: int) -> int:
        return len(self.graphs[position])

    def batch(self, positions: Sequence[int]) -> tuple[SparseBatch, Tensor | None]:
        return batch_of_graphs([self.graphs[i] for i in positions], self.labels, self.normalised), None


class MacroGraphs:
    """Graphs of motifs, whose features another encoder has made."""

    def __init__(self, divided: Sequence[Motifs], table: MotifTable, normalised: bool = True):
        self.divided, self.table, self.normalised = divided, table, normalised

    def __len__(self) -> int:
        return len(self.divided)

    def nodes(self, position: int) -> int:
        return len(self.divided[position])

    def batch(self, positions: Sequence[int]) -> tuple[SparseBatch, Tensor | None]:
        chosen = [self.divided[i] for i in positions]
        return batch_of_macro_graphs(chosen, self.normalised), self.table(chosen)


def train_on_contexts(
    motif_encoder: GraphEncoder,
    context_encoder: GraphEncoder,
    divided: Sequence[Motifs],
    labels: LabelNumbers,
    settings: MotifTraining,
    seed: int,
    tell: Tell | None = None,
) -> None:
    """F_s and F_c on all distinct motifs with their distinct contexts."""
    distinct: dict[tuple[int, int], tuple[Motifs, int]] = {}
    for motifs in divided:
        for motif, names in enumerate(zip(motifs.content_M.tolist(), motifs.context_M.tolist())):
            distinct.setdefault(names, (motifs, motif))
    contents = np.array([content for content, _ in distinct], np.uint64).view(np.int64)
    content_M, chosen = torch.from_numpy(contents), list(distinct.values())
    device = next(motif_encoder.parameters()).device

    def loss(positions: Tensor) -> Tensor:
        pairs = [chosen[i] for i in positions.tolist()]
        own = batch_of_parts([(m.graph, m.part(i)) for m, i in pairs], labels, motif_encoder.normalised)
        around = [(m.graph, m.context(i, settings.hops)) for m, i in pairs]
        contexts = batch_of_parts(around, labels, context_encoder.normalised)
        content_B = content_M[positions].to(device)
        found = motif_encoder(own.to(device)), context_encoder(contexts.to(device))
        return context_loss(*found, content_B, settings.temperature)

    _train((motif_encoder, context_encoder), len(chosen), loss, settings, seed, tell)


def train_on_families(
    encoder: GraphEncoder,
    inputs: GraphInputs,
    families: Sequence[str],
    settings: GraphTraining,
    seed: int,
    tell: Tell | None = None,
) -> nn.Linear | None:
    """F_m, or an encoder of whole graphs. Gives the head that tells families apart, which retrieval leaves out."""
    names = sorted(set(families))
    number = {name: i for i, name in enumerate(names)}
    family_N = torch.tensor([number[name] for name in families])
    device = next(encoder.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(encoder.width, len(names)).to(device) if settings.classify else None

    def loss(positions: Tensor) -> Tensor:
        h_BF, family_B = encoded(encoder, inputs, positions.tolist()), family_N[positions].to(device)
        total = family_loss(h_BF, family_B, settings.temperature) if settings.contrast else h_BF.sum() * 0
        return total if head is None else total + functional.cross_entropy(head(h_BF), family_B)

    _train((encoder, *([head] if head is not None else [])), len(inputs), loss, settings, seed, tell)
    return head


def train_on_views(
    encoder: GraphEncoder,
    graphs: Sequence[OrderedGraph],
    labels: LabelNumbers,
    settings: ViewTraining,
    seed: int,
    tell: Tell | None = None,
) -> None:
    """An encoder of whole graphs, from the graphs alone."""
    views = np.random.default_rng(seed)
    device = next(encoder.parameters()).device

    def view(graph: OrderedGraph) -> OrderedGraph:
        return random_view(graph, settings.least_share, settings.most_repetitions, views)

    def loss(positions: Tensor) -> Tensor:
        chosen = [graphs[i] for i in positions.tolist()]
        first, second = (
            encoder(batch_of_graphs([view(graph) for graph in chosen], labels, encoder.normalised).to(device))
            for _ in range(2)
        )
        return pair_loss(first, second, settings.temperature)

    _train((encoder,), len(graphs), loss, settings, seed, tell)


@torch.no_grad()
def embeddings(encoder: GraphEncoder, inputs: GraphInputs, most_nodes: int = 20_000) -> np.ndarray:
    """Of all graphs, float32 [N, F]; `most_nodes` at once, but at least a graph."""
    encoder.eval()
    if not len(inputs):
        return np.zeros((0, encoder.width), np.float32)
    return encoded(encoder, inputs, range(len(inputs)), most_nodes).cpu().numpy()


def encoded(
    encoder: GraphEncoder, inputs: GraphInputs, positions: Sequence[int], most_nodes: int = 100_000
) -> Tensor:
    """Embeddings of some graphs [B, F], at most `most_nodes` at once, but at least a graph.

    Where they do not fit at once, what is needed for gradients is computed again on the way back, so that memory
    stays that of one part (Chen et al., 2016).
    """
    device = next(encoder.parameters()).device
    groups = _groups(inputs, positions, most_nodes)
    parts = []
    for group in groups:
        batch, x_ND = inputs.batch(group)
        given = batch.to(device), None if x_ND is None else x_ND.to(device)
        parts.append(encoder(*given) if len(groups) == 1 else checkpoint(encoder, *given, use_reentrant=False))
    return torch.cat(parts)


def _groups(inputs: GraphInputs, positions: Sequence[int], most_nodes: int) -> list[list[int]]:
    """The positions in their order, in as few parts as have at most so many nodes, or one graph."""
    groups: list[list[int]] = []
    total = 0
    for position in positions:
        count = inputs.nodes(position)
        if not groups or total + count > most_nodes:
            groups.append([])
            total = 0
        groups[-1].append(position)
        total += count
    return groups


def _train(
    modules: Iterable[nn.Module],
    count: int,
    loss: Callable[[Tensor], Tensor],
    settings: MotifTraining | GraphTraining | ViewTraining,
    seed: int,
    tell: Tell | None,
) -> None:
    """Adam over shuffled batches; `seed` decides their order and dropout.

    Raises:
        RunFailure: the loss is no longer finite.
    """
    modules = list(modules)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimiser = torch.optim.Adam(parameters, settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(1, settings.epochs + 1):
            losses = []
            for positions_B in torch.randperm(count, generator=generator).split(settings.batch_size):
                value = loss(positions_B)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(parameters, settings.clip)
                optimiser.step()
                losses.append(value.detach())
            mean = float(torch.stack(losses).mean())
            if not np.isfinite(mean):
                raise RunFailure(f"the loss of epoch {epoch} is {mean}; lower the learning rate")
            if tell is not None:
                tell(epoch, mean)
