"""T5's arithmetic, as functions on the layers of Hugging Face's T5.

The layers keep the weights and their names; their own `forward` is not called. What is computed is
the same, with fused kernels and with fewer tensors kept for the backward pass. All functions
multiply in the number format of the states they are given, however the weights are stored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_dynrefer.models.attention import attend, join_heads, split_heads
from lavis_dynrefer.models.llms.stored_weights import Int8Linear, frozen_product


def normed(layer: nn.Module, states: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """T5's norm: states (..., W) over the root of their mean square, times the layer's weight.

    Args:
        layer: a `T5LayerNorm`, or what Hugging Face takes in its place where apex is installed.
        states: computed in float32, whatever their format.
        dtype: of the result, in which the next product is computed; None: that of `states`.
    """
    dtype = dtype or states.dtype
    weight, width = layer.weight, states.shape[-1:]
    eps = layer.variance_epsilon if hasattr(layer, "variance_epsilon") else layer.eps
    if weight.dtype == states.dtype:
        return rms_norm(states, width, weight, eps).to(dtype)
    return rms_norm(states, width, None, eps).to(dtype) * weight.to(dtype)


def _rms_norm(states: Tensor, shape: torch.Size, weight: Tensor | None, eps: float) -> Tensor:
    wide = states.float()
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (wide if weight is None else wide * weight).to(states.dtype)


rms_norm = getattr(F, "rms_norm", _rms_norm)  # torch >= 2.4


def product(layer: nn.Module, states: Tensor) -> Tensor:
    """What a linear layer makes of states (..., W), in their number format.

    The weights may be stored in another format. A layer that a library put in place of a plain one,
    such as LoRA's, computes as it likes.
    """
    if type(layer) is nn.Linear:  # T5 has no bias
        weight = layer.weight
        if weight.dtype == states.dtype:
            return F.linear(states, weight)
        if weight.requires_grad:
            return F.linear(states, weight.to(states.dtype))
        return frozen_product(states, weight)
    if isinstance(layer, Int8Linear):
        return layer(states)
    weight = getattr(layer, "weight", None)
    own = weight.dtype if weight is not None and weight.is_floating_point() else states.dtype
    return layer(states.to(own)).to(states.dtype)


def feed_forward(layer: nn.Module, states: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Add what a `T5LayerFF` makes of states (..., W), computed in `dtype`."""
    inner, inputs = layer.DenseReluDense, normed(layer.layer_norm, states, dtype)
    if hasattr(inner, "wi_0"):
        hidden = inner.act(product(inner.wi_0, inputs)) * product(inner.wi_1, inputs)
    else:
        hidden = inner.act(product(inner.wi, inputs))
    return states + layer.dropout(product(inner.wo, inner.dropout(hidden)))


def position_bias(stack: nn.Module, queries: int, keys: int) -> Tensor:
    """Bias (1, h, queries, keys) of self-attention by relative position; all blocks share it.

    Args:
        stack: a `T5Stack`, the encoder or the decoder.
        queries: number of tokens that look.
        keys: number of tokens that are looked at, from the same first token.
    """
    return stack.block[0].layer[0].SelfAttention.compute_bias(queries, keys)


def self_attention(layer: nn.Module, states: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Add what a `T5LayerSelfAttention` makes of states (B, n, W); bias (1 or B, h, n, n)."""
    inputs = normed(layer.layer_norm, states, dtype)
    return states + layer.dropout(_attention(layer.SelfAttention, inputs, inputs, bias))


def cross_attention(
    layer: nn.Module, states: Tensor, encoded: Tensor, bias: Tensor, dtype: torch.dtype
) -> Tensor:
    """Add what a `T5LayerCrossAttention` reads from encoded (B, P, W); bias (B, 1, 1, P)."""
    inputs = normed(layer.layer_norm, states, dtype)
    return states + layer.dropout(_attention(layer.EncDecAttention, inputs, encoded, bias))


def _attention(layer: nn.Module, inputs: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
    mixed = attend(
        split_heads(product(layer.q, inputs), layer.n_heads),
        split_heads(product(layer.k, memory), layer.n_heads),
        split_heads(product(layer.v, memory), layer.n_heads),
        bias=bias,
        scale=1.0,
        dropout=layer.dropout if layer.training else 0.0,
    )
    return product(layer.o, join_heads(mixed))
