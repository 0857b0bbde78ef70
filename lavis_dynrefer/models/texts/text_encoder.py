"""The CLIP-style text tower, built from LAVIS's transformer without a download."""

from __future__ import annotations

from collections.abc import Sequence

import lavis  # noqa: F401  first, for threads
import torch
import torch.nn.functional as F
from lavis.models.clip_models.model import ResidualAttentionBlock, Transformer
from torch import Tensor, nn

from lavis_dynrefer.config import TextEncoderConfig
from lavis_dynrefer.models.attention import attend, join_heads, split_heads
from lavis_dynrefer.models.texts.tokenizers import build_text_tokenizer


class TextEncoder(nn.Module):
    """Embeds short texts: the state at the end token, projected, not normalised; random weights.

    Args:
        config: E is its `embed_dim`.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        width, length = config.width, config.context_length
        self.tokenizer = build_text_tokenizer(config.tokenizer, context_length=length)
        self.embed_dim = config.embed_dim
        self.token_embedding = nn.Embedding(self.tokenizer.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.transformer = Transformer(width, config.depth, config.heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)  # CLIP
        nn.init.normal_(self.positional_embedding, std=0.01)  # CLIP
        nn.init.normal_(self.text_projection, std=width**-0.5)  # CLIP

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (K, E) of K texts."""
        return self.embed(self.tokenizer(texts))

    def lengths(self, ids: Tensor) -> Tensor:
        """Tokens (K,) of each row of `ids` (K, T), its end token included."""
        return (ids == self.tokenizer.end_id).int().argmax(dim=1) + 1

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (K, E) of token ids (K, T) on the CPU, as the tokenizer returns them."""
        lengths = self.lengths(ids)
        # No token sees a later one: what follows the longest text changes nothing.
        longest = int(lengths.max()) if len(ids) else 1
        # With one copy: each would stop a GPU for a moment.
        together = torch.cat([ids[:, :longest], lengths[:, None] - 1], dim=1).to(self.device)
        ids, ends = together[:, :-1], together[:, -1]
        states = self.token_embedding(ids) + self.positional_embedding[:longest]
        for block in self.transformer.resblocks:
            states = _block(block, states)
        last = states[torch.arange(len(ids), device=self.device), ends]
        return self.ln_final(last) @ self.text_projection


def _block(block: ResidualAttentionBlock, states: Tensor) -> Tensor:
    """LAVIS's block for states (K, T, W), no token seeing a later one."""
    inner = block.attn
    joined = F.linear(block.ln_1(states), inner.in_proj_weight, inner.in_proj_bias)
    parts = (split_heads(part, inner.num_heads) for part in joined.chunk(3, dim=-1))
    states = states + inner.out_proj(join_heads(attend(*parts, causal=True)))
    return states + block.mlp(block.ln_2(states))
