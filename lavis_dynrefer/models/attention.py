"""Attention, for every part of the model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """softmax(queries keys^T scale + bias) values, by the fastest kernel that torch has for it.

    The matrix of probabilities is not kept, neither here nor for the backward pass.

    Args:
        queries: (B, h, n, d).
        keys: (B, h, m, d).
        values: (B, h, m, d).
        bias: added before the softmax; two to four dimensions that broadcast to (B, h, n, m).
            Every query must have a key whose bias is finite.
        scale: 1 / sqrt(d) if None; 1.0 in T5, which folds it into its weights.
        dropout: share of the probabilities set to zero; the caller passes 0 outside training.
        causal: query i sees keys 0..i only; needs n = m and no bias.

    Returns:
        (B, h, n, d).
    """
    if bias is not None:
        bias = bias.to(queries.dtype)  # torch refuses two types; autocast casts both again
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=bias, dropout_p=dropout, is_causal=causal, scale=scale
    )


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(B, n, h * d) to (B, h, n, d), as `attend` wants it; a view."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    """(B, h, n, d) to (B, n, h * d), the inverse of `split_heads`."""
    return states.transpose(1, 2).flatten(2)
