"""Libraries of published networks: what they list, and small ones of theirs, traced."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nge_search.errors import UserError
from nge_search.retrieve.corpus import coarse_label
from nge_search.retrieve.extraction import trace
from nge_search.retrieve.sources import LIBRARIES, Timm, build_hollow, open_library


def test_libraries_are_found_by_name() -> None:
    assert isinstance(open_library("timm"), Timm)
    assert isinstance(open_library("nge_search.retrieve.sources:Timm"), Timm)
    with pytest.raises(UserError, match=r"library 'tim' is unknown; known are timm, .*did you mean 'timm'"):
        open_library("tim")
    assert list(LIBRARIES) == ["timm", "torchvision", "transformers"]


def test_timm_lists_its_own_names_alone() -> None:
    import nge_search.networks.timm_models  # noqa: F401  (which adds names to timm's list)

    library = Timm()
    names = library.names()
    assert names == sorted(set(names))
    assert len(names) > 1000
    assert not [name for name in names if name.startswith("nge_")]
    assert library.origin("resnet50").family == "resnet"
    assert library.origin("deit_base_patch16_224").family == "deit"


def test_resnet50_of_timm() -> None:
    library = Timm()
    found = trace(*library.build("resnet50"))
    assert found.parameters == 25_557_032
    assert found.multiply_adds == pytest.approx(4.09e9, rel=0.01)
    assert sum(label.name == "Convolution" for label in found.graph.nodes) == 53
    assert coarse_label(found.graph) == "cnn"


def test_a_transformer_of_timm_writes_its_attention_out() -> None:
    found = trace(*Timm().build("test_vit"))
    assert coarse_label(found.graph) == "attention"
    assert not [label for label in found.graph.nodes if "ScaledDotProduct" in label.name]


def test_constructors_may_read_values_back() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = torch.pow(2.0, torch.arange(3.0)).round().int().tolist()
            self.layers = nn.Sequential(*(nn.Linear(width, width) for width in widths))
            self.scale = nn.Parameter(torch.zeros(1 << 40))

    built = build_hollow(Reading)
    assert [layer.in_features for layer in built.layers] == [1, 2, 4]
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
    assert math.prod(built.scale.shape) == 1 << 40


def test_a_constructor_that_fails_says_why() -> None:
    def fail() -> nn.Module:
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        build_hollow(fail)
