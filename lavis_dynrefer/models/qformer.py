"""The Q-Former of BLIP-2 without its text branch, from LAVIS's class, without a download."""

from __future__ import annotations

from functools import partial

import lavis  # noqa: F401  first, for threads
import torch
from lavis.models.blip2_models.Qformer import BertEmbeddings, BertEncoder
from torch import Tensor, nn
from transformers import BertConfig

from lavis_dynrefer.config import QFormerConfig
from lavis_dynrefer.models.attention import bert_attention, keys_and_values


class QFormer(nn.Module):
    """Compresses region tokens into Q queries; random weights.

    Args:
        config: Q is its `num_queries`, D its `width`.
        region_width: C, of the region tokens.
    """

    def __init__(self, config: QFormerConfig, *, region_width: int) -> None:
        super().__init__()
        self.width = config.width
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_queries, config.width))
        nn.init.normal_(self.query_tokens, std=0.02)  # BLIP-2, bert's initializer_range
        bert_config = BertConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.mlp_width,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            encoder_width=region_width,
            add_cross_attention=True,
            cross_attention_freq=config.cross_attention_freq,
            query_length=config.num_queries,
        )
        self.bert = _Bert(bert_config, std=config.initializer_range)
        # Queries only: what serves text is never used and must not count as trainable.
        self.bert.embeddings.word_embeddings = None
        self.bert.embeddings.position_embeddings = None
        for layer in self.bert.encoder.layer:
            layer.intermediate = None
            layer.output = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map region tokens (B, N, C) to queries (B, Q, D)."""
        embeddings = self.bert.embeddings
        states = embeddings.LayerNorm(self.query_tokens)
        if embeddings.dropout.training:  # else all regions share the states before they see tokens
            states = states.expand(len(tokens), -1, -1)
        states = embeddings.dropout(states)
        for layer in self.bert.encoder.layer:
            own = keys_and_values(layer.attention, states)
            states = bert_attention(layer.attention, states, *own)
            if layer.has_cross_attention:  # the first layer has it
                seen = keys_and_values(layer.crossattention, tokens)
                states = bert_attention(layer.crossattention, states, *seen)
            states = layer.output_query(layer.intermediate_query(states), states)
        return states


class _Bert(nn.Module):
    """LAVIS's `BertModel` without the base class from transformers, which each version changes."""

    def __init__(self, config: BertConfig, *, std: float) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.apply(partial(_draw, std=std))


def _draw(module: nn.Module, *, std: float) -> None:
    """Give a layer BERT's start values; norms have them already."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
