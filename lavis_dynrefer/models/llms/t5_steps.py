"""T5's decoder, one token at a time.

It uses the weights of Hugging Face's T5 and its arithmetic, without the checks and choices that T5
repeats in every layer of every step; in a small model those take longer than the arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_dynrefer.models.attention import aligned, attend, join_heads, split_heads
from lavis_dynrefer.models.llms.t5_layers import normed
from lavis_dynrefer.models.llms.t5_weights import DecoderProducts


class T5Steps:
    """Scores the next token of K beams of each of B sentences.

    Keys and values stay where they were written: all beams of a sentence look at all of its keys,
    and a mask leaves to each those of its own tokens. So nothing is copied when beams are sorted
    anew, and the keys of a sentence are read once for all of its beams.

    Args:
        products: of the decoder.
        position_bias: (1, h, S, S), of the decoder's self-attention; S is the number of tokens.
        rows: B.
        places: P, of the encoder's output.
        beams: K.
    """

    def __init__(
        self,
        products: DecoderProducts,
        position_bias: Tensor,
        *,
        rows: int,
        places: int,
        beams: int,
    ) -> None:
        self._products, self._rows, self._beams = products, rows, beams
        dtype, device = products.dtype, position_bias.device
        _, self._heads, self._tokens, _ = position_bias.shape
        later = torch.ones_like(position_bias[0, 0], dtype=torch.bool).triu(1)
        # (S, h, S), of each token to itself and the earlier ones
        self._bias = position_bias[0].transpose(0, 1).masked_fill(later[:, None], -torch.inf)
        self._bias = self._bias.to(dtype)
        self._columns = torch.arange(self._tokens, device=device)
        self._each_beam = torch.arange(beams, device=device)
        self._seen = 0  # tokens so far
        self._number = torch.zeros(1, dtype=torch.long, device=device)  # of the newest token
        self._newest = torch.arange(beams, device=device)  # places of its keys
        # (B, K, S) for each token of each beam the beam that wrote it
        self._writers = torch.zeros((rows, beams, self._tokens), dtype=torch.long, device=device)

        def cache(length: int) -> Tensor:
            shape = (len(products.blocks), rows, length, 2, products.inner_width)
            return torch.zeros(shape, dtype=dtype, device=device)

        self._caches, self._used = (cache(self._tokens * beams), cache(places)), False
        self._past, self._memory = map(list, self._caches)
        self._past_views = [self._keys_and_values(past) for past in self._past]
        self._memory_views = [self._keys_and_values(memory) for memory in self._memory]
        self._logits: Tensor | None = None  # kept from step to step: they may be millions
        self._mask = aligned(torch.zeros((rows, 1, 1, places), dtype=dtype, device=device))

    def _keys_and_values(self, cache: Tensor) -> list[Tensor]:
        """Views (B, h, m, d) of a cache (B, m, 2, h * d)."""
        return [split_heads(states, self._heads) for states in cache.unbind(2)]

    def begin(self, encoded: Tensor, mask: Tensor) -> None:
        """Start new sentences.

        Args:
            encoded: (B, P, W) output of the encoder; may have fewer rows and places.
            mask: (B, P) 1 for tokens, 0 for padding.
        """
        rows, places = mask.shape
        self._seen = 0
        self._number.zero_()
        self._newest.copy_(self._each_beam)
        self._writers.zero_()
        if self._used:
            for cache in self._caches:
                cache.zero_()  # no weight, not even 0, hides a NaN of earlier sentences
        self._used = True
        self._mask.fill_(torch.finfo(self._mask.dtype).min)
        self._mask[:rows, 0, 0, :places].masked_fill_(mask.bool(), 0)
        states = encoded.to(self._products.dtype).flatten(0, 1)
        for block, memory in zip(self._products.blocks, self._memory):
            memory[:rows, :places].copy_(block.memory(states).view(rows, places, 2, -1))

    def __call__(self, tokens: Tensor, parents: Tensor, *, whole: bool = False) -> Tensor:
        """Logits (B * K, tokens) after one more token.

        Args:
            tokens: (B * K,) newest token of each beam.
            parents: (B, K) beams of the previous step that these continue.
            whole: read all keys, also of tokens to come, whose weight is 0: the same operations for
                each token.
        """
        products, dtype, shape = self._products, self._products.dtype, (self._rows, self._beams)
        self._seen += 1
        seen = self._tokens if whole else self._seen
        bias, length = self._bias_of_newest(parents, seen), seen * self._beams
        states = products.embed(tokens).to(products.stream)  # (B * K, W)
        for number, block in enumerate(products.blocks):
            own = block.own(normed(block.own_norm, states, dtype)).view(*shape, 3, -1)
            self._past[number].index_copy_(1, self._newest, own[:, :, 1:])
            keys, values = (view[:, :, :length] for view in self._past_views[number])
            mixed = self._attend(own[:, :, 0], keys, values, bias)
            block.own_out.add_to(states, mixed)
            queries = block.cross(normed(block.cross_norm, states, dtype)).view(*shape, -1)
            mixed = self._attend(queries, *self._memory_views[number], self._mask)
            block.cross_out.add_to(states, mixed)
            hidden = block.inner(normed(block.inner_norm, states, dtype))
            block.inner_out.add_to(states, block.activate(hidden))
        self._number += 1
        self._newest += self._beams
        states = normed(products.last_norm, states, dtype)
        if products.head_scale is not None:
            states = states * products.head_scale
        self._logits = products.head(states, out=self._logits)
        return self._logits

    def _bias_of_newest(self, parents: Tensor, seen: int) -> Tensor:
        """Bias (B or 1, h, K, seen * K) of the newest tokens: of other beams' tokens it is -inf."""
        row = self._bias.index_select(0, self._number)[:, :, None, :seen]  # (1, h, 1, seen)
        if self._beams == 1:
            return aligned(row)
        inherited = self._writers.gather(1, parents[..., None].expand_as(self._writers))
        newest = self._columns == self._number
        torch.where(newest, self._each_beam[:, None], inherited, out=self._writers)
        own = self._writers[:, None, :, :seen, None] == self._each_beam  # (B, 1, K, seen, K)
        return aligned(torch.where(own, row[..., None], -torch.inf).flatten(3))

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attention of queries (B, K, h * d), as (B * K, h * d)."""
        mixed = attend(split_heads(queries, self._heads), keys, values, bias=bias, scale=1.0)
        return join_heads(mixed).flatten(0, 1)


def cache_bytes(products: DecoderProducts, rows: int, places: int, beams: int, tokens: int) -> int:
    """Bytes that `T5Steps` and the search around it keep, nearly."""
    size = torch.empty((), dtype=products.dtype).element_size()
    keys = 2 * len(products.blocks) * products.inner_width * (places + beams * tokens)
    return rows * (size * keys + (size + 4) * beams * products.tokens)
