"""A module's printed form tells how it was built."""

from __future__ import annotations

import torch

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import PUBLISHED
from nge_search.embedding import build_embedding
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.deeplab import DeepLabV3
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.networks.timm_models import TimmCifarNetwork
from nge_search.settings.embedding import EmbeddingSection
from nge_search.spaces import NasBench101Space, NasBench201Space
from nge_search.supernet import FusedSupernet, Supernet


def test_networks_tell_their_cells_and_settings() -> None:
    genotype = PUBLISHED["darts_v2"]
    with torch.device("meta"):
        cifar = CifarNetwork(genotype, channels=4, cells=5, auxiliary=True)
        assert "reductions=[1, 3], auxiliary_after=3, drop_slots=" in repr(cifar)
        assert "sources=(0, 1, 0, 1, 1, 0, 0, 2), concat=(2, 3, 4, 5), reduction=False, rate=1" in repr(cifar)
        assert "auxiliary_after=None" in repr(CifarNetwork(genotype, channels=4, cells=5))
        assert "output_stride=32" in repr(ImageNetNetwork(genotype, 4, 5))
        segmentation = repr(DeepLabV3(genotype, 4, 5, 7, output_stride=8, head_channels=16))
        assert segmentation.count("output_stride=8") == 2
        assert "head_channels=16" in segmentation
        assert "drop_path_rate=0.25" in repr(TimmCifarNetwork(genotype, channels=4, cells=3, drop_path_rate=0.25))
        space = NasBench101Space()
        code = space.parse("0111001100010000 input,conv3x3-bn-relu,maxpool3x3,output")
        found = repr(space.network(code, channels=4, cells=3))
        assert "edges=(0-1, 0-2, 1-2, 0-3, 1-3, 2-3), widths=[4, 2, 2, 4]" in found
        assert "edges=(0-3, 1-3)" in repr(NasBench201Space().network((0, 0, 0, 1, 3, 0), channels=4, cells=3))


def test_supernets_and_embeddings_tell_theirs() -> None:
    space = CellSpace(2, ("skip_connect", "sep_conv_3x3"))
    supernet = Supernet(space, 4, 3, 5)
    assert "inputs=2, nodes=2, operations=(skip_connect, sep_conv_3x3)" in repr(supernet)
    assert "nodes=2, channels=4, reduction=False" in repr(supernet)
    fused = repr(FusedSupernet(supernet))
    assert "operations=(skip_connect, sep_conv_3x3)" in fused
    assert "(sep_conv_3x3_first_depthwise): 5 x 8 x 1 x 3 x 3" in fused
    found = repr(build_embedding(EmbeddingSection(adjacency="printed", shared=False), space))
    assert "kinds=(normal, reduce), x=(4, " in found
    assert "vertices=4, adjacency=printed" in found
    assert "rows=5" in found
    assert "alpha_reduce=(5, 2)" in repr(build_embedding(EmbeddingSection(kind="direct"), space))
