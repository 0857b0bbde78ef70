"""T5's encoder and its decoder over whole sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis_dynrefer.models.attention import aligned
from lavis_dynrefer.models.llms.t5_building import head_scale
from lavis_dynrefer.models.llms.t5_layers import (
    cross_attention,
    feed_forward,
    normed,
    position_bias,
    product,
    self_attention,
)

_Block = Callable[..., Tensor]


def encode(
    model: nn.Module, prefix: Tensor, mask: Tensor, dtype: torch.dtype, *, recompute: bool = False
) -> Tensor:
    """The encoder's output (B, P, W) in `dtype`, for prefix embeddings.

    Args:
        model: a `T5ForConditionalGeneration`, with or without LoRA.
        prefix: (B, P, W) embeddings; in their format the states are summed up.
        mask: (B, P) 1 for tokens, 0 for padding.
        dtype: number format of the products.
        recompute: as in `llm_options`.
    """
    stack = model.get_encoder()
    length = prefix.shape[1]
    bias = aligned(position_bias(stack, length, length).to(dtype) + padding_bias(mask, dtype))
    run = _runner(recompute and torch.is_grad_enabled(), dropout=stack.training)
    states = stack.dropout(prefix)
    for block in stack.block:
        states = run(_encoder_block, block, states, bias, dtype)
    return stack.dropout(normed(stack.final_layer_norm, states, dtype))


def teacher_forced(
    model: nn.Module, encoded: Tensor, mask: Tensor, targets: Tensor, *, recompute: bool = False
) -> Tensor:
    """Logits (B, T, tokens) of each target token after those before it, in the format of `encoded`.

    What comes after a target changes nothing, so that padding needs no mask; its own logits mean
    nothing.

    Args:
        model: a `T5ForConditionalGeneration`, with or without LoRA.
        encoded: (B, P, W) from `encode`.
        mask: (B, P) of the prefix.
        targets: (B, T) tokens, padded on the right.
        recompute: as in `llm_options`.
    """
    stack, dtype, length = model.get_decoder(), encoded.dtype, targets.shape[1]
    start = torch.full_like(targets[:, :1], model.config.decoder_start_token_id)
    words = stack.embed_tokens(torch.cat([start, targets[:, :-1]], dim=1))
    later = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype, device=words.device)
    bias = aligned(position_bias(stack, length, length).to(dtype) + later.triu(1))
    memory_bias = padding_bias(mask, dtype)
    run = _runner(recompute and torch.is_grad_enabled(), dropout=stack.training)
    states = stack.dropout(words.to(torch.promote_types(words.dtype, dtype)))
    for block in stack.block:
        states = run(_decoder_block, block, states, bias, encoded, memory_bias, dtype)
    states = stack.dropout(normed(stack.final_layer_norm, states, dtype))
    if (scale := head_scale(model.config)) is not None:
        states = states * scale
    return product(model.get_output_embeddings(), states)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias (B, 1, 1, P) that hides the padding of mask (B, P) from attention."""
    bias = torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)
    return aligned(bias)[:, None, None]


def _encoder_block(block: nn.Module, states: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    states = self_attention(block.layer[0], states, bias, dtype)
    return feed_forward(block.layer[1], states, dtype)


def _decoder_block(
    block: nn.Module,
    states: Tensor,
    bias: Tensor,
    encoded: Tensor,
    memory_bias: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    states = self_attention(block.layer[0], states, bias, dtype)
    states = cross_attention(block.layer[1], states, encoded, memory_bias, dtype)
    return feed_forward(block.layer[2], states, dtype)


def _runner(recompute: bool, *, dropout: bool) -> Callable[..., Tensor]:
    """Calls a block; to recompute, only its inputs are kept for the backward pass."""
    if not recompute:
        return lambda block, *inputs: block(*inputs)

    def run(block: _Block, *inputs: object) -> Tensor:
        return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=dropout)

    return run
