"""How long a network takes: measured on images, in whole fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.engine.precision import allow_tf32
from nge_search.networks.latency import WARM_UP, measure_latency


class Notes(nn.Module):
    """Notes its images, and what products of fp32 may do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, bool]] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        rounded = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        self.seen.append((images_BCHW, rounded))
        return images_BCHW


def test_images_are_no_zeros_and_fp32_no_tf32():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(True)
    try:
        network = Notes()
        found = measure_latency(network, 8, torch.device("cpu"), batch=2, passes=4)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert len(network.seen) == WARM_UP + 4
    assert found.fastest <= found.seconds <= found.slowest
    for images_BCHW, rounded in network.seen:
        assert images_BCHW.shape == (2, 3, 8, 8)
        assert 0.5 < float(images_BCHW.std()) < 2
        assert not rounded
