"""Texts as queries over a region: the decoder that tagging and contrast both use."""

from __future__ import annotations

import lavis  # noqa: F401  first, for threads
import torch.nn.functional as F
from einops import repeat
from lavis.models.blip2_models.Qformer import BertAttention, BertIntermediate, BertOutput
from torch import Tensor, nn
from transformers import BertConfig

from lavis_dynrefer.config import QueryDecoderConfig
from lavis_dynrefer.models.precision import bf16_instead_of_fp16, without_autocast


class QueryDecoderLayer(nn.Module):
    """Cross-attention from texts to region queries, then a feed-forward block; post-norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.crossattention = BertAttention(config, is_cross_attention=True)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config)

    def forward(self, texts: Tensor, queries: Tensor) -> Tensor:
        """Update texts (B, K, W) from queries (B, Q, W)."""
        attended = self.crossattention(texts, encoder_hidden_states=queries)[0]
        return self.output(self.intermediate(attended), attended)


class QueryDecoder(nn.Module):
    """Scores every text against every region.

    Args:
        config: width, depth, heads, ... of the decoder.
        text_dim: E, width of a text embedding.
        region_dim: D, width of a region query.
        normalise: scale the decoded text to length 1 before the classifier (contrast does).
    """

    def __init__(
        self, config: QueryDecoderConfig, *, text_dim: int, region_dim: int, normalise: bool
    ) -> None:
        super().__init__()
        bert_config = BertConfig(
            hidden_size=config.width,
            encoder_width=config.width,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
        )
        self.normalise = normalise
        self.text_proj = nn.Linear(text_dim, config.width)
        self.vision_proj = nn.Linear(region_dim, config.width)
        self.layers = nn.ModuleList(QueryDecoderLayer(bert_config) for _ in range(config.depth))
        self.classifier = nn.Linear(config.width, 1)

    def forward(self, texts: Tensor, queries: Tensor) -> Tensor:
        """Score texts (K, E) against regions (B, Q, D); returns logits (B, K)."""
        # From float16 outside: without bfloat16 the block below is plain float32.
        stored = self.classifier.weight.dtype
        texts, queries = texts.to(stored), queries.to(stored)
        with bf16_instead_of_fp16(queries.device):
            states = repeat(self.text_proj(texts), "k w -> b k w", b=len(queries))
            vision = self.vision_proj(queries)
            for layer in self.layers:
                states = layer(states, vision)
        # In bfloat16 a third of the scores of a region would be tied.
        with without_autocast(queries.device):
            states = states.to(stored)
            if self.normalise:
                states = F.normalize(states, dim=-1)
            return self.classifier(states).squeeze(-1)
