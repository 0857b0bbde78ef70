"""Builds the parts of a model from its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.choosing.scale_prior import ScalePrior
from lavis_dynrefer.models.decoders.captioning import CaptionDecoder
from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
from lavis_dynrefer.models.decoders.query_decoder import QueryDecoder
from lavis_dynrefer.models.decoders.tagging import TagDecoder
from lavis_dynrefer.models.llms import LanguageModel, build_llm
from lavis_dynrefer.models.llms.lora import lora_parameters
from lavis_dynrefer.models.llms.stored_weights import Int8Linear
from lavis_dynrefer.models.qformer import QFormer
from lavis_dynrefer.models.region_encoder import build_region_encoder
from lavis_dynrefer.models.texts.text_encoder import TextEncoder
from lavis_dynrefer.models.weights.lean_building import fill, without_values
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.vocab import load_attributes, load_names

T = TypeVar("T")


def _read(load: Callable[[Path], T], name: str | None, key: str) -> T | tuple[()]:
    """Vocabulary file `name`; empty if the config names none."""
    return load(resource_path(name, key=key)) if name else ()


def build_parts(config: DynReferConfig, *, empty: bool = False) -> dict[str, Any]:
    """Every part of the model, as keyword arguments of `DynRefer`.

    Args:
        config: its numbers.
        empty: without values, all but the language model, which takes those of its own files.

    Raises:
        InputError: options of the language model that it cannot use, or no vocabulary.
        MissingFileError: a vocabulary or tokenizer file that is not there.
    """
    if config.tagging.vocabulary is None:
        raise InputError("tagging.vocabulary: name a file with one tag per line")
    attributes, categories = config.contrast.attributes, config.contrast.categories
    builders, parts = _builders(config), {}
    for name, build in builders.items():
        with without_values() if empty else nullcontext():
            parts[name] = build()
    parts["scale_prior"] = _scale_prior(config)
    llm = build_llm(config.captioning.llm, config.captioning.llm_options)
    with without_values() if empty else nullcontext():
        parts["captioning"] = _captioning(config, llm)
    return {
        **parts,
        "attributes": _read(load_attributes, attributes, "contrast.attributes"),
        "categories": _read(load_names, categories, "contrast.categories"),
    }


def _builders(config: DynReferConfig) -> dict[str, Callable[[], nn.Module]]:
    """What builds each part but the captioning, with random weights."""
    widths = {"text_dim": config.text.embed_dim, "region_dim": config.qformer.width}
    tagging, contrast = config.tagging, config.contrast
    return {
        "text_encoder": lambda: TextEncoder(config.text),
        "qformer": lambda: QFormer(config.qformer, region_width=config.vision.width),
        "backbone": lambda: Backbone(config.vision),
        "region_encoder": lambda: build_region_encoder(config.region, config.vision),
        "tagging": lambda: TagDecoder(
            QueryDecoder(tagging.decoder, normalise=False, **widths),
            tags=load_names(resource_path(str(tagging.vocabulary), key="tagging.vocabulary")),
            threshold=tagging.threshold,
        ),
        "contrast": lambda: ContrastDecoder(contrast.decoder, **widths),
    }


def _captioning(config: DynReferConfig, llm: LanguageModel) -> CaptionDecoder:
    return CaptionDecoder(
        llm,
        region_dim=config.qformer.width,
        max_text_length=config.captioning.max_text_length,
    )


def _scale_prior(config: DynReferConfig) -> ScalePrior | None:
    """The head of the learned view policy, small and with random weights, until it is trained."""
    if config.scale_prior is None:
        return None
    with torch.random.fork_rng(devices=[]):  # whatever else is random stays as it is without it
        return ScalePrior(
            config.scale_prior,
            num_views=config.region.num_views,
            width=config.vision.width,
            query_numbers=config.qformer.num_queries * config.qformer.width,
        )


def fill_at_random(model: nn.Module, config: DynReferConfig) -> None:
    """Give random values to whatever no file has filled, and to nothing else."""
    builders = {
        **_builders(config),
        "captioning": lambda: _captioning(config, model.captioning.llm),
    }
    for part, build in builders.items():
        own = getattr(model, part)
        empty = {name for name, value in own.named_parameters() if value.is_meta}
        if empty:
            drawn = dict(build().named_parameters())
            fill(own, {name: drawn[name].detach() for name in empty}, copy=False)


def check_has_values(model: nn.Module) -> None:
    """Refuse a model that somebody has built on the meta device, where nothing has a value.

    Raises:
        InputError: it has tensors there.
    """
    tensors = chain(model.named_parameters(), model.named_buffers())
    empty = [name for name, tensor in tensors if tensor.is_meta]
    if empty:
        raise InputError(
            f"{len(empty)} tensors, such as {empty[0]}, are on the meta device; build the model "
            "outside of torch.device('meta')"
        )


def set_trainable(model: nn.Module, names: Sequence[str]) -> None:
    """Train the modules named and LoRA, and freeze everything else.

    Raises:
        InputError: there is no module of that name, or it is stored in 8 bit.
    """
    model.requires_grad_(False)
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise InputError(
                f"trainable: no module {name!r}; there are "
                f"{[child for child, _ in model.named_children()]} and their parts"
            )
        if any(isinstance(module, Int8Linear) for module in modules[name].modules()):
            raise InputError(
                f"trainable: {name} is stored in 8 bit and stays as it is; set "
                "captioning.llm_options.dtype: bfloat16 to train it, or train LoRA on it "
                "(captioning.llm_options.lora)"
            )
        modules[name].requires_grad_(True)
    for parameter in lora_parameters(model):
        parameter.requires_grad_(True)
