"""Text embeddings that are computed once per vocabulary and recomputed when weights change."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lavis_dynrefer.models.text_encoder import TextEncoder


class TextBank:
    """Remembers the embeddings of whole vocabularies for one text tower.

    Args:
        encoder: the text tower.
        capacity: vocabularies kept; the oldest goes first.
    """

    def __init__(self, encoder: TextEncoder, *, capacity: int = 16) -> None:
        self._encoder = encoder
        self._capacity = capacity
        self._cache: dict[tuple[str, ...], tuple[Hashable, Tensor]] = {}

    def _fingerprint(self) -> Hashable:
        """Changes with every write to the weights: optimiser steps, loading, moving."""
        weight = self._encoder.token_embedding.weight
        version = sum(parameter._version for parameter in self._encoder.parameters())
        return weight.device, weight.dtype, weight.data_ptr(), version

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (K, E) of K texts; with gradient only while the tower itself is trained."""
        trained = self._encoder.token_embedding.weight.requires_grad and torch.is_grad_enabled()
        if trained:
            return self._encoder(texts)
        key, fingerprint = tuple(texts), self._fingerprint()
        known = self._cache.get(key)
        if known is not None and known[0] == fingerprint:
            return known[1]
        # Not as inference tensors: training may use the same bank afterwards.
        with torch.inference_mode(False), torch.no_grad():
            embeddings = self._encoder(texts)
        self._cache.pop(key, None)
        if len(self._cache) >= self._capacity:
            self._cache.pop(next(iter(self._cache)))
        self._cache[key] = (fingerprint, embeddings)
        return embeddings
