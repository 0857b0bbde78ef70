"""Cache of text embeddings: one entry per vocabulary, renewed when weights change."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lavis_dynrefer.models.precision import without_autocast
from lavis_dynrefer.models.texts.text_encoder import TextEncoder

CHUNK = 256  # texts per batch; all of RAM's 4,585 tags would take gigabytes


class TextBank:
    """Caches the embeddings of whole vocabularies of one text tower.

    Args:
        encoder: the text tower.
        capacity: number of vocabularies; the least recently used is dropped.
    """

    def __init__(self, encoder: TextEncoder, *, capacity: int = 16) -> None:
        self._encoder = encoder
        self._capacity = capacity
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, ...], tuple[Hashable, Tensor]] = {}

    def _fingerprint(self) -> Hashable:
        """Changes with every write that torch counts: optimiser steps, loading, `.to()`."""
        weight = self._encoder.token_embedding.weight
        version = sum(parameter._version for parameter in self._encoder.parameters())
        return weight.device, weight.dtype, weight.data_ptr(), version

    def __call__(self, texts: Sequence[str], *, keep: bool = True) -> Tensor:
        """Embeddings (K, E) of K texts; with gradient only if the tower itself is trained.

        Args:
            texts: a vocabulary, or captions.
            keep: whether to cache them.
        """
        if torch.is_grad_enabled() and any(
            parameter.requires_grad for parameter in self._encoder.parameters()
        ):
            return self._encoder(texts)
        key, fingerprint = tuple(texts), self._fingerprint()
        with self._lock:
            known = self._cache.pop(key, None)
            if known is None or known[0] != fingerprint:
                known = (fingerprint, self._embed(texts))
            if keep:
                self._cache[key] = known  # as the most recent
                while len(self._cache) > self._capacity:
                    del self._cache[next(iter(self._cache))]
        return known[1]

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings without gradient, in the tower's own precision."""
        device = self._encoder.token_embedding.weight.device
        # Not as inference tensors: training may use the same bank afterwards.
        with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
            chunks = [
                self._encoder(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)
            ]
            return torch.cat(chunks) if chunks else self._encoder(["x"])[:0]

    def clear(self) -> None:
        """Drop everything; needed if weights changed in a way that torch does not count."""
        with self._lock:
            self._cache.clear()

    def __deepcopy__(self, memo: dict[int, object]) -> TextBank:
        """A bank of the copied tower, empty: a lock cannot be copied."""
        return TextBank(copy.deepcopy(self._encoder, memo), capacity=self._capacity)
