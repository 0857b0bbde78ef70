"""Builds the parts of a model from its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from torch import nn

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.decoders.captioning import CaptionDecoder
from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
from lavis_dynrefer.models.decoders.query_decoder import QueryDecoder
from lavis_dynrefer.models.decoders.tagging import TagDecoder
from lavis_dynrefer.models.llms import build_llm
from lavis_dynrefer.models.llms.lora import lora_parameters
from lavis_dynrefer.models.qformer import QFormer
from lavis_dynrefer.models.region_encoder import build_region_encoder
from lavis_dynrefer.models.texts.text_encoder import TextEncoder
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.vocab import load_attributes, load_names

T = TypeVar("T")


def _read(load: Callable[[Path], T], name: str | None, key: str) -> T | tuple[()]:
    """Vocabulary file `name`; empty if the config names none."""
    return load(resource_path(name, key=key)) if name else ()


def build_parts(config: DynReferConfig) -> dict[str, object]:
    """Every part of the model with random weights, as keyword arguments of `DynRefer`.

    Raises:
        InputError: options of the language model that it cannot use, or no vocabulary.
        MissingFileError: a vocabulary or tokenizer file that is not there.
    """
    if config.tagging.vocabulary is None:
        raise InputError("tagging.vocabulary: name a file with one tag per line")
    text_encoder = TextEncoder(config.text)
    qformer = QFormer(config.qformer, region_width=config.vision.width)
    widths = {"text_dim": text_encoder.embed_dim, "region_dim": qformer.width}
    attributes, categories = config.contrast.attributes, config.contrast.categories
    return {
        "backbone": Backbone(config.vision),
        "region_encoder": build_region_encoder(config.region, config.vision),
        "qformer": qformer,
        "text_encoder": text_encoder,
        "tagging": TagDecoder(
            QueryDecoder(config.tagging.decoder, normalise=False, **widths),
            tags=load_names(resource_path(config.tagging.vocabulary, key="tagging.vocabulary")),
            threshold=config.tagging.threshold,
        ),
        "contrast": ContrastDecoder(config.contrast.decoder, **widths),
        "captioning": CaptionDecoder(
            build_llm(config.captioning.llm, config.captioning.llm_options),
            region_dim=qformer.width,
            max_text_length=config.captioning.max_text_length,
        ),
        "attributes": _read(load_attributes, attributes, "contrast.attributes"),
        "categories": _read(load_names, categories, "contrast.categories"),
    }


def set_trainable(model: nn.Module, names: Sequence[str]) -> None:
    """Train the modules named and LoRA, and freeze everything else.

    Raises:
        InputError: there is no module of that name.
    """
    model.requires_grad_(False)
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise InputError(
                f"trainable: no module {name!r}; there are "
                f"{[child for child, _ in model.named_children()]} and their parts"
            )
        modules[name].requires_grad_(True)
    for parameter in lora_parameters(model):
        parameter.requires_grad_(True)
