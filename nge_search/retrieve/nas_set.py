"""Searched networks in classes of similar ones, as NAR's second data set has them (Section 4.1, Appendix A.4).

The paper says neither how its centres were chosen nor how far from them members are drawn; both are stated here:
centres are as far from each other as those of a large random pool can be; a member is a centre with some distinct
genes redrawn, of 16 operations and 12 sources (the first node's two sources are given), that no other centre is
nearer to.

Legend: A architectures, C classes, S = 8 steps of both cells, 2 inputs of a step, G = 28 genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nge_search.architecture.genotype import Cell, Genotype
from nge_search.errors import UserError
from nge_search.settings.names import INPUT_NODES, SEARCH_OPERATIONS

_NODES, _OPERATIONS = 4, len(SEARCH_OPERATIONS)
_STEPS = 2 * _NODES

#: Of each architecture [..., S, 2, 2]: for both inputs of each step the operation, then the source.
Codes = np.ndarray


@dataclass(frozen=True)
class NasSetSettings:
    """Of the set.

    Attributes:
        classes: C.
        members: of each class.
        edits: genes that are redrawn in a member: the larger, the harder the classes are to tell apart.
        exactly: each member has so many redrawn; else a number from 1 on, drawn anew for each.
        pool: random architectures among which centres are chosen.
    """

    classes: int = 10
    members: int = 3000
    edits: int = 8
    exactly: bool = True
    pool: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.edits <= 28 or self.classes < 1 or self.members < 1 or self.pool < self.classes:
            raise UserError("a set of networks needs 1 to 28 edits, classes and members, and a pool of no fewer")


def nas_set(settings: NasSetSettings, seed: int) -> tuple[list[Genotype], list[int]]:
    """Genotypes, class by class, and their classes."""
    random = np.random.default_rng(seed)
    pool = np.stack([random_code(random) for _ in range(settings.pool)])
    centres = pool[farthest(pool, settings.classes)]
    genotypes, classes = [], []
    for number, centre in enumerate(centres):
        found = 0
        while found < settings.members:
            edits = settings.edits if settings.exactly else int(random.integers(1, settings.edits + 1))
            member = edited(centre, edits, random)
            if int(distances(member, centres).argmin()) == number:
                genotypes.append(genotype_of(member))
                classes.append(number)
                found += 1
    return genotypes, classes


def random_code(random: np.random.Generator) -> Codes:
    """A normal and a reduction cell, drawn independently: [S, 2, 2]."""
    code = np.empty((_STEPS, 2, 2), np.int64)
    for step in range(_STEPS):
        code[step, :, 0] = random.integers(0, _OPERATIONS, 2)
        code[step, :, 1] = random.permutation(INPUT_NODES + step % _NODES)[:2]
    return code


def distances(first: Codes, second_A: Codes) -> np.ndarray:
    """How many operations and sources differ, the two inputs of each step matched as is best: [A].

    An upper bound of the graphs' edit distance.
    """
    straight = (first != second_A).sum(axis=(-1, -2))
    crossed = (first[:, ::-1] != second_A).sum(axis=(-1, -2))
    return np.minimum(straight, crossed).sum(axis=-1)


def farthest(pool_A: Codes, count: int) -> list[int]:
    """`count` of them: the first, then each time the one whose nearest chosen one is farthest (Gonzalez, 1985)."""
    chosen = [0]
    nearest_A = distances(pool_A[0], pool_A)
    while len(chosen) < count:
        chosen.append(int(nearest_A.argmax()))
        nearest_A = np.minimum(nearest_A, distances(pool_A[chosen[-1]], pool_A))
    return chosen


def edited(code: Codes, edits: int, random: np.random.Generator) -> Codes:
    """An architecture with so many distinct genes redrawn, each to another value.

    A step reads two different sources, so a source is redrawn among those that neither of its inputs reads.
    """
    genes = [(step, slot, part) for step in range(_STEPS) for slot in range(2) for part in range(2)]
    free = [gene for gene in genes if gene[2] == 0 or gene[0] % _NODES]
    found = code.copy()
    for place in random.permutation(len(free))[:edits]:
        step, slot, part = free[place]
        own = int(found[step, slot, part])
        if part == 0:
            others = [value for value in range(_OPERATIONS) if value != own]
        else:
            taken = (own, int(found[step, 1 - slot, 1]))
            others = [value for value in range(INPUT_NODES + step % _NODES) if value not in taken]
        found[step, slot, part] = others[int(random.integers(0, len(others)))]
    return found


def genotype_of(code: Codes) -> Genotype:
    """The genotype of a code [S, 2, 2]; all inner nodes are concatenated."""

    def cell(steps: np.ndarray) -> Cell:
        genes = tuple((SEARCH_OPERATIONS[op], int(source)) for step in steps for op, source in step)
        return Cell(genes, tuple(range(INPUT_NODES, INPUT_NODES + _NODES)))

    return Genotype(cell(code[:_NODES]), cell(code[_NODES:]))


def slot_features(genotypes: Sequence[Genotype]) -> np.ndarray:
    """For each step which operations and which sources it has, in whatever order: [A, features].

    An untrained control: an encoder that does no better has shown nothing.
    """
    rows = []
    for genotype in genotypes:
        row = np.zeros((_STEPS, _OPERATIONS + INPUT_NODES + _NODES))
        for number, cell in enumerate((genotype.normal, genotype.reduce)):
            for step in range(_NODES):
                for operation, source in cell.incoming(INPUT_NODES + step):
                    row[number * _NODES + step, SEARCH_OPERATIONS.index(operation)] += 1
                    row[number * _NODES + step, _OPERATIONS + source] += 1
        rows.append(row.ravel())
    return np.array(rows)
