"""Sentences from T5's decoder by beam search."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.device_errors import is_out_of_memory
from lavis_dynrefer.models.llms.beam_search import BeamSearch, run, sentence_search
from lavis_dynrefer.models.llms.recorded_step import FEWEST, Capture, RecordedStep
from lavis_dynrefer.models.llms.t5_layers import position_bias
from lavis_dynrefer.models.llms.t5_steps import T5Steps, cache_bytes
from lavis_dynrefer.models.llms.t5_weights import DecoderProducts, fingerprint

# Searches that are kept with their recorded steps take at most this share of a GPU's memory.
MOST_KEPT = 1 / 8


@dataclass(frozen=True)
class SearchShape:
    """Rows, places of the encoder's output, and most tokens of a search."""

    rows: int
    places: int
    tokens: int

    def rounded(self) -> SearchShape:
        """One of a few that holds this one, so that few steps are recorded.

        Attention on a GPU wants numbers of keys that are multiples of 8.
        """
        rows = 1 << (self.rows - 1).bit_length() if self.rows <= 32 else _up(self.rows, 16)
        return SearchShape(rows, _up(self.places, 8), _up(self.tokens, 8))


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class T5Search:
    """Finds the best sentences; keeps what it can use again while the weights stay the same.

    Args:
        capture: records a step on devices of the type `recording`; None: no step is recorded.
        recording: type of the devices on which a step is recorded.
    """

    def __init__(self, capture: Capture | None = None, *, recording: str = "cuda") -> None:
        self._capture, self._recording = capture, recording
        self._lock = threading.Lock()
        self._products: dict[torch.dtype, tuple[Hashable, DecoderProducts]] = {}
        self._kept: dict[Hashable, _Search] = {}

    def __reduce__(self) -> Any:
        """A copy starts empty, since the weights are copied too."""
        return partial(T5Search, self._capture, recording=self._recording), ()

    def clear(self) -> None:
        """Let go of what is kept."""
        with self._lock:
            self._products.clear()
            self._kept.clear()

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        encoded: Tensor,
        mask: Tensor,
        options: GenerationConfig,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Best sentence of each row, or several.

        Args:
            model: a `T5ForConditionalGeneration`, with or without LoRA.
            encoded: (B, P, W) output of its encoder.
            mask: (B, P) 1 for tokens, 0 for padding.
            options: see `BeamSearch`.
            dtype: number format of products.

        Returns:
            Tokens (B * n, T) and log-probabilities (B * n,) of `options.kept_beams` sentences n
            of each row, see `BeamSearch.best`.
        """
        shape = SearchShape(*mask.shape, options.max_new_tokens)
        recorded = encoded.device.type == self._recording and not options.samples
        if self._capture is None or not recorded:
            products = self._products_of(model, dtype)
            return _Search(model, products, shape, options, None)(encoded, mask)
        # What the caller's inference mode made could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad(), _current(encoded.device):
            products = self._products_of(model, dtype)
            if options.max_new_tokens < FEWEST:
                return _Search(model, products, shape, options, None)(encoded, mask)
            with self._lock:  # those that are kept are for one at a time
                return self._find(model, products, shape.rounded(), options, encoded, mask)

    def _products_of(self, model: nn.Module, dtype: torch.dtype) -> DecoderProducts:
        now = fingerprint(model)
        with self._lock:
            known = self._products.get(dtype)
            if known is None or known[0] != now:
                products = DecoderProducts(model, dtype)  # may move weights
                self._products[dtype] = known = (fingerprint(model), products)
                self._kept.clear()
            return known[1]

    def _find(
        self,
        model: nn.Module,
        products: DecoderProducts,
        shape: SearchShape,
        options: GenerationConfig,
        encoded: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """By a search that is kept."""
        try:
            search = self._take(model, products, shape, options)
            found = search(encoded, mask)
        except RuntimeError as error:
            if is_out_of_memory(error):
                self._kept.clear()
            raise
        if search.failed:
            self._capture = None  # it was said once; what cannot be recorded is not tried again
            self._kept.clear()
        return found

    def _take(
        self, model: nn.Module, products: DecoderProducts, shape: SearchShape, options: Any
    ) -> _Search:
        """A search of that shape, kept as the most recent one where the memory allows."""
        key = (products, shape, repr(options))
        search = self._kept.pop(key, None)
        if search is not None:
            self._kept[key] = search
            return search
        room = _kept_bytes(products.device)
        room -= cache_bytes(products, shape.rows, shape.places, options.num_beams, shape.tokens)
        while self._kept and sum(kept.size for kept in self._kept.values()) > room:
            del self._kept[next(iter(self._kept))]
        search = _Search(model, products, shape, options, self._capture if room >= 0 else None)
        if room >= 0:
            self._kept[key] = search
        return search


class _Search:
    """The tensors of a search and its step."""

    def __init__(
        self,
        model: nn.Module,
        products: DecoderProducts,
        shape: SearchShape,
        options: GenerationConfig,
        capture: Capture | None,
    ) -> None:
        bias = position_bias(model.get_decoder(), shape.tokens, shape.tokens)
        beams, places = options.num_beams, shape.places
        self.size = cache_bytes(products, shape.rows, places, beams, shape.tokens)
        self._start = model.config.decoder_start_token_id
        self._steps = T5Steps(products, bias, rows=shape.rows, places=places, beams=beams)
        self._search = sentence_search(
            shape.rows, options, end=model.config.eos_token_id, device=products.device
        )
        self._recorded = capture is not None
        # Not a method, which would hold this object: without cycles its memory is free at once.
        advance = partial(_advance, self._steps, self._search, whole=self._recorded)
        self._step = RecordedStep(advance, capture)

    @property
    def failed(self) -> bool:
        """Whether its step could not be recorded."""
        return self._recorded and self._step.failed

    def __call__(self, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `T5Search`."""

        def begin() -> None:
            self._steps.begin(encoded, mask)
            self._search.begin(torch.full_like(mask[:, 0], self._start, dtype=torch.long))

        self._step.prepare(begin)
        tokens, scores = run(self._step, self._search)
        used = len(mask) * self._search.options.kept_beams
        return tokens[:used], scores[:used]


def _advance(steps: T5Steps, search: BeamSearch, *, whole: bool) -> Tensor:
    logits = steps(search.newest, search.parents, whole=whole)
    search.advance(logits)
    return logits


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one: streams and graphs are those of the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _kept_bytes(device: torch.device) -> float:
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 2**33
    return total * MOST_KEPT
