"""Attention, for every part of the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALIGNMENT = 8


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

    The matrix of probabilities is not kept, neither here nor for the backward pass; but it is on a
    CPU in training with 16 bits, where torch's own backward pass takes five times as long.

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
    trains = any(part.requires_grad for part in (queries, keys, values))
    half = queries.dtype in (torch.bfloat16, torch.float16)
    if trains and half and queries.device.type == "cpu" and not dropout:
        return _attend_plainly(queries, keys, values, bias, scale, causal)
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=bias, dropout_p=dropout, is_causal=causal, scale=scale
    )


def _attend_plainly(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    scale: float | None,
    causal: bool,
) -> Tensor:
    """`attend` as products of matrices."""
    factor = queries.shape[-1] ** -0.5 if scale is None else scale
    scores = (queries * factor) @ keys.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return scores.softmax(dim=-1) @ values


def aligned(bias: Tensor) -> Tensor:
    """The same bias (..., m), in memory as attention on a GPU wants it.

    There each row must begin at a multiple of 8 numbers; torch would copy any other bias in every
    layer, and keep each copy for the backward pass.
    """
    size = bias.shape[-1]
    if bias.device.type == "cpu" or size % _ALIGNMENT == 0:
        return bias
    return F.pad(bias, (0, -size % _ALIGNMENT))[..., :size]


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(B, n, h * d) to (B, h, n, d), as `attend` wants it; a view."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    """(B, h, n, d) to (B, n, h * d), the inverse of `split_heads`."""
    return states.transpose(1, 2).flatten(2)


def keys_and_values(block: nn.Module, context: Tensor) -> tuple[Tensor, Tensor]:
    """What `bert_attention` reads, from context (B, m, C): keys and values (B, h, m, d).

    Args:
        block: LAVIS's `BertAttention`.
        context: for self-attention the states themselves.
    """
    inner = block.self
    heads = inner.num_attention_heads
    return split_heads(inner.key(context), heads), split_heads(inner.value(context), heads)


def bert_queries(block: nn.Module, states: Tensor) -> Tensor:
    """Queries (B, h, n, d) of states (B, n, D), for `bert_attention`."""
    return split_heads(block.self.query(states), block.self.num_attention_heads)


def bert_attention(
    block: nn.Module,
    states: Tensor,
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None = None,
) -> Tensor:
    """LAVIS's `BertAttention` without masks: attention, projection, sum and norm.

    Args:
        block: LAVIS's `BertAttention`.
        states: (B, n, D); or (1, n, D), the same for all rows of the keys.
        keys: (B, h, m, d).
        values: (B, h, m, d).
        queries: `bert_queries` of the states, where they are known already.

    Returns:
        (B, n, D).
    """
    inner = block.self
    queries = bert_queries(block, states) if queries is None else queries
    attended = attend(
        queries.expand(len(keys), -1, -1, -1),
        keys,
        values,
        dropout=inner.dropout.p if inner.dropout.training else 0.0,
    )
    return block.output(join_heads(attended), states)
