"""Sentences from T5's decoder by beam search."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.models.llms.beam_search import BeamSearch, run
from lavis_dynrefer.models.llms.t5_layers import position_bias
from lavis_dynrefer.models.llms.t5_steps import T5Steps
from lavis_dynrefer.models.llms.t5_weights import DecoderProducts, fingerprint


class T5Search:
    """Finds the best sentences; keeps what it can use again while the weights stay the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._products: dict[torch.dtype, tuple[Hashable, DecoderProducts]] = {}

    def __reduce__(self) -> Any:
        """A copy starts empty, since the weights are copied too."""
        return T5Search, ()

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        encoded: Tensor,
        mask: Tensor,
        options: GenerationConfig,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """Best sentence of each row.

        Args:
            model: a `T5ForConditionalGeneration`, with or without LoRA.
            encoded: (B, P, W) output of its encoder.
            mask: (B, P) 1 for tokens, 0 for padding.
            options: see `BeamSearch`.
            dtype: number format of products.

        Returns:
            Tokens (B, T) and log-probabilities (B,), see `BeamSearch.best`.
        """
        products, (rows, places) = self._products_of(model, dtype), mask.shape
        bias = position_bias(model.get_decoder(), options.max_new_tokens, options.max_new_tokens)
        steps = T5Steps(products, bias, rows=rows, places=places, beams=options.num_beams)
        end, start = model.config.eos_token_id, model.config.decoder_start_token_id
        search = BeamSearch(rows, options, end=end, device=encoded.device)
        steps.begin(encoded, mask)
        search.begin(torch.full_like(mask[:, 0], start, dtype=torch.long))
        seen = 0

        def advance() -> None:
            nonlocal seen
            seen += 1
            search.advance(steps(search.newest, search.parents, seen))

        return run(advance, search)

    def _products_of(self, model: nn.Module, dtype: torch.dtype) -> DecoderProducts:
        now = fingerprint(model)
        with self._lock:
            known = self._products.get(dtype)
            if known is None or known[0] != now:
                self._products[dtype] = known = (now, DecoderProducts(model, dtype))
        return known[1]
