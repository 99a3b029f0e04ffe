"""torchvision's networks: what is listed, and one of each kind that needs care."""

from __future__ import annotations

import pytest

from nge_search.retrieve.corpus import coarse_label
from nge_search.retrieve.extraction import STAND_IN, trace
from nge_search.retrieve.sources import Timm
from nge_search.retrieve.torchvision_networks import Torchvision


def test_names_and_origins() -> None:
    library = Torchvision()
    names = library.names()
    assert len(names) >= 109
    assert not [name for name in names if "quantized" in name]
    assert library.origin("resnet18") == ("resnet", "classification")
    assert library.origin("mobilenet_v2") == ("efficientnet", "classification")
    assert library.origin("swin_v2_t") == ("swin_transformer_v2", "classification")
    assert library.origin("fasterrcnn_resnet50_fpn") == ("faster_rcnn", "detection")
    assert library.origin("lraspp_mobilenet_v3_large") == ("lraspp", "segmentation")
    assert library.origin("r3d_18") == ("video_resnet", "video")
    assert library.origin("raft_small") == ("raft", "optical flow")


def test_families_are_timms_where_it_has_them() -> None:
    library, timm = Torchvision(), Timm()
    known = {timm.origin(name).family for name in timm.names()}
    classifiers = [name for name in library.names() if library.origin(name).task == "classification"]
    shared = [name for name in classifiers if library.origin(name).family in known]
    without = {library.origin(name).family for name in classifiers} - known
    assert without == {"alexnet", "googlenet", "shufflenetv2", "squeezenet"}
    assert len(shared) >= 72


@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [("squeezenet1_1", 1.24, 0.35), ("regnet_y_400mf", 4.34, 0.40)],  # regnet's constructor reads values back
)
def test_classifiers(name: str, millions: float, giga: float) -> None:
    found = trace(*Torchvision().build(name))
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert found.multiply_adds / 1e9 == pytest.approx(giga, rel=0.03)
    assert coarse_label(found.graph) == "cnn"


def test_a_detector_of_one_stage_has_no_stand_in() -> None:
    graph = trace(*Torchvision().build("ssdlite320_mobilenet_v3_large")).graph
    assert STAND_IN not in {edge.label for edge in graph.edges}
    assert len(graph.outputs) >= 2


def test_the_regions_of_a_detector_of_two_stages_are_stand_ins() -> None:
    graph = trace(*Torchvision().build("fasterrcnn_mobilenet_v3_large_320_fpn")).graph
    (regions,) = (node for node, label in enumerate(graph.nodes) if label.name == "RoiAlign")
    marked = [edge for edge in graph.edges if edge.label == STAND_IN]
    assert {edge.target for edge in marked} == {regions}
    assert len(graph.incoming[regions]) == len(marked)
    assert len(marked) > 4  # maps, and what chose the regions
    pruned = graph.pruned()
    assert pruned is not None
    assert len(pruned.nodes) == len(graph.nodes)
