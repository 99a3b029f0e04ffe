"""What a link model learns from: links that good cells have, and links that bad ones have or good ones lack.

Legend: N architectures, K of the best and of the worst.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nge_search.architecture.graph import INPUT, OUTPUT
from nge_search.design.growth import Link, LinkGraph, Rules
from nge_search.errors import UserError
from nge_search.settings.names import SAMPLES
from nge_search.spaces import Code


class Sample(NamedTuple):
    """A cell in the making, and links to it.

    Attributes:
        graph: the cell.
        links: (source, target); a target below 0 is the first node of a part, as in `growth.Move`.
        labels: for each link 1 if it is good, 0 if not.
    """

    graph: LinkGraph
    links: tuple[Link, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made.

    Attributes:
        construction: "grown", "paper" or "common"; see `build_samples`.
        kept: "paper": the share of disassembly's states that are taken.
        ways: "grown": how many times each cell grows.
        negatives: "grown": of a state of a good cell the largest number of moves that are negatives.
        worst: "grown": whether the links of bad cells are negatives, too.
    """

    construction: str = "grown"
    kept: float = 0.5
    ways: int = 1
    negatives: int = 9
    worst: bool = True


def choose_cells(
    rules: Rules, codes: Sequence[Code], label_N: np.ndarray, count: int, lowest: float = 0.0
) -> tuple[list[Code], list[Code]]:
    """The K best and the K worst of labelled cells, from the extremes inward; of those that are one cell, one.

    Cells through which no path leads are none. Those of equal labels count in the order in which they are given.

    Args:
        label_N: accuracies in percent.
        count: K.
        lowest: cells of lower accuracy are not among the worst: failed trainings, for instance.

    Raises:
        UserError: fewer than 2 K cells, labels that are not finite, or all equal.
    """
    label_N = np.asarray(label_N, dtype=float)
    if len(codes) != len(label_N):
        raise UserError(f"{len(codes)} architectures with {len(label_N)} accuracies: one for each is needed")
    if not np.isfinite(label_N).all():
        raise UserError("an accuracy is not finite; leave out architectures without one")
    if count < 1:
        raise UserError(f"the {count} best and worst architectures: take at least 1 of each")
    falling = distinct_cells(rules, codes, np.argsort(-label_N, kind="stable").tolist())
    rising = distinct_cells(rules, codes, np.argsort(label_N, kind="stable").tolist())
    good = falling[:count]
    taken = {rules.key(codes[row]) for row in good}
    bad = [row for row in rising if label_N[row] >= lowest and rules.key(codes[row]) not in taken][:count]
    if len(good) < count or len(bad) < count:
        raise UserError(
            f"{len(falling)} different architectures of {rules.space.name}, of which {len(bad)} can be the worst: "
            f"too few for the {count} best and the {count} worst; take fewer of each, or give more"
        )
    if label_N[good[-1]] <= label_N[bad[-1]]:
        raise UserError(
            f"the {count} best architectures are not all better than the {count} worst; take fewer of each"
        )
    return [codes[row] for row in good], [codes[row] for row in bad]


def distinct_cells(rules: Rules, codes: Sequence[Code], rows: Iterable[int]) -> list[int]:
    """The first of the rows of each cell; those of cells through which no path leads are left out."""
    found: dict[bytes, int] = {}
    for row in rows:
        key = rules.key(codes[row])
        if key not in found and rules.graphs(codes[row]):
            found[key] = row
    return list(found.values())


def build_samples(
    rules: Rules, good: Sequence[Code], bad: Sequence[Code], settings: SampleSettings, random: np.random.Generator
) -> list[Sample]:
    """Samples from good and bad cells.

    * "paper" (NAL, Section 3.1). Positives: each link of a good cell, taken out; and links that are taken out one
      after the other until one is left, of which a share is kept, judged by the graph behind. Negatives: the same
      of bad cells, and links that good cells lack, whole ones and those on the way; at most as many as there are
      positives.
    * "common": positives only from whole good cells, negatives only links that those lack.
    * "grown": good cells are built up in a random order in which each link leaves what is there. In each state
      the moves that lead on to the cell are positives, and others that a generator would have are negatives;
      and so are the links by which bad cells grow.
    """
    if settings.construction not in SAMPLES:
        raise UserError(f"samples are {', '.join(SAMPLES)}, not '{settings.construction}'")
    if settings.construction == "grown":
        return _grown_samples(rules, good, bad, settings, random)
    positives, negatives, absent = [], [], []
    for graph in (graph for code in good for graph in rules.graphs(code)):
        lacking = absent_links(rules, graph)
        positives += taken_out(graph)
        absent += [Sample(graph, (link,), (0,)) for link in lacking]
        if settings.construction == "paper":
            steps, on_the_way = disassembled(rules, graph, random, lacking)
            positives += _share(steps, settings.kept, random)
            absent += on_the_way
    for graph in (graph for code in bad for graph in rules.graphs(code)):
        if settings.construction == "paper":
            steps, _ = disassembled(rules, graph, random)
            negatives += taken_out(graph) + _share(steps, settings.kept, random)
    negatives = [sample._replace(labels=(0,)) for sample in negatives] + absent
    chosen = random.permutation(len(negatives))[: len(positives)].tolist()
    return positives + [negatives[position] for position in sorted(chosen)]


