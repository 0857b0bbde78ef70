"""Checks of processors; ours are built for it, as they hold no weights."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Union

from omegaconf import OmegaConf

from lavis_dynrefer.errors import choice_problem
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.training.checks.findings import Finding, Findings, Section, each, not_a_mapping
from lavis_dynrefer.training.checks.model_checks import read_model
from lavis_dynrefer.training.known_names import name_problem, registered
from lavis_dynrefer.views.model_priors import LearnedPrior
from lavis_dynrefer.views.policies import views_by_task
from lavis_dynrefer.views.view_processor import DEFAULT_POLICIES, ViewProcessor

# Kind of processor -> what it is called with.
PROCESSORS = {"vis_processor": ("an image", "boxes"), "text_processor": ("a caption",)}
PHASES = ("train", "eval")
# Processors that a check knows without LAVIS -> what they are called with.
_KNOWN = {
    **dict.fromkeys(DEFAULT_POLICIES, PROCESSORS["vis_processor"]),
    "blip_caption": PROCESSORS["text_processor"],
}
# Phase -> tasks asked about its views: none in training, which uses all views; None if only the
# data tell.
Uses = Mapping[str, Union[Collection[str], None]]
EVERY_USE: Uses = {"train": (), "eval": TASKS}


def check_processors(
    section: Section, place: str, model: Section, uses: Uses = EVERY_USE
) -> Findings:
    """`vis_processor` and `text_processor` of a dataset of ours or of a `preprocess` section.

    Args:
        section: holds the two.
        place: where it stands in the yaml.
        model: the model that the views are made for; empty if that is not known.
        uses: the phases in use, whose views must fit the model.
    """
    for kind, phase, processor in _each_processor(section):
        where = f"{place}.{kind}.{phase}".rstrip(".")
        if not phase:
            yield from not_a_mapping(processor, where)
        elif phase not in PHASES:
            yield from each([choice_problem(where, phase, PHASES)])
        elif isinstance(processor, Mapping):
            yield from _check_processor(processor, where, PROCESSORS[kind], model, uses.get(phase))
        else:
            yield Finding(f"{where}: expected a name and options, got {processor!r}")


def check_presence(section: Section, place: str, uses: Uses) -> Findings:
    """Processors that a run uses and the dataset does not name."""
    named = {(kind, phase) for kind, phase, _ in _each_processor(section)}
    for phase in uses:
        if ("vis_processor", phase) not in named:
            yield Finding(f"{place}.vis_processor.{phase}: missing; name one, as dynrefer_{phase}")
    has_texts = section.get("text_processor")  # without any, captions stay as they are
    if "train" in uses and has_texts and ("text_processor", "train") not in named:
        yield Finding(f"{place}.text_processor.train: missing; name one, as blip_caption")


def _each_processor(section: Section) -> Iterator[tuple[str, str, Any]]:
    """Kind, phase and processor of all that a section names; phase "" of a kind that is invalid."""
    for kind in PROCESSORS:
        phases = section.get(kind)
        if not isinstance(phases, Mapping):
            phases = {} if phases is None else {"": phases}
        for phase, processor in phases.items():
            if processor is not None:
                yield kind, phase, processor


def _check_processor(
    options: Section,
    where: str,
    given: tuple[str, ...],
    model: Section,
    tasks: Collection[str] | None,
) -> Findings:
    name = options.get("name")
    problem = name_problem(f"{where}.name", "processor", name)
    if problem is None and not _takes(name, given):
        problem = f"{where}.name: {name!r} cannot be called with {' and '.join(given)}"
    if problem is not None:
        yield Finding(problem)
        return
    kind = ViewProcessor if name in _KNOWN else registered("processor", name)
    if given != PROCESSORS["vis_processor"] or not issubclass(kind, ViewProcessor):
        return
    if name in _KNOWN:
        defaults = {"policy": DEFAULT_POLICIES[name], **(options.get("defaults") or {})}
        options = {**options, "defaults": defaults}
    try:
        processor = kind.from_config(OmegaConf.create(dict(options)))
    except (ValueError, TypeError) as error:
        yield Finding(f"{where}: {error}")
        return
    if tasks is not None:
        yield from _check_fit(processor, where, model, tasks)


def _takes(name: str, given: tuple[str, ...]) -> bool:
    """Whether the processor can be called with these arguments."""
    if name in _KNOWN:
        return _KNOWN[name] == given
    try:
        inspect.signature(registered("processor", name).__call__).bind(None, *given)
    except TypeError:
        return False
    return True


def _check_fit(
    processor: ViewProcessor, where: str, model: Section, tasks: Collection[str]
) -> Findings:
    """Whether the views are those that the model expects."""
    config, _ = read_model(model)  # `check_model` tells what is wrong with it
    if config is None:
        return
    size = config.vision.image_size
    if processor.image_size != size:
        yield Finding(
            f"{where}.image_size: is {processor.image_size}, model.vision.image_size is {size}"
        )
    if (
        processor.asks_for_masks
        and processor.mask_views == "none"
        and config.region.masks != "cells"
    ):
        yield Finding(
            f"{where}: asks for masks, which nothing uses; set model.region.masks: cells, or "
            "mask_views: dim"
        )
    views, count = views_by_task(processor.policy, tasks), config.region.num_views
    if views != {count}:
        found = " or ".join(map(str, sorted(views)))
        yield Finding(f"{where}: gives {found} views a region, model.region.num_views is {count}")
    if isinstance(processor.policy, LearnedPrior):
        prior = getattr(config, "scale_prior", None)
        own = None if prior is None else list(prior.candidates)
        if own != list(processor.policy.candidates):
            yield Finding(
                f"{where}.candidates: is {list(processor.policy.candidates)}, "
                f"model.scale_prior.candidates is {own}"
            )
