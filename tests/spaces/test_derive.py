"""Derivation against a brute force over all cells."""

from __future__ import annotations

import itertools

import pytest
import torch

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import PUBLISHED
from nge_search.gradient.progress import parameter_free_share
from nge_search.spaces import DartsSpace, NasBench201Space
from nge_search.spaces.derive import derive_cell, derive_genotype


def brute_force(p_EO: torch.Tensor, space: CellSpace) -> tuple:
    """For each node, of all pairs of incoming edges and operations, the one with the largest sum of P."""
    genes = []
    for node in space.inner:
        best, best_value = None, -1.0
        edges = [position for position, (_, target) in enumerate(space.edges) if target == node]
        for pair in itertools.combinations(edges, 2):
            for operations in itertools.product(range(len(space.operations)), repeat=2):
                value = sum(p_EO[edge, operation].item() for edge, operation in zip(pair, operations))
                if value > best_value + 1e-12:
                    best, best_value = list(zip(pair, operations)), value
        genes.extend((space.operations[operation], space.edges[edge][0]) for edge, operation in best)
    return tuple(genes)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("nodes", [2, 4])
def test_equals_the_best_of_all_cells(seed, nodes):
    space = CellSpace(nodes)
    torch.manual_seed(seed)
    p_EO = torch.softmax(2 * torch.randn(space.shape), dim=1)
    cell = derive_cell(p_EO, space)
    assert cell.genes == brute_force(p_EO, space)
    assert cell.concat == tuple(range(2, 2 + nodes))


def test_ties_go_to_the_lower_index():
    space = CellSpace()
    cell = derive_cell(torch.full(space.shape, 1 / 7), space)
    assert cell.genes == (("skip_connect", 0), ("skip_connect", 1)) * 4


@pytest.mark.parametrize("name", ["darts_v1", "darts_v2", "pc_darts_cifar", "p_darts"])
def test_recovers_published_cells_from_their_own_probabilities(name):
    space, genotype = CellSpace(), PUBLISHED[name]
    matrices = []
    for _, cell in genotype.cells():
        p_EO = torch.full(space.shape, 0.1)
        for node in space.inner:
            for operation, source in cell.incoming(node):
                p_EO[space.edges.index((source, node)), space.operations.index(operation)] = 0.4
        matrices.append(p_EO)
    derived = derive_genotype(*matrices, space)
    for (_, cell), (_, expected) in zip(derived.cells(), genotype.cells()):
        for node in space.inner:
            assert sorted(cell.incoming(node)) == sorted(expected.incoming(node))


def test_share_of_parameter_free_operations():
    space = DartsSpace()
    shares = [parameter_free_share(graph, space.kept) for graph in PUBLISHED["darts_v2"].graphs().values()]
    assert shares == [2 / 8, 1]
    dense = NasBench201Space()
    p_EO = torch.full((6, 5), 0.1)
    p_EO[range(6), (0, 1, 2, 3, 4, 3)] = 0.6
    derived = dense.derive([p_EO], {"method": "by hand"})
    assert dense.code_of(derived) == (0, 1, 2, 3, 4, 3)
    assert derived.document["provenance"] == {"method": "by hand"}
    assert parameter_free_share(derived.graphs["cell"], dense.kept) == 3 / 6
