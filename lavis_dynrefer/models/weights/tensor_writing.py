"""Writes .safetensors files tensor by tensor; the library itself wants all of them at once."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_dynrefer.paths import replace_file

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 64  # bytes, of the first tensor, so that a mapped file is read in whole vectors


class TensorPlan(NamedTuple):
    """A tensor that will be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """In bytes."""
        count = 1
        for side in self.shape:
            count *= side
        return count * self.dtype.itemsize


def write_tensors(
    target: Path,
    plans: Mapping[str, TensorPlan],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a .safetensors file; it appears at once, when it is complete.

    Args:
        target: of the file; its folder exists.
        plans: of every tensor.
        read: returns a tensor of that shape and type by its name; asked once for each, in turn.
        metadata: texts for the header.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    # Wide types first, as the library does: then every tensor is aligned to its own width.
    names = sorted(plans, key=lambda name: (-plans[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        plan = plans[name]
        start, end = end, end + plan.size
        header[name] = {
            "dtype": _NAMES[plan.dtype],
            "shape": list(plan.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                tensor = read(name)
                if tuple(tensor.shape) != plans[name].shape or tensor.dtype != plans[name].dtype:
                    raise ValueError(f"{name}: expected {plans[name]}, got {tensor.shape}")
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
            file.flush()
            os.fsync(file.fileno())
        replace_file(partial, target)
    finally:
        partial.unlink(missing_ok=True)
