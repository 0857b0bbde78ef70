"""The CLIP-style text tower, built from LAVIS's transformer without a download."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lavis.models.clip_models.model import Transformer
from torch import Tensor, nn

from lavis_dynrefer.config import TextEncoderConfig
from lavis_dynrefer.models.texts.tokenizers import TextTokenizer, build_text_tokenizer


class TextEncoder(nn.Module):
    """Embeds short texts: the state at the end token, projected, not normalised.

    Args:
        tokenizer: turns texts into ids.
        width: of the transformer.
        depth: number of blocks.
        heads: attention heads.
        embed_dim: E.
        context_length: most tokens of a text.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        width: int,
        depth: int,
        heads: int,
        embed_dim: int,
        context_length: int,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.embed_dim = embed_dim
        self.token_embedding = nn.Embedding(tokenizer.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.transformer = Transformer(width, depth, heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)  # CLIP
        nn.init.normal_(self.positional_embedding, std=0.01)  # CLIP
        nn.init.normal_(self.text_projection, std=width**-0.5)  # CLIP
        mask = torch.full((context_length, context_length), float("-inf")).triu(1)
        self.register_buffer("causal_mask", mask, persistent=False)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (K, E) of K texts."""
        ids = self.tokenizer(texts).to(self.token_embedding.weight.device)
        length = ids.shape[1]
        states = self.token_embedding(ids) + self.positional_embedding[:length]
        # LAVIS's transformer takes the sequence first.
        states = self.transformer(states.transpose(0, 1), self.causal_mask[:length, :length])
        states = self.ln_final(states.transpose(0, 1))
        ends = (ids == self.tokenizer.end_id).int().argmax(dim=1)
        return states[torch.arange(len(ids), device=ids.device), ends] @ self.text_projection


def build_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """A text tower with random weights."""
    tokenizer = build_text_tokenizer(config.tokenizer, context_length=config.context_length)
    return TextEncoder(
        tokenizer,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        embed_dim=config.embed_dim,
        context_length=config.context_length,
    )
