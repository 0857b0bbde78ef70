"""Texts as queries over a region: the decoder that tagging and contrast both use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lavis  # noqa: F401  first, for threads
import torch
import torch.nn.functional as F
from lavis.models.blip2_models.Qformer import BertAttention, BertIntermediate, BertOutput
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig

from lavis_dynrefer.config import QueryDecoderConfig
from lavis_dynrefer.models.attention import bert_attention, bert_queries, keys_and_values
from lavis_dynrefer.models.precision import bf16_instead_of_fp16, without_autocast

# Texts x regions decoded at once. On a CPU what they need must stay in its cache.
ROWS_ON_CPU = 2048
ROWS_ELSEWHERE = 32_768  # 128 MiB of float32 in the feed-forward block of the full model
# Training keeps about 10 KB per row for the backward pass: from here on it computes them again.
ROWS_KEPT = 65_536


class QueryDecoderLayer(nn.Module):
    """Cross-attention from texts to region queries, then a feed-forward block; post-norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.crossattention = BertAttention(config, is_cross_attention=True)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config)

    def forward(
        self, texts: Tensor, keys: Tensor, values: Tensor, text_queries: Tensor | None = None
    ) -> Tensor:
        """Update texts (B or 1, K, W) from the keys and values of regions; returns (B, K, W).

        Args:
            texts: (B, K, W), or (1, K, W) for all regions.
            keys: (B, h, Q, d) of the regions, as from `keys_and_values`.
            values: (B, h, Q, d).
            text_queries: `bert_queries` of the texts, where they are known already.
        """
        attended = bert_attention(self.crossattention, texts, keys, values, text_queries)
        return self.output(self.intermediate(attended), attended)


@dataclass(frozen=True)
class TextSide:
    """What the decoder computes of texts alone.

    Args:
        states: (1, K, W) projected texts.
        queries: (1, h, K, d) queries of the first layer.
    """

    states: Tensor
    queries: Tensor

    def chunks(self, size: int) -> Iterator[TextSide]:
        """The same, `size` texts at a time."""
        parts = zip(self.states.split(size, dim=1), self.queries.split(size, dim=2))
        return (TextSide(*part) for part in parts)


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
        return self._by_chunks(self._score, texts, queries)

    def read(self, texts: Tensor, queries: Tensor) -> Tensor:
        """What the classifier scores: texts (K, E), each after a look at a region; (B, K, W)."""
        return self._by_chunks(self._read, texts, queries)

    def classify(self, states: Tensor) -> Tensor:
        """Logits (B, K) of what `read` returns."""
        # In bfloat16 a third of the scores of a region would be tied.
        with without_autocast(states.device):
            return self.classifier(states).squeeze(-1)

    def _by_chunks(self, compute: Callable[..., Tensor], texts: Tensor, queries: Tensor) -> Tensor:
        # From float16 outside: without bfloat16 the block below is plain float32.
        stored = self.classifier.weight.dtype
        texts, queries = texts.to(stored), queries.to(stored)
        with bf16_instead_of_fp16(queries.device):
            side = self._text_side(texts)
            vision = self.vision_proj(queries)
            regions = [keys_and_values(layer.crossattention, vision) for layer in self.layers]
            flat = [tensor for pair in regions for tensor in pair]
            rows = len(texts) * len(queries)
            training = torch.is_grad_enabled()
            if training and rows <= ROWS_KEPT:
                return compute(side.states, side.queries, *flat)
            most = ROWS_ON_CPU if queries.device.type == "cpu" else ROWS_ELSEWHERE
            found = [
                checkpoint(compute, part.states, part.queries, *flat, use_reentrant=False)
                if training
                else compute(part.states, part.queries, *flat)
                for part in side.chunks(max(1, most // max(1, len(queries))))
            ]
            return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _score(self, states: Tensor, text_queries: Tensor, *regions: Tensor) -> Tensor:
        """Logits (B, K) from a `TextSide` and the keys and values of each layer in turn."""
        return self.classify(self._read(states, text_queries, *regions))

    def _read(self, states: Tensor, text_queries: Tensor, *regions: Tensor) -> Tensor:
        """(B, K, W) in the format of the classifier; arguments as for `_score`."""
        for index, layer in enumerate(self.layers):
            keys, values = regions[2 * index : 2 * index + 2]
            states = layer(states, keys, values, text_queries if index == 0 else None)
        with without_autocast(states.device):
            states = states.to(self.classifier.weight.dtype)
            return F.normalize(states, dim=-1) if self.normalise else states

    def _text_side(self, texts: Tensor) -> TextSide:
        """Of texts (K, E)."""
        states = self.text_proj(texts)[None]
        return TextSide(states, bert_queries(self.layers[0].crossattention, states))
