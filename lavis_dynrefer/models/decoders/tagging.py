"""Tagging: which tags of a fixed vocabulary apply to the region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.decoders.query_decoder import QueryDecoder
from lavis_dynrefer.models.probabilities.calibration import Calibration, on_host
from lavis_dynrefer.structures import ScoredName


class TagDecoder(nn.Module):
    """Tag texts as queries over the region.

    Args:
        decoder: scores text embeddings against regions.
        tags: the tag list, in vocabulary order.
        threshold: a tag is kept when its score is strictly above it.
    """

    def __init__(self, decoder: QueryDecoder, *, tags: Sequence[str], threshold: float) -> None:
        super().__init__()
        self.decoder = decoder
        self.tags = tuple(tags)
        self.threshold = threshold

    def forward(self, tag_embeddings: Tensor, queries: Tensor) -> Tensor:
        """Logits (B, K) of all tags from their embeddings (K, E) and queries (B, Q, D)."""
        return self.decoder(tag_embeddings, queries)

    def names(
        self, logits: Tensor, tags: Sequence[str], calibration: Calibration | None = None
    ) -> list[tuple[ScoredName, ...]]:
        """Kept tags per region with their scores, the sigmoid of their logits, best first.

        Args:
            logits: (B, K).
            tags: K tags.
            calibration: of the model; without it the scores are the probabilities.
        """
        numbers = None if calibration is None else calibration.numbers("tags")
        logits, ((scale, bias),) = on_host(logits, numbers)
        kept = []
        for row, shares in zip(logits.sigmoid(), (scale * logits + bias).sigmoid()):
            hits = (row > self.threshold).nonzero().flatten().tolist()
            found = [ScoredName(tags[hit], float(row[hit]), float(shares[hit])) for hit in hits]
            kept.append(tuple(sorted(found, key=lambda tag: -tag.score)))
        return kept


def multi_hot(tags: Sequence[Sequence[int]], count: int) -> Tensor:
    """Tags as targets of the tagging loss.

    Args:
        tags: for each of B regions, indices into the tag list.
        count: K, the length of the tag list.

    Returns:
        (B, K) of 0 and 1.

    Raises:
        InputError: an index beyond the tag list.
    """
    sizes = torch.tensor([len(row) for row in tags], dtype=torch.long)
    columns = torch.tensor([index for row in tags for index in row], dtype=torch.long)
    unknown = columns[(columns < 0) | (columns >= count)]
    if len(unknown):
        raise InputError(
            f"tags: expected indices into the model's list of {count} tags, got {unknown[0]}; "
            "give the dataset and the model the same tag list"
        )
    hot = torch.zeros(len(tags), count)
    hot[torch.arange(len(tags)).repeat_interleave(sizes), columns] = 1
    return hot