def _grown_samples(
    rules: Rules, good: Sequence[Code], bad: Sequence[Code], settings: SampleSettings, random: np.random.Generator
) -> list[Sample]:
    samples = []
    for code in [*good] * settings.ways:
        for stage in rules.grown(code, random):
            others = [position for position in range(len(stage.moves)) if position not in stage.good]
            drawn = random.permutation(len(others))[: settings.negatives].tolist()
            taken = [stage.chosen, *(others[position] for position in sorted(drawn))]
            links = [(link, position == stage.chosen) for position in taken for link in stage.moves[position].links]
            samples.append(_sample(rules.graph(stage.state), links))
    for code in [*bad] * settings.ways if settings.worst else []:
        for stage in rules.grown(code, random):
            links = [(link, False) for link in stage.moves[stage.chosen].links]
            samples.append(_sample(rules.graph(stage.state), links))
    return samples


def _sample(graph: LinkGraph, links: Sequence[tuple[Link, bool]]) -> Sample:
    return Sample(graph, tuple(link for link, _ in links), tuple(int(label) for _, label in links))


def taken_out(graph: LinkGraph) -> list[Sample]:
    """For each link of a cell a positive: the cell without it."""
    return [
        Sample(LinkGraph(graph.labels, tuple(other for other in graph.links if other != link)), (link,), (1,))
        for link in graph.links
    ]


def disassembled(
    rules: Rules, graph: LinkGraph, random: np.random.Generator, lacking: Sequence[Link] = ()
) -> tuple[list[Sample], list[Sample]]:
    """A cell taken apart: positives for links that are taken out one after the other, until one is left.

    Nodes without links are dropped, but for inputs and the ends of the link that was just taken out.

    Args:
        lacking: links that the cell does not have.

    Returns:
        The positives, and a negative for each of the lacking links in each state that holds both its ends.
    """
    order = random.permutation(len(graph.links))[: len(graph.links) - 1].tolist()
    positives, negatives, left = [], [], list(graph.links)
    for position in order:
        link = graph.links[position]
        left.remove(link)
        kept = {*link, *itertools.chain(*left)}
        kept |= {node for node, label in enumerate(graph.labels) if rules.labels[label] == INPUT}
        place = {node: position for position, node in enumerate(sorted(kept))}
        links = tuple((place[source], place[target]) for source, target in left)
        state = LinkGraph(tuple(graph.labels[node] for node in sorted(kept)), links)
        positives.append(Sample(state, ((place[link[0]], place[link[1]]),), (1,)))
        negatives += [
            Sample(state, ((place[source], place[target]),), (0,))
            for source, target in lacking
            if source in kept and target in kept
        ]
    return positives, negatives


def absent_links(rules: Rules, graph: LinkGraph) -> list[Link]:
    """The links that a cell lacks, from an earlier to a later node in topological order."""
    names = [rules.labels[label] for label in graph.labels]
    return [
        (source, target)
        for source, target in itertools.combinations(_topological(graph), 2)
        if (source, target) not in graph.links and names[source] != OUTPUT and names[target] != INPUT
    ]


def _topological(graph: LinkGraph) -> list[int]:
    """Nodes in a topological order, of several that may come next the first."""
    waiting, order = list(range(len(graph.labels))), []
    while waiting:
        node = next(n for n in waiting if not any(t == n and s in waiting for s, t in graph.links))
        waiting.remove(node)
        order.append(node)
    return order


def _share(samples: list[Sample], kept: float, random: np.random.Generator) -> list[Sample]:
    return [sample for sample, number in zip(samples, random.random(len(samples))) if number < kept]
