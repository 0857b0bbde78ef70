"""Captioning: a language model prefixed by the region's queries and control words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import CaptionSearch, GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.llms import LanguageModel
from lavis_dynrefer.models.precision import without_autocast


class Prefix(nn.Module):
    """What is trained around a frozen language model.

    Args:
        region_dim: D, of the queries.
        llm_width: width of the language model's token embeddings.
    """

    def __init__(self, *, region_dim: int, llm_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(region_dim, llm_width)
        # Added to every control token, so that the model can tell them from the region.
        self.control_embedding = nn.Parameter(torch.zeros(llm_width))
        nn.init.normal_(self.control_embedding, std=0.02)


class CaptionDecoder(nn.Module):
    """Writes one sentence per region.

    Args:
        llm: a language model adapter.
        region_dim: D, of the queries.
        max_text_length: tokens; longer targets and control prompts are cut.
    """

    def __init__(self, llm: LanguageModel, *, region_dim: int, max_text_length: int) -> None:
        super().__init__()
        self.llm = llm
        # Entered while the language model works; see `models.idle_parts`.
        self.at_work: Callable[[], AbstractContextManager[None]] = nullcontext
        self.prefix = Prefix(region_dim=region_dim, llm_width=llm.width)
        self.max_text_length = max_text_length

    def prompt(self, queries: Tensor, controls: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prefix embeddings (B, Q + T, W) and their mask (B, Q + T).

        Args:
            queries: (B, Q, D).
            controls: B prompts such as "dog,red|"; "|" asks for nothing in particular.
        """
        # In float32: layer by layer, the language model adds to the prefix.
        with without_autocast(queries.device):
            region = self.prefix.projection(queries.to(self.prefix.projection.weight.dtype))
        tokens, token_mask = self.llm.embed(controls, max_length=self.max_text_length)
        tokens = tokens + self.prefix.control_embedding  # float32, however they are stored
        region_mask = torch.ones(region.shape[:2], dtype=token_mask.dtype, device=region.device)
        return torch.cat([region, tokens], dim=1), torch.cat([region_mask, token_mask], dim=1)

    def loss(self, queries: Tensor, controls: Sequence[str], captions: Sequence[str]) -> Tensor:
        """Mean cross-entropy per token of B captions, after queries (B, Q, D) and B prompts."""
        embeddings, mask = self.prompt(queries, controls)
        return self.llm.loss(embeddings, mask, captions, max_length=self.max_text_length)

    def losses(self, queries: Tensor, controls: Sequence[str], captions: Sequence[str]) -> Tensor:
        """As `loss`, for each region by itself: (B,)."""
        with self.at_work():
            embeddings, mask = self.prompt(queries, controls)
            return self.llm.losses(embeddings, mask, captions, max_length=self.max_text_length)

    def generate(
        self, queries: Tensor, controls: Sequence[str], options: GenerationConfig
    ) -> tuple[list[str], list[float]]:
        """Captions of B regions and the probability of each generated sequence.

        Of a `CaptionSearch` for several captions those of a region follow each other.

        Raises:
            InputError: a language model that cannot search as asked.
        """
        if isinstance(options, CaptionSearch):
            if not getattr(self.llm, "can_sample", False):
                raise InputError(
                    f"the language model {type(self.llm).__name__} neither samples nor gives "
                    "several captions of a region; use beam search with num_captions=1"
                )
            if options.samples:  # a row for each caption
                queries = queries.repeat_interleave(options.num_captions, dim=0)
                controls = [text for text in controls for _ in range(options.num_captions)]
        with self.at_work():
            embeddings, mask = self.prompt(queries, controls)
            return self.llm.generate(embeddings, mask, options)
