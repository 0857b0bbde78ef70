"""What can be wrong with processors, found by making them; they hold no weights."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Union

import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.models.answering import TASKS
from lavis_dynrefer.training.checks.findings import Finding, Findings, Section, not_a_mapping
from lavis_dynrefer.training.checks.model_checks import read_model
from lavis_dynrefer.training.run_keys import suggestion
from lavis_dynrefer.views.policies import ViewPolicy
from lavis_dynrefer.views.view_processor import ViewProcessor

# Kind of processor -> what it is called with.
PROCESSORS = {"vis_processor": ("an image", "boxes"), "text_processor": ("a caption",)}
PHASES = ("train", "eval")
# Phase -> tasks asked about its views: none in training, where the model looks at all views; None
# where only the data tell.
Uses = Mapping[str, Union[Collection[str], None]]
EVERY_USE: Uses = {"train": (), "eval": TASKS}


def check_processors(
    section: Section, place: str, model: Section, uses: Uses = EVERY_USE
) -> Findings:
    """`vis_processor` and `text_processor` of a dataset or of a `preprocess` section.

    Args:
        section: holds the two.
        place: where it stands in the yaml.
        model: the model that the views are made for; empty where that is not known.
        uses: the phases in use, whose views must fit the model.
    """
    for kind, given in PROCESSORS.items():
        phases = section.get(kind)
        yield from not_a_mapping(phases, f"{place}.{kind}")
        for phase, processor in phases.items() if isinstance(phases, Mapping) else ():
            where = f"{place}.{kind}.{phase}"
            if phase not in PHASES:
                yield Finding(f"{where}: unknown; expected some of {list(PHASES)}")
            elif isinstance(processor, Mapping):
                yield from _check_processor(processor, where, given, model, uses.get(phase))
            elif processor is not None:
                yield Finding(f"{where}: expected a name and options, got {processor!r}")


def check_presence(section: Section, place: str, uses: Uses) -> Findings:
    """Processors that a run uses and the dataset does not name."""
    for phase in uses:
        views, texts = (section.get(kind) for kind in PROCESSORS)
        if not (views or {}).get(phase):
            yield Finding(f"{place}.vis_processor.{phase}: missing; name one, as dynrefer_{phase}")
        if phase == "train" and texts and not texts.get(phase):  # LAVIS has one where none is named
            yield Finding(f"{place}.text_processor.train: missing; name one, as blip_caption")


def _check_processor(
    options: Section,
    where: str,
    given: tuple[str, ...],
    model: Section,
    tasks: Collection[str] | None,
) -> Findings:
    name, known = options.get("name"), registry.list_processors()
    if name not in known:
        yield Finding(f"{where}.name does not know {name!r}; {suggestion(str(name), known)}")
        return
    processor_class = registry.get_processor_class(name)
    if not _takes(processor_class, len(given)):
        yield Finding(
            f"{where}.name: expected a processor that is called with {' and '.join(given)}, "
            f"got {name!r}"
        )
        return
    if not issubclass(processor_class, ViewProcessor):
        return
    try:
        processor = processor_class.from_config(OmegaConf.create(dict(options)))
    except (ValueError, TypeError) as error:
        yield Finding(f"{where}: {error}")
        return
    if tasks is not None:
        yield from _check_fit(processor, where, model, tasks)


def _takes(processor_class: type, count: int) -> bool:
    """Whether such a processor can be called with so many arguments."""
    try:
        inspect.signature(processor_class.__call__).bind(None, *range(count))
    except TypeError:
        return False
    return True


def _check_fit(
    processor: ViewProcessor, where: str, model: Section, tasks: Collection[str]
) -> Findings:
    """Views that are not those the model is made for."""
    try:
        config = read_model(model)
    except ValueError:  # `check_model` says so
        return
    if config is None:
        return
    size = config.vision.image_size
    if processor.image_size != size:
        yield Finding(
            f"{where}.image_size: is {processor.image_size}, model.vision.image_size is {size}"
        )
    policy = processor.policy
    if not type(policy).__module__.startswith("lavis_dynrefer."):
        return  # it may need more than an image of nothing
    views, wanted = views_of(policy, tasks), config.region.num_views
    if views != {wanted}:
        found = " or ".join(map(str, sorted(views)))
        yield Finding(f"{where}: gives {found} views a region, model.region.num_views is {wanted}")


def views_of(policy: ViewPolicy, tasks: Collection[str]) -> set[int]:
    """How many views the tasks are given, from a plan for one region; all views without a task."""
    plan = policy.plan(Image.new("RGB", (8, 8)), torch.tensor([[2.0, 2.0, 6.0, 6.0]]))
    everything = plan.scales.shape[1]
    if not tasks:
        return {everything}
    return {len(plan.routes[task]) if task in plan.routes else everything for task in tasks}
