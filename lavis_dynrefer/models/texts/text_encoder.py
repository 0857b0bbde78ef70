"""The CLIP-style text tower, built from LAVIS's transformer without a download."""

from __future__ import annotations

from collections.abc import Sequence

import lavis  # noqa: F401  first, for threads
import torch
from lavis.models.clip_models.model import Transformer
from torch import Tensor, nn

from lavis_dynrefer.config import TextEncoderConfig
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
        mask = torch.full((length, length), float("-inf")).triu(1)
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
