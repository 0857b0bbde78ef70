"""Language models as parts: one adapter file each, found by its module name.

To add one, write `llms/<name>.py` with a class that satisfies `LanguageModel` and a function
`build(options: Mapping[str, Any]) -> LanguageModel`; heavy imports go inside the file. Then
`captioning.llm: <name>` uses it, with `captioning.llm_options` handed to `build`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError


class LanguageModel(Protocol):
    """What the caption decoder needs from a language model; W is its embedding width.

    `pretrained` says whether its weights were loaded, and are thus to be had again.
    """

    width: int
    pretrained: bool

    def embed(self, texts: Sequence[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """Token embeddings (B, T, W) and mask (B, T) of prompts, padded on the right."""

    def loss(
        self, prefix: Tensor, mask: Tensor, targets: Sequence[str], *, max_length: int
    ) -> Tensor:
        """Mean cross-entropy of `targets` after prefix (B, P, W) with mask (B, P)."""

    def generate(
        self, prefix: Tensor, mask: Tensor, options: GenerationConfig
    ) -> tuple[list[str], list[float]]:
        """Best sentence per prefix and its sequence probability in [0, 1]."""


def build_llm(name: str, options: Mapping[str, Any]) -> LanguageModel:
    """Build the adapter `name` with its own options.

    Raises:
        ValueError: no such adapter; names those there are.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in names:
        raise InputError(f"captioning.llm: no language model {name!r}; there are {names}")
    return importlib.import_module(f"{__name__}.{name}").build(options)
