"""Tensors of any device and kind, as arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_arrays(values: Any) -> Any:
    """Tensors on the CPU as arrays, also those within lists and tuples; all else as it is.

    Args:
        values: a tensor on any device, with or without gradient, dense or sparse; or anything else.

    Raises:
        RuntimeError, TypeError: a tensor without values, such as one on meta.
    """
    if isinstance(values, Tensor):
        values = values.detach()
        values = (values if values.layout == torch.strided else values.to_dense()).cpu()
        # numpy has no bfloat16
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, (list, tuple)):
        return [as_arrays(one) if isinstance(one, (Tensor, list, tuple)) else one for one in values]
    return values
