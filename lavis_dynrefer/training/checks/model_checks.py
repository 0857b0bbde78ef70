"""What can be wrong with the `model` section, found without building the model."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Union

from lavis_dynrefer.config import DynReferConfig, from_mapping
from lavis_dynrefer.lab.pretraining import PretrainingConfig
from lavis_dynrefer.models import llms
from lavis_dynrefer.models.dynrefer import LAVIS_KEYS, DynRefer
from lavis_dynrefer.models.weights.pretrained import SOURCES
from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.training.checks.findings import (
    Finding,
    Findings,
    Section,
    absent_file,
    check_numbers,
    missing,
    warning,
)
from lavis_dynrefer.training.run_keys import suggestion

CONFIGS = {"dynrefer": DynReferConfig, "dynrefer_pretraining": PretrainingConfig}

ModelConfig = Union[DynReferConfig, PretrainingConfig]


def read_model(model: Section) -> ModelConfig | None:
    """The numbers of a model section, merged with the yaml of its type; None if not of ours.

    Raises:
        ValueError: an unknown key or a value of the wrong kind.
    """
    config_class = CONFIGS.get(str(model.get("arch")))
    if config_class is None:
        return None
    own = {key: value for key, value in model.items() if key not in LAVIS_KEYS}
    return from_mapping(config_class, own, where="model")


def check_model(model: Section) -> Findings:
    """The `model` section, merged with the yaml of its type."""
    try:
        config = read_model(model)
    except ValueError as error:
        yield Finding(str(error))
        return
    if config is None:
        return
    wrong = list(check_numbers(config, "model"))
    yield from wrong or _check_divisors(config)
    if config.tagging.vocabulary is None:
        yield missing("model.tagging.vocabulary: not set; name a file of tags")
    yield from absent_file(config.tagging.vocabulary, "model.tagging.vocabulary")
    if isinstance(config, DynReferConfig):
        yield from _check_parts(config)
        yield from _check_llm(config.captioning.llm, config.captioning.llm_options)
        yield from _check_weights(model)


def _check_divisors(config: ModelConfig) -> Findings:
    """Numbers that have to be multiples of others."""
    vision, region = config.vision, config.region
    multiples = [
        ("vision.image_size", vision.image_size, "patch_size", vision.patch_size),
        ("vision.width", vision.width, "heads", vision.heads),
    ]
    if isinstance(config, DynReferConfig):
        parts = {
            "qformer": config.qformer,
            "text": config.text,
            "tagging.decoder": config.tagging.decoder,
            "contrast.decoder": config.contrast.decoder,
        }
        multiples += [
            (f"{name}.width", part.width, "heads", part.heads) for name, part in parts.items()
        ]
        if region.num_views > 1:  # else nothing is aligned
            multiples.append(
                ("vision.width", vision.width, "region.offset_groups", region.offset_groups)
            )
    for name, value, of, divisor in multiples:
        if value % divisor:
            yield Finding(f"model.{name}: expected a multiple of {of} {divisor}, got {value}")


def _check_parts(config: DynReferConfig) -> Findings:
    known = inspect.signature(DynRefer).parameters
    for name in config.trainable:
        part = name.split(".")[0]
        if part and part not in known:  # "" is the whole model
            yield Finding(f"model.trainable: no part {part!r}; {suggestion(part, known)}")
    for key in ("attributes", "categories"):
        yield from absent_file(getattr(config.contrast, key), f"model.contrast.{key}")
    if config.text.tokenizer != "clip":
        yield from absent_file(config.text.tokenizer, "model.text.tokenizer")


def _check_llm(name: str, options: Section) -> Findings:
    """The language model's adapter, and its options: the dataclass `...Options` of its module."""
    names = [module.name for module in pkgutil.iter_modules(llms.__path__)]
    if name not in names:
        yield Finding(f"model.captioning.llm: no adapter {name!r}; {suggestion(name, names)}")
        return
    place = "model.captioning.llm_options"
    try:
        adapter = importlib.import_module(f"{llms.__name__}.{name}")
    except ImportError as error:
        yield missing(f"model.captioning.llm: {name} does not import: {error}")
        return
    classes = [
        item
        for key, item in vars(adapter).items()
        if dataclasses.is_dataclass(item)
        and item.__module__ == adapter.__name__
        and key.endswith("Options")
    ]
    if len(classes) == 1:
        try:
            from_mapping(classes[0], options, where=place)
        except ValueError as error:
            yield Finding(str(error))
    tokenizer = options.get("tokenizer")
    if isinstance(tokenizer, str) and tokenizer and find_resource(tokenizer) is None:
        yield warning(f"{place}.tokenizer: no file {tokenizer!r}; is it a name of Hugging Face?")


def _check_weights(model: Section) -> Findings:
    pretrained = model.get("pretrained") or {}
    if not isinstance(pretrained, Mapping):
        yield Finding(f"model.pretrained: expected some of {list(SOURCES)}, got {pretrained!r}")
        return
    for kind, name in pretrained.items():
        place = f"model.pretrained.{kind}"
        if kind not in SOURCES:
            yield Finding(f"{place}: unknown; {suggestion(kind, SOURCES)}")
        elif name is None:
            yield warning(f"{place}: not set; that part begins with random weights")
        for one in name if isinstance(name, (list, tuple)) else [name]:
            yield from absent_file(one, place)
    asked = model.get("load_finetuned", False)
    if not isinstance(asked, bool):
        yield Finding(f"model.load_finetuned: expected true or false, got {asked!r}")
    elif asked and not model.get("finetuned"):
        yield missing("model.finetuned: not set; name a checkpoint")
    elif asked:
        yield from absent_file(model["finetuned"], "model.finetuned")
