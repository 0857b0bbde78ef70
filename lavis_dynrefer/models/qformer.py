"""The Q-Former of BLIP-2 without its text branch, from LAVIS's class, without a download."""

from __future__ import annotations

import torch
from lavis.models.blip2_models.Qformer import BertModel
from torch import Tensor, nn
from transformers import BertConfig

from lavis_dynrefer.config import QFormerConfig


class QFormer(nn.Module):
    """Compresses region tokens into Q queries.

    Args:
        bert: LAVIS's Q-Former trunk; takes query embeddings and cross-attends to region tokens.
        num_queries: Q.
        width: D.
    """

    def __init__(self, bert: nn.Module, *, num_queries: int, width: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, width))
        nn.init.normal_(self.query_tokens, std=0.02)  # BLIP-2, bert's initializer_range
        self.bert = bert
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """Map region tokens (B, N, C) to queries (B, Q, D)."""
        mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        return self.bert(
            query_embeds=self.query_tokens.expand(len(tokens), -1, -1),
            encoder_hidden_states=tokens,
            encoder_attention_mask=mask,
            return_dict=True,
        ).last_hidden_state


def build_qformer(config: QFormerConfig, *, region_width: int) -> QFormer:
    """Q-Former of any size with random weights; `region_width` is C."""
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
        initializer_range=config.initializer_range,
    )
    bert = BertModel(bert_config, add_pooling_layer=False)
    # Queries only: what serves text is never used and must not count as trainable.
    bert.embeddings.word_embeddings = None
    bert.embeddings.position_embeddings = None
    for layer in bert.encoder.layer:
        layer.intermediate = None
        layer.output = None
    return QFormer(bert, num_queries=config.num_queries, width=config.width)
