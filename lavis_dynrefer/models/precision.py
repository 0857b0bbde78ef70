"""Which parts must not run in float16, or in less than float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def bf16_instead_of_fp16(device: torch.device) -> AbstractContextManager[object]:
    """Run a block in bfloat16 where the caller's autocast chose float16.

    T5 overflows in float16, and the text decoders follow it, as in the released code. Without an
    active autocast nothing changes.
    """
    if device.type == "cuda" and torch.is_autocast_enabled():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Run a block in the precision of its tensors, whatever autocast the caller chose."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # no autocast for this kind of device, such as Apple's before torch 2.5
        return nullcontext()
