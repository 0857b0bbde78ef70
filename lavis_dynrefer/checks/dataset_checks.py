"""What can be wrong with datasets, their processors and expected numbers, found without data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.cli.findings import Finding, Findings, Section, absent_file, not_a_mapping
from lavis_dynrefer.cli.model_checks import read_model
from lavis_dynrefer.config import from_mapping
from lavis_dynrefer.datasets.region_builder import KEYS, RegionDatasetBuilder
from lavis_dynrefer.datasets.region_dataset import EVALUATORS, ON_ERROR
from lavis_dynrefer.metrics.expected import METRIC_NAMES, Expected
from lavis_dynrefer.models.answers import TASKS
from lavis_dynrefer.processors import ViewProcessor
from lavis_dynrefer.run_keys import suggestion
from lavis_dynrefer.views.policies import ViewPolicy

PROCESSORS = ("vis_processor", "text_processor")
PHASES = ("train", "eval")
RAW_FILES = (  # keys of any `build_info` that name a file, absolute or below `root`
    *("region_descriptions", "image_data", "densecap_splits", "annotations", "boxes"),
    *("refs", "instances"),
)


def check_processors(section: Section, place: str, model: Section) -> Findings:
    """`vis_processor` and `text_processor` of a dataset or of a `preprocess` section.

    Args:
        section: holds the two.
        place: where it stands in the yaml.
        model: the model that the views are made for; empty where that is not known.
    """
    for kind in PROCESSORS:
        phases = section.get(kind)
        yield from not_a_mapping(phases, f"{place}.{kind}")
        for phase, processor in phases.items() if isinstance(phases, Mapping) else ():
            where = f"{place}.{kind}.{phase}"
            if phase not in PHASES:
                yield Finding(f"{where}: unknown; expected some of {list(PHASES)}")
            elif not isinstance(processor, Mapping):
                yield Finding(f"{where}: expected a name and options, got {processor!r}")
            else:
                yield from _check_processor(processor, where, model)


def _check_processor(options: Section, where: str, model: Section) -> Findings:
    name, known = options.get("name"), registry.list_processors()
    if name not in known:
        yield Finding(f"{where}.name does not know {name!r}; {suggestion(str(name), known)}")
        return
    processor_class = registry.get_processor_class(name)
    if not issubclass(processor_class, ViewProcessor):
        return
    for key in ("image_size", "num_views"):
        value = options.get(key)
        if value is not None and (type(value) is not int or value < 1):
            yield Finding(f"{where}.{key}: expected a whole number of at least 1, got {value!r}")
            return
    try:
        processor = processor_class.from_config(OmegaConf.create(dict(options)))
        views = views_of(processor.policy)
    except (ValueError, TypeError) as error:
        yield Finding(f"{where}: {error}")
        return
    yield from _check_fit(views, processor.image_size, where, model)


def views_of(policy: ViewPolicy) -> set[int]:
    """How many views the tasks are given, from a plan for one region; one number if all agree."""
    plan = policy.plan(Image.new("RGB", (8, 8)), torch.tensor([[2.0, 2.0, 6.0, 6.0]]))
    everything = plan.scales.shape[1]
    return {len(plan.routes[task]) if task in plan.routes else everything for task in TASKS}


def _check_fit(views: set[int], image_size: int, where: str, model: Section) -> Findings:
    """Views that are not those the model is made for."""
    try:
        config = read_model(model)
    except ValueError:  # `check_model` says so
        return
    if config is None:
        return
    if views != {config.region.num_views}:
        found = " or ".join(map(str, sorted(views)))
        yield Finding(
            f"{where}: gives {found} views a region, model.region.num_views is "
            f"{config.region.num_views}"
        )
    if image_size != config.vision.image_size:
        yield Finding(
            f"{where}.image_size: is {image_size}, model.vision.image_size is "
            f"{config.vision.image_size}"
        )


def check_dataset(name: str, section: Section) -> Findings:
    """A dataset of ours, merged with the yaml of its type or that yaml itself."""
    builder_class = registry.get_builder_class(name)
    if not issubclass(builder_class, RegionDatasetBuilder):
        return
    place = f"datasets.{name}"
    for key in section:
        if key not in KEYS:
            yield Finding(f"{place}: unknown {key!r}; {suggestion(key, KEYS)}")
    kind, kinds = section.get("type", "default"), builder_class.DATASET_CONFIG_DICT
    if kind not in list(kinds):
        yield Finding(f"{place}.type does not know {kind!r}; {suggestion(str(kind), kinds)}")
        return
    place = f"{place}.build_info"
    try:
        info = from_mapping(builder_class.info_type, section.get("build_info") or {}, where=place)
    except ValueError as error:
        yield Finding(str(error))
        return
    known = _builder(name, section).available_splits()
    for split in dict.fromkeys([*(info.splits or ()), *info.split_names]):
        if split not in known:
            yield Finding(f"{place}: no split {split!r}; {suggestion(str(split), known)}")
    for key, value, choices in (
        ("on_error", info.on_error, ON_ERROR),
        ("evaluator", info.evaluator or EVALUATORS[0], EVALUATORS),
    ):
        if value not in choices:
            yield Finding(f"{place}.{key} does not know {value!r}; {suggestion(value, choices)}")
    if info.tags != "auto":
        yield from absent_file(info.tags, f"{place}.tags")
    if builder_class.root_variable:  # the others make their files themselves
        yield from _check_root(info, place, builder_class.root_variable)


def _check_root(info: Any, place: str, variable: str) -> Findings:
    """Raw files that are not where the config says."""
    if info.root is None:
        text = f"{place}.root: not set; give it as an option or export {variable}"
        yield Finding(text, fatal=False)
        return
    root = Path(info.root).expanduser()
    if not root.is_dir():
        yield Finding(f"{place}.root: no folder {str(root)!r}", fatal=False)
        return
    files = {key: getattr(info, key, None) for key in RAW_FILES}
    for key, value in {**files, "images.storage": info.images.storage}.items():
        path = root / Path(value or "").expanduser()
        if not path.exists():
            yield Finding(f"{place}.{key}: no {str(path)!r}", fatal=False)


def evaluators_by_split(name: str, section: Section) -> dict[str, str]:
    """Split as the run calls it -> what grades it, of a dataset of ours without findings."""
    builder = _builder(name, section)
    info = from_mapping(builder.info_type, section.get("build_info") or {})
    return {
        str(info.split_names.get(split, split)): info.evaluator or builder.evaluator_of(split)
        for split in info.splits or builder.available_splits()
    }


def check_expected(expected: Expected, evaluators: Mapping[str, str]) -> Findings:
    """The `expected` section.

    Args:
        expected: its numbers.
        evaluators: split that the run evaluates -> what grades it.
    """
    for number in expected.numbers:
        place = f"expected.{number.split}"
        evaluator = evaluators.get(number.split)
        if evaluator is None:
            yield Finding(f"{place}: not evaluated; {suggestion(number.split, evaluators)}")
        elif number.metric not in METRIC_NAMES[evaluator]:
            hint = suggestion(number.metric, METRIC_NAMES[evaluator])
            group = evaluator == "attributes" and number.metric.startswith("map_")
            more = "; or is it a parent type of the vocabulary?" if group else ""
            text = f"{place}: {evaluator} reports no {number.metric!r}; {hint}{more}"
            yield Finding(text, fatal=not group)


def _builder(name: str, section: Section) -> RegionDatasetBuilder:
    defaults = {"data_type": "images", "type": "default"}
    return registry.get_builder_class(name)(OmegaConf.create({**defaults, **section}))
