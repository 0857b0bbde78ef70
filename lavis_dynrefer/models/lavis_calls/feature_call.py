"""`extract_features` with the arguments of LAVIS's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.views.samples import Sample

MODES = ("multimodal", "image", "text")
CHUNK = 64  # regions encoded at once, as in `predict`


@dataclass(frozen=True)
class RegionFeatures:
    """Features of regions and texts, float32 on the model's device; None where not asked for.

    Names are those of LAVIS's `BlipOutputFeatures` where they mean the same. DynRefer has no space
    in which the product of a region and a text tells how well they match: a small decoder lets each
    text look at each region. So `image_embeds_proj` and `text_embeds_proj` do not exist.

    Args:
        image_embeds: (B, Q, D) queries, what all answers about a region are made of.
        text_embeds: (K, E) of the text tower.
        multimodal_embeds: (B, K, W) each text after a look at each region, of length 1.
        similarity: (B, K) logits of each text and region: the score of a category, and with a
            sigmoid that of an attribute, when the texts are their prompts (`vocab.prompts`).
    """

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    multimodal_embeds: Tensor | None = None
    similarity: Tensor | None = None

    @property
    def image_embeds_proj(self) -> Tensor:
        """Refused, see above."""
        raise InputError(_NO_PRODUCT)

    @property
    def text_embeds_proj(self) -> Tensor:
        """Refused, see above."""
        raise InputError(_NO_PRODUCT)


_NO_PRODUCT = (
    "DynRefer compares regions and texts by a decoder, not by a product of projections: use "
    'extract_features(samples, mode="multimodal").similarity'
)


class FeatureCall:
    """The call `extract_features` of a model that has `answering`."""

    answering: Any
    embed_texts: Any
    contrast: Any
    device: torch.device

    @torch.no_grad()
    def extract_features(
        self, samples: Mapping[str, Any], mode: str = "multimodal", *, task: str = "categories"
    ) -> RegionFeatures:
        """Features of regions, texts, or both.

        Args:
            samples: regions as for `predict` (in LAVIS under "image"), and under "text_input" K
                texts, which need not be as many as the regions.
            mode: "image", "text" or "multimodal".
            task: with a view policy that gives tasks views of their own, those of this task.

        Raises:
            InputError: see `predict`; an unknown mode or task, or what the mode needs is missing.
        """
        for problem in (choice_problem("mode", mode, MODES), choice_problem("task", task, TASKS)):
            if problem is not None:
                raise InputError(f"extract_features: {problem}")
        if mode == "text":
            return RegionFeatures(text_embeds=self._embedded(samples))
        texts = None if mode == "image" else self._embedded(samples)
        decoder = self.contrast.decoder
        with self.answering(samples) as (answerer, sample):

            def extract(part: Sample, features: ViewFeatures) -> list[tuple[Tensor, ...]]:
                queries = answerer.queries_of(part, features, (task,))[task]
                if texts is None:
                    return [(queries,)]
                with answerer.computing("heads"):
                    states = decoder.read(texts, queries)
                    return [(queries, states, decoder.classify(states))]

            parts = answerer.in_parts(extract, sample, CHUNK)
        if not parts:
            raise InputError("extract_features: the samples have no region")
        image, *both = (torch.cat(tensors).float() for tensors in zip(*parts))
        if texts is None:
            return RegionFeatures(image)
        return RegionFeatures(image, texts, *both)

    def _embedded(self, samples: Mapping[str, Any]) -> Tensor:
        """(K, E), a copy of what the bank keeps."""
        return self.embed_texts(_texts(samples)).float().clone()


def _texts(samples: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts under "text_input"; LAVIS's collation makes a list of them."""
    given = samples.get("text_input") if isinstance(samples, Mapping) else None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(t, str) for t in texts):
        raise InputError(
            f"extract_features: expected texts in samples['text_input'], got {given!r:.60}"
        )
    return tuple(texts)
