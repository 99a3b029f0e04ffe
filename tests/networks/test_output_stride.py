"""Networks that keep a higher resolution compute, where both have a pixel, what the strided network computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nge_search.architecture.genotype import PUBLISHED, Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.operations import DilatedAvgPool, DilatedMaxPool, build_operation
from nge_search.settings.names import OPERATIONS

SIZES = [(500, 333), (513, 513), (70, 41), (64, 96), (17, 8)]


def of_one_operation(name: str) -> Genotype:
    """Both cells have the operation on every edge, from inputs and from inner nodes."""
    genes = tuple((name, source) for source in (0, 1, 1, 2, 0, 3, 4, 2))
    cell = Cell(genes, (2, 3, 4, 5))
    return Genotype(cell, cell, {})


def randomise(network: nn.Module) -> nn.Module:
    """Statistics, scales and shifts that are not those of a fresh network."""
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.uniform_(0.5, 1.5)
    return network


def features(
    genotype: Genotype, cells: int, stride: int | None, weights: dict, x_BCHW: torch.Tensor
) -> torch.Tensor:
    network = ImageNetNetwork(genotype, 4, cells, classes=0, output_stride=stride).double().eval()
    network.load_state_dict(weights)
    with torch.no_grad():
        return network.forward_features(x_BCHW)[0]


@pytest.mark.parametrize("name", [*OPERATIONS, *PUBLISHED])
def test_on_the_coarse_grid_all_strides_agree(name):
    torch.manual_seed(0)
    genotype = of_one_operation(name) if name in OPERATIONS else load_genotype(name)
    for cells in (6, 3):  # with three cells, the reductions follow each other
        classifier = randomise(ImageNetNetwork(genotype, 4, cells, classes=5).double())
        weights = {k: v for k, v in classifier.state_dict().items() if not k.startswith("classifier.")}
        for height, width in SIZES if cells == 6 else SIZES[2:]:
            x_BCHW = torch.randn(1, 3, height, width, dtype=torch.float64)
            coarse = features(genotype, cells, None, weights, x_BCHW)
            with torch.no_grad():
                assert torch.equal(coarse, classifier.eval().forward_features(x_BCHW)[0])
            assert torch.equal(coarse, features(genotype, cells, 32, weights, x_BCHW))
            assert coarse.shape[2:] == (-(-height // 32), -(-width // 32))
            for stride in (8, 16):
                fine = features(genotype, cells, stride, weights, x_BCHW)
                assert fine.shape[2:] == (-(-height // stride), -(-width // stride))
                step = 32 // stride
                torch.testing.assert_close(fine[:, :, ::step, ::step], coarse, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("stride", "rates"), [(1, (2, 2)), (1, (1, 2)), (1, (4, 8))])
def test_a_dilated_operation_is_the_plain_one_on_every_grid(name, stride, rates):
    """The pixels whose rows and columns leave the same remainders form an image of their own."""
    torch.manual_seed(0)
    own_stride = rates[1] // rates[0]
    plain = randomise(build_operation(name, 3, own_stride)).double().eval()
    dilated = build_operation(name, 3, stride, rates=rates).double().eval()
    dilated.load_state_dict(plain.state_dict())
    x_BCHW = torch.randn(2, 3, 23, 19, dtype=torch.float64)
    with torch.no_grad():
        found = dilated(x_BCHW)
        assert found.shape == x_BCHW.shape
        for top in range(rates[0]):
            for left in range(rates[0]):
                expected = plain(x_BCHW[:, :, top :: rates[0], left :: rates[0]])
                torch.testing.assert_close(
                    found[:, :, top :: rates[1], left :: rates[1]], expected, rtol=1e-12, atol=1e-12
                )


@pytest.mark.parametrize("pool", [DilatedMaxPool, DilatedAvgPool])
def test_gradients_of_dilated_pools(pool):
    x_BCHW = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pool(2), x_BCHW)


def test_training_is_the_same_with_and_without_the_fast_layers(monkeypatch):
    """Dilated operations train in the forms of `layers` too."""
    torch.manual_seed(0)
    network = ImageNetNetwork(load_genotype("darts_v2"), 8, 6, classes=5, output_stride=8).double()
    network = network.to(memory_format=torch.channels_last)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.randn(2, 3, 130, 97, dtype=torch.float64).to(memory_format=torch.channels_last)
    found = []
    for smallest in (1, 1 << 60):
        monkeypatch.setattr("nge_search.networks.fast_forms._SMALLEST", smallest)
        network.load_state_dict(start)
        network.zero_grad()
        network(images)[0].square().sum().backward()
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        found.append(
            (buffers, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
        )
    for fast, plain in zip(*found):
        assert fast.keys() == plain.keys()
        for name, tensor in plain.items():
            torch.testing.assert_close(fast[name], tensor, rtol=1e-9, atol=1e-9, msg=name)
