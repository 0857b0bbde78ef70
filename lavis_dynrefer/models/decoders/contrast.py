"""Region-text contrast: any text against any region; answers attributes and categories."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import QueryDecoderConfig
from lavis_dynrefer.models.decoders.query_decoder import QueryDecoder
from lavis_dynrefer.models.gather_rows import gather_rows
from lavis_dynrefer.models.losses import sigmoid_contrastive_loss


class ContrastDecoder(nn.Module):
    """Scores free texts against regions; for the widths see `QueryDecoder`."""

    def __init__(self, config: QueryDecoderConfig, *, text_dim: int, region_dim: int) -> None:
        super().__init__()
        self.decoder = QueryDecoder(
            config, text_dim=text_dim, region_dim=region_dim, normalise=True
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(10)))  # SigLIP
        self.bias = nn.Parameter(torch.tensor(-10.0))  # SigLIP

    def forward(self, texts: Tensor, queries: Tensor) -> Tensor:
        """Logits (B, K) of texts (K, E) against queries (B, Q, D)."""
        return self.decoder(texts, queries)

    def loss(self, texts: Tensor, queries: Tensor) -> Tensor:
        """Contrast caption i (B, E) with region i (B, Q, D) and with no other, over all processes.

        Own captions meet everyone's regions and own regions meet everyone's captions; what comes
        from other processes carries no gradient, as in the released code.
        """
        (all_texts, all_queries), start = gather_rows(texts, queries)
        text_to_region = self.decoder(texts, all_queries).T  # (B, regions of all processes)
        region_to_text = self.decoder(all_texts, queries)  # (B, captions of all processes)
        halves = [
            sigmoid_contrastive_loss(
                similarity, log_scale=self.log_scale, bias=self.bias, first_column=start
            )
            for similarity in (text_to_region, region_to_text)
        ]
        return sum(halves) / 2
