"""T5's decoder, one token at a time.

It uses the layers of Hugging Face's T5 and its arithmetic, without the checks and choices that T5
repeats in every layer of every step; in a small model those take longer than the arithmetic.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn


class T5Steps:
    """Scores the next token of several beams per sentence.

    Args:
        model: a `T5ForConditionalGeneration`, with or without LoRA.
        encoded: (B, P, W) output of its encoder.
        mask: (B, P) 1 for tokens, 0 for padding.
        beams: K.
        steps: maximum number of tokens.
    """

    def __init__(
        self, model: nn.Module, encoded: Tensor, mask: Tensor, *, beams: int, steps: int
    ) -> None:
        decoder = model.get_decoder()
        self.decoder, self.head = decoder, model.get_output_embeddings()
        self.head_scale = model.config.d_model**-0.5 if model.config.tie_word_embeddings else None
        self.sentences, self.beams, self.length = len(encoded), beams, 0
        self.heads = model.config.num_heads
        self.position_bias = decoder.block[0].layer[0].SelfAttention.compute_bias(steps, steps)
        self.mask = decoder.invert_attention_mask(mask)  # (B, 1, 1, P)
        self.memory = [
            [self._by_head(layer(encoded)) for layer in (attention.k, attention.v)]
            for attention in (block.layer[1].EncDecAttention for block in decoder.block)
        ]
        # Keys and values of all layers and earlier tokens.
        keys = self.memory[0][0]
        shape = (2 * len(decoder.block), self.sentences * beams, self.heads, steps, keys.shape[-1])
        self.past = keys.new_empty(shape)

    def _by_head(self, states: Tensor) -> Tensor:
        return rearrange(states, "b p (h d) -> b h p d", h=self.heads)

    def __call__(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Logits (B * K, tokens) after one more token.

        Args:
            tokens: (B * K,) newest token of each beam.
            rows: (B * K,) beams of the previous step that these continue.
        """
        if self.beams > 1 and self.length:
            past = self.past[..., : self.length, :]
            past.copy_(past[:, rows])
        self.length += 1
        states = self.decoder.embed_tokens(tokens)  # (B * K, W)
        for number, block in enumerate(self.decoder.block):
            states = self._self_attention(block.layer[0], states, number)
            states = self._cross_attention(block.layer[1], states, number)
            states = block.layer[2](states)
        states = self.decoder.final_layer_norm(states)
        return self.head(states if self.head_scale is None else states * self.head_scale)

    def _self_attention(self, layer: nn.Module, states: Tensor, number: int) -> Tensor:
        """Self-attention to all tokens so far, including the newest."""
        attention, normed, new = layer.SelfAttention, layer.layer_norm(states), self.length - 1
        keys, values = self.past[2 * number], self.past[2 * number + 1]  # (B * K, h, steps, d)
        shape = (len(states), self.heads, -1)
        keys[:, :, new] = attention.k(normed).view(shape)
        values[:, :, new] = attention.v(normed).view(shape)
        queries = attention.q(normed).view(*shape[:2], 1, keys.shape[-1])
        bias = self.position_bias[:, :, new, None, : self.length]
        mixed = _attend(queries, keys[:, :, : self.length], values[:, :, : self.length], bias)
        return states + attention.o(mixed.flatten(1))

    def _cross_attention(self, layer: nn.Module, states: Tensor, number: int) -> Tensor:
        """Attention to the encoder's output; the beams of a sentence share it."""
        attention = layer.EncDecAttention
        # view, not rearrange: in this loop the overhead of rearrange would be noticeable.
        shape = (self.sentences, self.beams, self.heads, -1)
        queries = attention.q(layer.layer_norm(states)).view(shape).transpose(1, 2)
        mixed = _attend(queries, *self.memory[number], self.mask).transpose(1, 2)
        return states + attention.o(mixed.reshape(len(states), -1))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """T5's attention: scores are not scaled. Shapes (B, h, n, d), bias (..., n, P)."""
    scores = queries @ keys.transpose(2, 3) + bias
    return scores.softmax(dim=-1, dtype=torch.float32).type_as(values) @ values
