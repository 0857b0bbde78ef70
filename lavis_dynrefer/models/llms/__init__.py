"""Language models as parts: one adapter file each, found by its module name.

To add one, write `llms/<name>.py` with a class that satisfies `LanguageModel` and a function
`build(options: Mapping[str, Any]) -> LanguageModel`. Then `captioning.llm: <name>` uses it, and
`captioning.llm_options` are handed to `build`. Where the module also names its
`@settings` class as `OPTIONS`, `dynrefer validate` checks the options by it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_NO_ADAPTERS = (
    "beam_search",
    "llm_options",
    "lora",
    "recorded_step",
    "stored_weights",
    "t5_building",
    "t5_layers",
    "t5_search",
    "t5_stacks",
    "t5_steps",
    "t5_weights",
)
# Adapter -> class in `llm_options`, which does without the adapter's libraries.
_OPTIONS = {"flan_t5": "FlanT5Options", "causal_lm": "CausalLMOptions"}


class LanguageModel(Protocol):
    """What the caption decoder needs from a language model; W is its embedding width.

    `pretrained` says whether the weights come from a published checkpoint, so that checkpoints of
    runs need not hold them.
    """

    width: int
    pretrained: bool

    def embed(self, texts: Sequence[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """Token embeddings (B, T, W) and mask (B, T) of prompts, padded on the right."""

    def loss(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """Mean cross-entropy of `targets` after prefix (B, P, W) with mask (B, P)."""

    def losses(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """As `loss`, for each row by itself: (B,)."""

    def generate(
        self, prefix: Tensor, mask: Tensor, options: GenerationConfig
    ) -> tuple[list[str], list[float]]:
        """Best sentence per prefix and its sequence probability in [0, 1].

        A `CaptionSearch` asks for `kept_beams` sentences per prefix, those of one behind each
        other, or for sampling. An adapter that follows it says so by a class attribute
        `can_sample = True`; others are never given one.
        """


def llm_names() -> list[str]:
    """Names of the adapters."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in _NO_ADAPTERS)


def options_class(name: str) -> type[Any] | None:
    """The dataclass of an adapter's options; None for an adapter that names none.

    Raises:
        ImportError: the adapter does not import.
    """
    if name in _OPTIONS:
        options = importlib.import_module(f"{__name__}.llm_options")
        return getattr(options, _OPTIONS[name])
    return getattr(importlib.import_module(f"{__name__}.{name}"), "OPTIONS", None)


def build_llm(name: str, options: Mapping[str, Any]) -> LanguageModel:
    """Build the adapter `name` with its own options.

    Raises:
        InputError: no such adapter, or options that it cannot use.
    """
    if name not in llm_names():
        raise InputError(f"captioning.llm: no language model {name!r}; there are {llm_names()}")
    return importlib.import_module(f"{__name__}.{name}").build(options)
