"""Checks of the `model` section."""

from __future__ import annotations

from lavis_dynrefer.config import LAVIS_KEYS, MODELS, DynReferConfig, ModelFiles, RegionModelConfig
from lavis_dynrefer.errors import choice_problem
from lavis_dynrefer.models.llms import llm_names, options_class
from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.settings import SettingsError
from lavis_dynrefer.training.checks.findings import (
    Finding,
    Findings,
    Section,
    absent_file,
    each,
    missing,
    read_checked,
    warning,
)

PARTS = (  # of a DynRefer, which `trainable` names
    *("backbone", "region_encoder", "qformer", "text_encoder"),
    *("tagging", "contrast", "captioning"),
)
OPTIONAL_PARTS = ("scale_prior",)  # there if the section of that name is


def read_model(model: Section) -> tuple[RegionModelConfig | None, list[Finding]]:
    """The numbers of a model section, merged with the yaml of its type; None if not of ours."""
    family = MODELS.get(str(model.get("arch")))
    if family is None:
        return None, []
    numbers = {key: value for key, value in model.items() if key not in LAVIS_KEYS}
    return read_checked(family.config, numbers, "model")


def check_model(model: Section) -> Findings:
    """The `model` section, merged with the yaml of its type."""
    config, wrong = read_model(model)
    yield from wrong
    if config is not None:
        if config.tagging.vocabulary is None:
            yield missing("model.tagging.vocabulary: not set; name a file of tags")
        elif not isinstance(config, DynReferConfig):  # those are read below
            yield from absent_file(config.tagging.vocabulary, "model.tagging.vocabulary")
    if isinstance(config, DynReferConfig):
        yield from _check_names(config)
        yield from _check_llm(config.captioning.llm, config.captioning.llm_options)
        yield from _check_files(model)
    if model.get("arch") in MODELS:
        yield from _check_weights(model)


def _check_names(config: DynReferConfig) -> Findings:
    parts = [name.split(".")[0] for name in config.trainable]
    there = (*PARTS, *(name for name in OPTIONAL_PARTS if getattr(config, name) is not None))
    # "" is the whole model.
    yield from each(choice_problem("model.trainable", part, there) for part in parts if part)
    for key in ("attributes", "categories"):
        yield from absent_file(getattr(config.contrast, key), f"model.contrast.{key}")
    if config.text.tokenizer != "clip":
        yield from absent_file(config.text.tokenizer, "model.text.tokenizer")


def _check_llm(name: str, options: Section) -> Findings:
    """The language model's adapter and its options."""
    problem = choice_problem("model.captioning.llm", name, llm_names())
    if problem is not None:
        yield Finding(problem)
        return
    place = "model.captioning.llm_options"
    try:
        kind = options_class(name)
    except ImportError as error:
        yield missing(f"model.captioning.llm: {name} does not import: {error}")
        return
    if kind is not None:
        yield from read_checked(kind, options, place)[1]
    tokenizer = options.get("tokenizer")
    if isinstance(tokenizer, str) and tokenizer and find_resource(tokenizer) is None:
        yield warning(f"{place}.tokenizer: no file {tokenizer!r}; is it a name of Hugging Face?")


def _check_files(model: Section) -> Findings:
    """Files that are not there or cannot be used, and parts without any."""
    # Imported here: torch is slow.
    from lavis_dynrefer.models.weights.weight_checks import weight_problems

    try:
        for problem in weight_problems(model, fetch=False):
            yield missing(problem.text) if problem.absent else Finding(problem.text)
    except SettingsError:  # told elsewhere
        return


def _check_weights(model: Section) -> Findings:
    given = {key: model[key] for key in LAVIS_KEYS if key in model}
    files, wrong = read_checked(ModelFiles, given, "model")
    yield from wrong
    if files is None:
        return
    if files.published:
        yield from _check_auto(model)


def _check_auto(model: Section) -> Findings:
    """Parts that the section leaves to us, and that are not on this machine."""
    from lavis_dynrefer.models.weights import places  # imports torch

    found = places.look_up(model)
    fetchable, random = found.fetchable(), places.random_parts_of(model, found.absent)
    for name in found.absent:
        text = (
            f"model.{places.KEYS[name]}: not on this machine; {places.describe_part(found, name)}"
        )
        if name in random:
            yield warning(f"{text}; begins with random weights")
        elif name in fetchable:
            yield warning(f"{text}; or `dynrefer download {found.model_type}`")
        else:
            yield missing(f"{text}; or `dynrefer weights set {name} FILE`")
