"""Networks stacked from a genotype equal a plain transcription of DARTS' own, forward and backward."""

from __future__ import annotations

import json

import pytest
import torch

from nge_search.architecture.genotype import PUBLISHED, Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.bench.darts import DartsNetwork
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.networks.families import FAMILIES
from nge_search.networks.imagenet import ImageNetNetwork

#: Published code, run: parameters, parameters with auxiliary head, mult-adds in millions.
ANCHORS = {
    ("darts_v1", "cifar"): (3_169_414, 3_645_840, 500.99),
    ("darts_v1", "imagenet"): (4_510_432, 5_771_208, 505.86),
    ("darts_v2", "cifar"): (3_349_342, 3_825_768, 528.36),
    ("darts_v2", "imagenet"): (4_718_752, 5_979_528, 529.91),
}


@pytest.mark.parametrize(("name", "network"), ANCHORS)
def test_sizes_of_published_networks(name, network, capsys):
    assert main(["show", name, "--network", network, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    params, with_auxiliary, macs = ANCHORS[name, network]
    assert (shown["params"], shown["params_with_aux"]) == (params, with_auxiliary)
    assert round(shown["macs"] / 1e6, 2) == macs
    assert main(["show", name, "--network", network]) == 0
    assert f"{params:,} parameters ({with_auxiliary:,} with the auxiliary head)" in capsys.readouterr().out


def twins(name: str, kind: str, auxiliary: bool):
    """A network of ours and the plain one with the same weights and statistics, all of them random."""
    torch.manual_seed(0)
    genotype, size = load_genotype(name), (4, 5, 6)
    ours = FAMILIES[kind].build(genotype, *size, auxiliary=auxiliary).double()
    plain = DartsNetwork(genotype, *size, auxiliary, imagenet=kind == "imagenet").double()
    for own, other in ((ours.parameters(), plain.parameters()), (ours.buffers(), plain.buffers())):
        for mine, theirs in zip(own, other, strict=True):
            assert mine.shape == theirs.shape
            if mine.is_floating_point():
                theirs.data.uniform_(0.5, 1.5) if theirs.dim() == 1 else None
                mine.data.copy_(theirs.data)
    return ours, plain


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("kind", ["cifar", "imagenet"])
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_networks_equal_the_plain_transcription(name, kind, auxiliary, layout):
    ours, plain = twins(name, kind, auxiliary)
    ours = ours.to(memory_format=layout)
    side = 32 if kind == "cifar" else 224
    images = torch.randn(2 if kind == "imagenet" else 4, 3, side, side, dtype=torch.float64)
    for training in (True, False):
        found, gradients = [], []
        for network in (ours, plain):
            network.train(training)
            network.zero_grad()
            x = images.clone().requires_grad_()
            logits, head = network(x.to(memory_format=layout) if network is ours else x)
            assert (head is not None) == (auxiliary and training)
            loss = (logits * torch.arange(6)).sum() + (0 if head is None else 0.4 * (head**2).sum())
            loss.backward()
            found.append([logits] + ([] if head is None else [head]))
            own = [p.grad for p in network.parameters()]
            gradients.append([x.grad, *own, *(b.double() for b in network.buffers())])
        for mine, theirs in zip(found[0], found[1], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
        for mine, theirs in zip(gradients[0], gradients[1], strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert (mine - theirs).norm() <= 1e-10 * (1 + theirs.norm())


def test_the_auxiliary_head_of_imagenet_networks_fits_224_pixels():
    network = ImageNetNetwork(load_genotype("darts_v2"), channels=4, cells=3, classes=3, auxiliary=True)
    for size in (193, 224, 256):
        ImageNetNetwork.require_auxiliary_fits(size, cells=3)
        assert network(torch.randn(2, 3, size, size))[1].shape == (2, 3)
    for size in (64, 192, 257):
        with pytest.raises(UserError, match=r"feature maps of 7 to 8 pixels \(images of 193 to 256"):
            ImageNetNetwork.require_auxiliary_fits(size, cells=3)


@pytest.mark.usefixtures("own_operations")
def test_gradient_checkpointing_of_operations_with_state():
    """They are computed again from the state that they had, and count each batch once."""
    cell = Cell((("drift", 0), ("ghost_conv", 1), ("drift", 2), ("blur", 0)), (2, 3))

    def step(checkpointed: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = FAMILIES["cifar"].build(Genotype(cell, cell), 2, 1, 3).double()
        network.checkpointed = checkpointed
        images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        for scale in (1, 3):
            (network(scale * images)[0] + network(images)[0]).square().sum().backward()
        calls = [buffer for name, buffer in network.named_buffers() if name.endswith("calls")]
        assert [int(count) for count in calls] == [4, 4]
        return [*(parameter.grad for parameter in network.parameters()), *network.buffers()]

    torch.testing.assert_close(step(True), step(False))
