"""Derived networks: what a cell computes, drop-path, the auxiliary head."""

from __future__ import annotations

import pytest
import torch

from nge_search.architecture.genotype import PUBLISHED, Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.counting import count_parameters, multiply_adds
from nge_search.errors import UserError
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.classifier import drop_path_factors


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [8, 15])
def test_every_published_genotype_trains(name, size):
    torch.manual_seed(0)
    network = CifarNetwork(load_genotype(name), channels=4, cells=4, classes=7, image_channels=1)
    logits, auxiliary = network(torch.randn(4, 1, size, size))
    assert logits.shape == (4, 7)
    assert auxiliary is None
    logits.square().sum().backward()
    unused = unused_nodes(load_genotype(name))
    for parameter_name, parameter in network.named_parameters():
        if not unused:
            assert parameter.grad.abs().sum() > 0, parameter_name


def unused_nodes(genotype: Genotype) -> bool:
    """Whether an inner node, or the older input, of some cell reaches no output."""
    for _, cell in genotype.cells():
        used = {source for _, source in cell.genes} | set(cell.concat)
        if not set(range(cell.nodes + 2)) <= used:
            return True
    return False


def test_the_cell_sums_and_concatenates_what_the_genotype_says():
    """Identities only: inner nodes become small multiples of the two inputs."""
    cell = Cell((("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2), ("skip_connect", 1)), (3, 2))
    network = CifarNetwork(Genotype(cell, cell), channels=4, cells=2, classes=3)
    before, last = torch.randn(2, 2, 4, 8, 8)
    derived = network.cells[0]
    derived.preprocess0, derived.preprocess1 = torch.nn.Identity(), torch.nn.Identity()
    derived.operations = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    torch.testing.assert_close(derived(before, last), torch.cat([before + 2 * last, before + last], dim=1))


def test_drop_path_scales_what_it_keeps_and_spares_identities():
    network = CifarNetwork(load_genotype("darts_v2"), channels=4, cells=3, classes=3).eval()
    identities = sum(isinstance(module, torch.nn.Identity) for module in network.modules())
    assert network.drop_slots == 8 * 3 - identities
    assert identities == 2 + 3 + 3  # DARTS_V2: two skips in the normal cell, three in the reduction cell
    images = torch.randn(6, 3, 16, 16)
    plain, _ = network(images)
    torch.testing.assert_close(network(images, torch.ones(6, network.drop_slots))[0], plain)
    keep = torch.ones(6, network.drop_slots)
    keep[2] = 0
    dropped, _ = network(images, keep)
    torch.testing.assert_close(dropped[[0, 1, 3, 4, 5]], plain[[0, 1, 3, 4, 5]])
    assert (dropped[2] - plain[2]).abs().max() > 1e-3
    drawn = torch.rand(4000, 5, generator=torch.Generator().manual_seed(0))
    factors = drop_path_factors(drawn, 0.3)
    assert factors.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert factors.mean().item() == pytest.approx(1, abs=0.02)


def test_the_auxiliary_head_exists_in_training_only_and_where_it_fits():
    network = CifarNetwork(load_genotype("darts_v2"), channels=4, cells=3, classes=3, auxiliary=True)
    assert network(torch.randn(2, 3, 32, 32))[1].shape == (2, 3)
    assert network.eval()(torch.randn(2, 3, 32, 32))[1] is None
    for size in (29, 32, 40):
        CifarNetwork.require_auxiliary_fits(size, cells=3)
        network.train()(torch.randn(2, 3, size, size))
    for size in (8, 28, 41, 64):
        with pytest.raises(UserError, match="auxiliary"):
            CifarNetwork.require_auxiliary_fits(size, cells=3)


def test_mult_adds_of_a_known_layer():
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(128, 5))
    assert count_parameters(layer) == 3 * 8 * 9 + 8 + 128 * 5 + 5
    assert multiply_adds(layer, (1, 3, 4, 4)) == 3 * 8 * 9 * 16 + 128 * 5
    assert all(parameter.device.type == "cpu" for parameter in layer.parameters())
