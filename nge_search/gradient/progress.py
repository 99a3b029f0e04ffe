"""What a search shows of itself after each epoch: figures for metrics.jsonl, curves and a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.architecture.graph import PLAIN, Graph
from nge_search.gradient.architecture import ArchitectureOptimiser
from nge_search.gradient.cost import ExpectedCost
from nge_search.gradient.target import SizeTarget
from nge_search.operation_registry import is_parameter_free
from nge_search.settings.search import SearchConfig
from nge_search.spaces import EdgeSpace


def _is_free(operation: str) -> bool:
    """Whether it has no weights, in whatever space."""
    return operation == "none" or is_parameter_free(operation)


def mean_entropy(p_EO: Tensor) -> float:
    """The mean over edges of the entropy of P's rows, in nats: log(operations) when undecided, 0 when settled."""
    return float(torch.special.entr(p_EO.double()).sum(dim=1).mean())


def parameter_free_share(cell: Graph, count: int) -> float:
    """Which part of a cell's `count` operations are skips, pools and `none`: near 1, the search has collapsed."""
    weighted = sum(edge.label != PLAIN and not _is_free(edge.label.name) for edge in cell.edges)
    return (count - weighted) / count


@torch.no_grad()
def epoch_figures(
    architecture: ArchitectureOptimiser,
    strengths: Sequence[Tensor],
    space: EdgeSpace,
    cost: ExpectedCost,
    config: SearchConfig,
    target: SizeTarget | None = None,
) -> dict[str, Any]:
    """P, weights of edges, what `strengths` derive, and how healthy the embedding is. Read back to the host."""
    matrices = [p_EO.double().cpu() for p_EO in architecture.probabilities()]
    embedding = architecture.embedding
    provenance = {
        "method": f"{config.embedding.kind} {config.search.loop}",
        "dataset": config.data.name,
        "seed": config.seed,
    }
    strengths = [x_EO.double().cpu() for x_EO in strengths]
    derived, graph = (target or space).derive(strengths, provenance), space.cell_space
    free = [_is_free(name) for name in graph.operations]
    figures: dict[str, Any] = {"operations": list(graph.operations), "edges": [list(edge) for edge in graph.edges]}
    for kind, p_EO in zip(graph.kinds, matrices):
        figures[f"p_{kind}"] = p_EO.tolist()
        figures[f"entropy_{kind}"] = mean_entropy(p_EO)
        figures[f"parameter_free_{kind}"] = float(p_EO[:, free].sum(dim=1).mean())
        figures[f"parameter_free_derived_{kind}"] = parameter_free_share(derived.graphs[kind], space.kept)
    if architecture.edge_weights is not None:
        for kind, weights_E in zip(graph.kinds, architecture.edge_weights()):
            figures[f"edge_weights_{kind}"] = weights_E.double().tolist()
    figures["dead_units"] = float(embedding.dead_share())
    figures["norms"] = {name: float(parameter.norm()) for name, parameter in embedding.named_parameters()}
    figures["expected_macs"] = cost.expected(*matrices)
    figures["genotype"] = derived.document
    if target is not None:
        figures.update(target.figures(strengths, derived))
    return figures


TAGS = {
    "train_loss": "loss/train",
    "architecture_loss": "loss/architecture",
    "valid_loss": "loss/valid",
    "train_top1": "top1/train",
    "architecture_top1": "top1/architecture",
    "valid_top1": "top1/valid",
    "learning_rate": "learning_rate/weights",
    "embedding_learning_rate": "learning_rate/embedding",
    "dead_units": "embedding/dead_units",
    "expected_macs": "architecture/expected_macs",
    "expected_latency": "architecture/expected_latency",
    "target_size": "architecture/target_size",
    "target_size_of_p": "architecture/target_size_of_p",
    "target_multiplier": "architecture/target_multiplier",
}
_OF_KINDS = ("entropy", "parameter_free", "parameter_free_derived")


def describe_epoch(row: dict[str, Any], space: EdgeSpace) -> str:
    """A row of metrics.jsonl, for the console."""
    words = []
    for figure, label, unit in (
        ("train_loss", "train loss", ""),
        ("architecture_loss", "architecture loss", ""),
        ("valid_top1", "validation top-1", " %"),
        (f"entropy_{space.cell_space.kinds[0]}", "entropy", " nats"),
    ):
        if figure in row:
            words.append(f"{label} {row[figure]:.4g}{unit}")
    if "stopped" in row:
        words.append(row["stopped"])
    return ", ".join(words)


def more_scalars(row: dict[str, Any], space: EdgeSpace) -> dict[str, float]:
    """What TensorBoard shows of a row besides `TAGS`: norms of the embedding, every probability and its entropy."""
    scalars = {f"embedding/norm/{name}": value for name, value in row["norms"].items()}
    for kind in space.cell_space.kinds:
        scalars.update({f"architecture/{figure}_{kind}": row[f"{figure}_{kind}"] for figure in _OF_KINDS})
        for (source, target), p_O in zip(row["edges"], row[f"p_{kind}"]):
            for name, p in zip(row["operations"], p_O):
                scalars[f"p_{kind}/{source}-{target}/{name}"] = p
    return scalars
