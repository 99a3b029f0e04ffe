"""What `precision=fp32|tf32|bf16|fp64` means for weights and for the forward pass."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def weight_dtype(precision: str) -> torch.dtype:
    """The type of weights and images: float64 for fp64, else float32 (bf16 mixes inside autocast)."""
    return torch.float64 if precision == "fp64" else torch.float32


def allow_tf32(allowed: bool) -> None:
    """Whether matrix products and convolutions of float32 tensors may round their inputs to 10 bits on a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def forward_context(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Autocast to bfloat16 for bf16; nothing otherwise."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def full_precision(logits_BK: Tensor) -> Tensor:
    """Logits as losses and figures want them: bfloat16 becomes float32, everything else stays."""
    return logits_BK.float() if logits_BK.dtype == torch.bfloat16 else logits_BK
