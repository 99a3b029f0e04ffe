"""DeepLabv3 on derived cells: sizes, the backbone's weights and features, and torchvision's head."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import ASPP

from nge_search.architecture.load import load_genotype
from nge_search.counting import count_parameters
from nge_search.engine.sync_batchnorm import freeze_statistics
from nge_search.networks.deeplab import DeepLabV3
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.training.segmentation import predict


def small(output_stride: int = 16, auxiliary: bool = False) -> DeepLabV3:
    torch.manual_seed(0)
    network = DeepLabV3(load_genotype("darts_v2"), 4, 5, 6, output_stride, 8, auxiliary).double()
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.data.uniform_(0.5, 1.5)
    return network


def test_parameters_of_the_papers_sizes():
    """The backbone is the ImageNet network less its classifier, the head torchvision's less its last 3x3 block."""
    network = DeepLabV3(load_genotype("darts_v2"), 48, 14, 21)
    assert count_parameters(network.backbone) == 4_718_752 - 768 * 1000 - 1000
    assert count_parameters(network) - count_parameters(network.backbone) == 6_628_117 - (256 * 256 * 9 + 512)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_weights_of_an_imagenet_network_fit_without_renaming(output_stride):
    network = small(output_stride)
    classifier = ImageNetNetwork(load_genotype("darts_v2"), 4, 5, classes=7).double().eval()
    weights = {name: t for name, t in classifier.state_dict().items() if not name.startswith("classifier.")}
    network.backbone.load_state_dict(weights)
    x_BCHW = torch.randn(1, 3, 70, 101, dtype=torch.float64)
    with torch.no_grad():
        found, expected = (model.eval().forward_features(x_BCHW)[0] for model in (network.backbone, classifier))
    step = 32 // output_stride
    torch.testing.assert_close(found[:, :, ::step, ::step], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("output_stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_the_head_is_torchvisions_and_one_convolution(output_stride, rates):
    network = small(output_stride).eval()
    pyramid = ASPP(network.backbone.cells[-1].c_out, rates, 8).double().eval()
    pyramid.load_state_dict(network.pyramid.state_dict())
    x_BCHW = torch.randn(2, 3, 65, 49, dtype=torch.float64)
    with torch.no_grad():
        y = network.classifier(pyramid(network.backbone.forward_features(x_BCHW)[0]))
        expected = functional.interpolate(y, (65, 49), mode="bilinear", align_corners=False)
        found, auxiliary = network(x_BCHW)
    assert auxiliary is None
    assert found.shape == (2, 6, 65, 49)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_dropout_scales_what_it_keeps_behind_the_pyramid():
    network = small().eval()
    x_BCHW = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    keep = (torch.rand(2, 8, 4, 4, dtype=torch.float64) < 0.5) * 2.0
    with torch.no_grad():
        y = network.pyramid(network.backbone.forward_features(x_BCHW)[0]) * keep
        expected = functional.interpolate(network.classifier(y), (64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(x_BCHW, keep)[0], expected)
        assert not torch.allclose(network(x_BCHW)[0], expected)


def test_every_parameter_gets_a_gradient():
    network = small(auxiliary=True).train()
    logits, auxiliary = network(torch.randn(3, 3, 64, 64, dtype=torch.float64))
    assert auxiliary.shape == logits.shape == (3, 6, 64, 64)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in network.parameters())
    assert network.eval()(torch.randn(1, 3, 64, 64, dtype=torch.float64))[1] is None


def test_frozen_statistics_stay_and_the_rest_trains():
    network = small().train()
    freeze_statistics(network.backbone)
    norms = [module for module in network.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    x_BCHW = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    network(x_BCHW)[0].square().sum().backward()
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name]) == name.startswith("backbone."), name
    assert all(parameter.grad is None for norm in norms for parameter in norm.parameters())
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    with torch.no_grad():
        trained = network.backbone.forward_features(x_BCHW)[0]
        torch.testing.assert_close(trained, network.backbone.eval().forward_features(x_BCHW)[0])


def test_scales_and_mirrored_images_are_averaged_as_probabilities():
    network = small().eval()
    x_BCHW = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    with torch.no_grad():
        expected = 0
        for sides in ((48, 36), (64, 48)):
            resized = functional.interpolate(x_BCHW, sides, mode="bilinear", align_corners=False)
            for turn in (lambda x: x, lambda x: x.flip(3)):
                logits = functional.interpolate(
                    turn(network(turn(resized))[0]), (64, 48), mode="bilinear", align_corners=False
                )
                expected = expected + logits.softmax(dim=1) / 4
        found = predict(network, x_BCHW, [0.75, 1.0], flip=True)
        torch.testing.assert_close(found.exp(), expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(predict(network, x_BCHW, [1.0], flip=False), network(x_BCHW)[0])
