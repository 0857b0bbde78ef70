"""`generate` with the arguments of LAVIS's models: captions alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from pydantic import Field

from lavis_dynrefer.config import CaptionSearch, GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.precision import without_gradients
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.settings import Size, from_mapping, settings

CHUNK = 64  # regions encoded at once, as in `predict`


@settings
class GenerateArguments:
    """The arguments of `generate`, as LAVIS names them, with their defaults there."""

    use_nucleus_sampling: bool = False
    num_beams: int = Field(default=5, ge=1, le=1_000)
    max_length: int = Field(default=30, ge=1, le=100_000)
    min_length: int = Field(default=1, ge=0, le=100_000)
    top_p: float = Field(default=0.9, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    length_penalty: float = Field(default=1.0, ge=-100, le=100)
    num_captions: Size = 1
    temperature: float = Field(default=1.0, gt=0)

    def search(self) -> GenerationConfig:
        """What the language model is asked for.

        Raises:
            InputError: an argument is set that plays no part, or more captions than beams.
        """
        sampled = self.use_nucleus_sampling
        unused = ("num_beams", "length_penalty") if sampled else ("top_p", "temperature")
        default = GenerateArguments()
        for name in unused:
            value = getattr(self, name)
            if value != getattr(default, name) and not (name == "num_beams" and value == 1):
                raise InputError(
                    f"generate: {name} plays no part with use_nucleus_sampling={sampled}; leave it "
                    "out"
                )
        search: dict[str, Any] = {
            "num_beams": 1 if sampled else self.num_beams,
            "max_new_tokens": self.max_length,
            "min_length": self.min_length,
            "length_penalty": 0.0 if sampled else self.length_penalty,
            "repetition_penalty": self.repetition_penalty,
        }
        if not sampled and self.num_captions == 1:
            return from_mapping(GenerationConfig, search, where="generate")
        search["num_captions"] = self.num_captions
        if sampled:
            search.update(top_p=self.top_p, temperature=self.temperature)
        return from_mapping(CaptionSearch, search, where="generate")


class CaptionCall:
    """The call `generate` of a model that has `answering`."""

    answering: Any
    device: torch.device

    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 30,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1,
    ) -> list[str]:
        """Captions of regions, as LAVIS's models make them.

        The defaults are those of LAVIS; `predict` uses the settings that the model was published
        with, and gives scores and the other answers, too.

        Args:
            samples: see `predict`; in LAVIS {"image": vis_processors["eval"](image)}.
            use_nucleus_sampling: sample tokens from torch's default generator, instead of searching
                for the best sentence. `num_beams` and `length_penalty` then play no part.
            num_beams: sentences that a search follows at once; 1 takes the best token each time.
            max_length: tokens, without the start.
            min_length: tokens, with the start.
            top_p: sample only from the likeliest tokens that have this probability together.
            repetition_penalty: factor against tokens that were said before; 1 for none.
            length_penalty: log-probabilities are divided by the length to this power.
            num_captions: of each region; at most `num_beams`, unless sampled.
            temperature: divides the logits that are sampled from.

        Returns:
            B * num_captions captions, those of a region behind each other: best first, or as drawn
            when sampled.

        Raises:
            InputError: see `predict`; an argument is out of bounds, or set where it plays no part.
        """
        given = {name: value for name, value in locals().items() if name in _NAMES}
        search = from_mapping(GenerateArguments, given, where="generate").search()
        if isinstance(samples, Mapping) and "prompt" in samples:
            raise InputError(
                "generate: samples with a prompt; DynRefer takes control words instead: "
                "predict(samples, controls=[...])"
            )
        questions = Questions(tasks=("caption",), generation=search)
        with self.answering(samples) as (answerer, sample), without_gradients(self.device):
            work = partial(answerer.captions, questions=questions)
            return answerer.in_parts(work, sample, CHUNK)


_NAMES = tuple(GenerateArguments.__dataclass_fields__)  # type: ignore[attr-defined]
