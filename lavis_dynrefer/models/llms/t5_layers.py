"""T5's arithmetic, as functions on the layers of Hugging Face's T5.

The layers keep the weights and their names; their own `forward` is not called. What is computed is
the same, with fused kernels and with fewer tensors kept for the backward pass. All functions
multiply in the number format of the states they are given, however the weights are stored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normed(layer: nn.Module, states: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """T5's norm: states (..., W) over the root of their mean square, times the layer's weight.

    Args:
        layer: a `T5LayerNorm`.
        states: computed in float32, whatever their format.
        dtype: of the result, in which the next product is computed; None: that of `states`.
    """
    dtype = dtype or states.dtype
    weight, width = layer.weight, states.shape[-1:]
    if weight.dtype == states.dtype:
        return rms_norm(states, width, weight, layer.variance_epsilon).to(dtype)
    return rms_norm(states, width, None, layer.variance_epsilon).to(dtype) * weight.to(dtype)


def _rms_norm(states: Tensor, shape: torch.Size, weight: Tensor | None, eps: float) -> Tensor:
    wide = states.float()
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (wide if weight is None else wide * weight).to(states.dtype)


rms_norm = getattr(F, "rms_norm", _rms_norm)  # torch >= 2.4


def product(layer: nn.Module, states: Tensor) -> Tensor:
    """What a linear layer makes of states (..., W), in their number format.

    A plain layer's weights may be stored in another format. A layer that a library put in place of
    it, such as LoRA's, computes as it likes.
    """
    if type(layer) is nn.Linear:
        return F.linear(states, layer.weight.to(states.dtype))  # T5 has no bias
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
