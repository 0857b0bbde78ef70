"""What can be wrong with the `model` section, found without building the model."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any, Union

from lavis_dynrefer.cli.findings import Finding, Findings, Section, absent_file
from lavis_dynrefer.config import DynReferConfig, from_mapping
from lavis_dynrefer.models import llms
from lavis_dynrefer.models.dynrefer import LAVIS_KEYS, DynRefer
from lavis_dynrefer.models.pretraining import PretrainingConfig
from lavis_dynrefer.models.sources import SOURCES
from lavis_dynrefer.run_keys import suggestion

CONFIGS = {"dynrefer": DynReferConfig, "dynrefer_backbone": PretrainingConfig}
LEAST = {"min_length": 0}  # of whole numbers, else 1
SHARES = ("dropout", "threshold", "control_drop", "control_drop_all")  # in [0, 1]

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
    yield from wrong
    vision = config.vision
    if not wrong and vision.image_size % vision.patch_size:
        yield Finding(
            f"model.vision.image_size: expected a multiple of patch_size {vision.patch_size}, "
            f"got {vision.image_size}"
        )
    if config.tagging.vocabulary is None:
        yield Finding("model.tagging.vocabulary: not set; name a file of tags", fatal=False)
    yield from absent_file(config.tagging.vocabulary, "model.tagging.vocabulary")
    if isinstance(config, DynReferConfig):
        yield from _check_parts(config)
        yield from _check_llm(config.captioning.llm, config.captioning.llm_options)
        yield from _check_weights(model)


def check_numbers(config: Any, place: str) -> Findings:
    """Counts and sizes below 1, and shares outside [0, 1], anywhere in a config dataclass."""
    for item in dataclasses.fields(config):
        value, where = getattr(config, item.name), f"{place}.{item.name}"
        if dataclasses.is_dataclass(value):
            yield from check_numbers(value, where)
        elif type(value) is int and value < LEAST.get(item.name, 1):
            yield Finding(f"{where}: expected at least {LEAST.get(item.name, 1)}, got {value}")
        elif item.name in SHARES and not 0 <= value <= 1:
            yield Finding(f"{where}: expected a number in [0, 1], got {value}")


def _check_parts(config: DynReferConfig) -> Findings:
    known = inspect.signature(DynRefer).parameters
    for name in config.trainable:
        part = name.split(".")[0]
        if part not in known:
            yield Finding(f"model.trainable: no part {part!r}; {suggestion(part, known)}")
    for key in ("attributes", "categories"):
        yield from absent_file(getattr(config.contrast, key), f"model.contrast.{key}")
    if config.text.tokenizer != "clip":
        yield from absent_file(config.text.tokenizer, "model.text.tokenizer")


def _check_llm(name: str, options: Section) -> Findings:
    """The language model's adapter, and its options: the one dataclass of the adapter's module."""
    names = [module.name for module in pkgutil.iter_modules(llms.__path__)]
    if name not in names:
        yield Finding(f"model.captioning.llm: no adapter {name!r}; {suggestion(name, names)}")
        return
    place = "model.captioning.llm_options"
    adapter = importlib.import_module(f"{llms.__name__}.{name}")
    classes = [
        item
        for item in vars(adapter).values()
        if dataclasses.is_dataclass(item) and item.__module__ == adapter.__name__
    ]
    if len(classes) == 1:
        try:
            from_mapping(classes[0], options, where=place)
        except ValueError as error:
            yield Finding(str(error))
    yield from absent_file(options.get("tokenizer"), f"{place}.tokenizer")


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
            yield Finding(f"{place}: not set; that part begins with random weights", fatal=False)
        yield from absent_file(name, place)
    asked = model.get("load_finetuned", False)
    if not isinstance(asked, bool):
        yield Finding(f"model.load_finetuned: expected true or false, got {asked!r}")
    elif asked and not model.get("finetuned"):
        yield Finding("model.finetuned: not set; name a checkpoint", fatal=False)
    elif asked:
        yield from absent_file(model["finetuned"], "model.finetuned")
