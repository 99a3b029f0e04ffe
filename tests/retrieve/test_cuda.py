"""Networks extracted from modules, and encoders of their graphs, on a GPU: as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nge_search.retrieve.extraction import extract, images
from nge_search.retrieve.models import candidate
from nge_search.retrieve.ordered import OrderedGraph

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]

TINY = {"width": 4, "layers": 1, "epochs": 1, "batch_size": 64}


@pytest.mark.parametrize("name", ["gcn", "gat", "own"])
def test_an_encoder_embeds_as_on_the_cpu(name, families):
    graphs = [OrderedGraph.of(graph) for own in families.values() for graph in own]
    kinds = [family for family, own in families.items() for _ in own]
    found = []
    for device in ("cpu", "cuda"):
        embedder = candidate(name, TINY if name != "own" else {}, device).make()
        embedder.fit(graphs, kinds, 0)
        found.append(np.asarray(embedder.embed(graphs)))
    assert np.isfinite(found[1]).all()
    assert found[1].shape == found[0].shape
    likeness = (found[0] * found[1]).sum(1) / np.linalg.norm(found[0], axis=1) / np.linalg.norm(found[1], axis=1)
    assert likeness.min() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_a_module_lies_leaves_no_trace_in_its_graph(dtype):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    on_cpu = extract(module, images(3, 8, 8))
    assert extract(module.to("cuda", dtype), images(3, 8, 8)) == on_cpu
