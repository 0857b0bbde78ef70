"""Cache of text embeddings: one entry per vocabulary, renewed when weights change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from lavis_dynrefer.models.precision import without_autocast
from lavis_dynrefer.models.texts.kept_embeddings import checksum, kept
from lavis_dynrefer.models.texts.text_encoder import TextEncoder

logger = logging.getLogger(__name__)

CHUNK_ON_CPU = 64  # texts at once: what they need stays in the cache of a core
CHUNK_ELSEWHERE = 512
# Tokens x parameters from which embeddings are kept on disk: about half a second on two cores.
WORTH_KEEPING = 2e10
TELL_AFTER, TELL_EVERY = 3.0, 15.0  # seconds


class TextBank:
    """Caches the embeddings of whole vocabularies of one text tower.

    Those that took long are also kept on disk, see `kept_embeddings`, unless the tower is trained.

    Args:
        encoder: the text tower.
        capacity: number of vocabularies; the least recently used is dropped.
    """

    def __init__(self, encoder: TextEncoder, *, capacity: int = 16) -> None:
        self._encoder = encoder
        self._capacity = capacity
        # Entered while the tower works; see `models.idle_parts`.
        self.at_work: Callable[[], AbstractContextManager[None]] = nullcontext
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, ...], tuple[Hashable, Tensor]] = {}
        self._checksum: tuple[Hashable, str] | None = None

    def __call__(self, texts: Sequence[str], *, keep: bool = True) -> Tensor:
        """Embeddings (K, E) of K texts; with gradient only if the tower itself is trained.

        Args:
            texts: a vocabulary, or captions.
            keep: whether to cache them.
        """
        weights = list(self._encoder.parameters())
        trained = any(weight.requires_grad for weight in weights)
        if torch.is_grad_enabled() and trained:
            return self._encoder(texts)
        # Changes with every write that torch counts: optimiser steps, loading, `.to()`.
        versions = tuple((weight.data_ptr(), weight._version) for weight in weights)
        key, fingerprint = tuple(texts), (weights[0].device, weights[0].dtype, versions)
        with self._lock:
            known = self._cache.pop(key, None)
            if known is None or known[0] != fingerprint:
                known = (fingerprint, self._embed(texts, fingerprint, keep and not trained))
            if keep:
                self._cache[key] = known  # as the most recent
                while len(self._cache) > self._capacity:
                    del self._cache[next(iter(self._cache))]
        return known[1]

    def _embed(self, texts: Sequence[str], fingerprint: Hashable, keep: bool) -> Tensor:
        """Embeddings without gradient, in the tower's own precision; from disk if they are kept."""
        with self.at_work():
            return self._embed_at_work(texts, fingerprint, keep)

    def _embed_at_work(self, texts: Sequence[str], fingerprint: Hashable, keep: bool) -> Tensor:
        device = self._encoder.device
        # Not as inference tensors: training may use the same bank afterwards.
        with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
            ids = self._encoder.tokenizer(texts or ["x"])[: len(texts)]
            lengths = self._encoder.lengths(ids)
            size = sum(each.numel() for each in self._encoder.transformer.parameters())
            if not keep or int(lengths.sum()) * size < WORTH_KEEPING:
                return self._encode(ids, lengths)
            key = checksum({"ids": ids}, self._weights(fingerprint), device.type)
            return kept(key, lambda: self._encode(ids, lengths)).to(device)

    def _weights(self, fingerprint: Hashable) -> str:
        """Checksum of the tower."""
        if self._checksum is None or self._checksum[0] != fingerprint:
            heads = [block.attn.num_heads for block in self._encoder.transformer.resblocks]
            value = checksum(self._encoder.state_dict(), heads, self._encoder.tokenizer.end_id)
            self._checksum = (fingerprint, value)
        return self._checksum[1]

    def _encode(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings (K, E) of token ids (K, T), texts of about one length at a time."""
        on_cpu = self._encoder.device.type == "cpu"
        size = CHUNK_ON_CPU if on_cpu else CHUNK_ELSEWHERE
        if len(ids) <= size:
            return self._encoder.embed(ids)
        order = lengths.argsort(stable=True)
        chunks = _telling(order.split(size), lengths)
        rows = torch.cat([self._encoder.embed(ids[chunk]) for chunk in chunks])
        return rows[order.argsort().to(rows.device)]

    def clear(self) -> None:
        """Drop everything; needed if weights changed in a way that torch does not count."""
        with self._lock:
            self._cache.clear()
            self._checksum = None

    def __reduce__(self) -> tuple[object, ...]:
        """An empty bank of the copied tower: a lock can be neither copied nor pickled."""
        return partial(TextBank, capacity=self._capacity), (self._encoder,)


def _telling(chunks: Sequence[Tensor], lengths: Tensor) -> Iterator[Tensor]:
    """The chunks; logs now and then how much is done, where that takes long.

    Args:
        chunks: indices into the texts.
        lengths: (K,) tokens of each text, the measure of work.
    """
    silent = dist.is_available() and dist.is_initialized() and dist.get_rank() > 0
    total, done = int(lengths.sum()), 0
    started = time.monotonic()
    next_time = started + TELL_AFTER
    for chunk in chunks:
        now = time.monotonic()
        if done and now > next_time and not silent:
            left = (now - started) * (total - done) / done
            logger.warning(
                "Embedding %d texts, once for this text tower: %.0f %% done, about %.0f s left",
                len(lengths),
                100 * done / total,
                left,
            )
            next_time = now + TELL_EVERY
        yield chunk
        done += int(lengths[chunk].sum())
