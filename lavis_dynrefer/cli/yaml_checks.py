"""What can be wrong with each section of a yaml, found without building or reading anything big."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.config import DynReferConfig, from_mapping
from lavis_dynrefer.datasets.region_builder import KEYS, RegionDatasetBuilder
from lavis_dynrefer.datasets.region_dataset import EVALUATORS, ON_ERROR
from lavis_dynrefer.metrics.expected import METRIC_NAMES, Expected
from lavis_dynrefer.models import llms
from lavis_dynrefer.models.answers import TASKS
from lavis_dynrefer.models.dynrefer import LAVIS_KEYS, DynRefer
from lavis_dynrefer.models.pretraining import PretrainingConfig
from lavis_dynrefer.models.sources import SOURCES
from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.processors import ViewProcessor
from lavis_dynrefer.run_keys import suggestion
from lavis_dynrefer.views.policies import ViewPolicy

MODEL_CONFIGS = {"dynrefer": DynReferConfig, "dynrefer_backbone": PretrainingConfig}
PHASES = ("train", "eval")
RAW_FILES = (  # keys of any `build_info` that name a file, absolute or below `root`
    *("region_descriptions", "image_data", "densecap_splits", "annotations", "boxes"),
    *("refs", "instances"),
)
Section = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that may be.

    Args:
        text: the place, what was expected and what came.
        fatal: False for what may be in order on another machine, such as a file that is not here.
    """

    text: str
    fatal: bool = True


Findings = Iterator[Finding]


def warn_if_absent(name: Any, place: str) -> Findings:
    """A file that a config names and that is neither here nor in the package."""
    is_url = isinstance(name, str) and urlparse(name).scheme in ("http", "https")
    if isinstance(name, (str, Path)) and name and not is_url and find_resource(name) is None:
        yield Finding(f"{place}: no file {str(name)!r} here or in the package", fatal=False)


def check_model(model: Section) -> Findings:
    """The `model` section, merged with the yaml of its type."""
    config_class = MODEL_CONFIGS.get(model.get("arch", ""))
    if config_class is None:  # a model of LAVIS or of another plugin
        return
    own = {key: value for key, value in model.items() if key not in LAVIS_KEYS}
    try:
        config = from_mapping(config_class, own, where="model")
    except ValueError as error:
        yield Finding(str(error))
        return
    vision = config.vision
    if vision.image_size % vision.patch_size:
        yield Finding(
            f"model.vision.image_size: expected a multiple of patch_size {vision.patch_size}, "
            f"got {vision.image_size}"
        )
    if config.tagging.vocabulary is None:
        yield Finding("model.tagging.vocabulary: not set; name a file of tags", fatal=False)
    yield from warn_if_absent(config.tagging.vocabulary, "model.tagging.vocabulary")
    if isinstance(config, DynReferConfig):
        yield from _check_parts(config)
        yield from _check_weights(model)


def _check_parts(config: DynReferConfig) -> Findings:
    for name in config.trainable:
        part = name.split(".")[0]
        known = inspect.signature(DynRefer).parameters
        if part not in known:
            yield Finding(f"model.trainable: no part {part!r}; {suggestion(part, known)}")
    for key in ("attributes", "categories"):
        yield from warn_if_absent(getattr(config.contrast, key), f"model.contrast.{key}")
    if config.text.tokenizer != "clip":
        yield from warn_if_absent(config.text.tokenizer, "model.text.tokenizer")
    yield from _check_llm(config.captioning.llm, config.captioning.llm_options)


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
    yield from warn_if_absent(options.get("tokenizer"), f"{place}.tokenizer")


def _check_weights(model: Section) -> Findings:
    pretrained = model.get("pretrained") or {}
    if not isinstance(pretrained, Mapping):
        yield Finding(f"model.pretrained: expected some of {list(SOURCES)}, got {pretrained!r}")
        return
    for kind, name in pretrained.items():
        if kind not in SOURCES:
            yield Finding(f"model.pretrained: unknown {kind!r}; {suggestion(kind, SOURCES)}")
        elif name is None:
            text = f"model.pretrained.{kind}: not set; that part begins with random weights"
            yield Finding(text, fatal=False)
        yield from warn_if_absent(name, f"model.pretrained.{kind}")
    if not model.get("load_finetuned"):
        return
    if not model.get("finetuned"):
        yield Finding("model.finetuned: not set; name a checkpoint", fatal=False)
    yield from warn_if_absent(model.get("finetuned"), "model.finetuned")


def check_processors(section: Section, place: str, model: Section) -> Findings:
    """`vis_processor` and `text_processor` of a dataset or of a `preprocess` section.

    Args:
        section: holds the two.
        place: where it stands in the yaml.
        model: the model its views are made for; empty where that is not known.
    """
    for kind in ("vis_processor", "text_processor"):
        for phase, processor in (section.get(kind) or {}).items():
            where = f"{place}.{kind}.{phase}"
            if phase not in PHASES:
                yield Finding(f"{where}: unknown; expected some of {list(PHASES)}")
            elif not isinstance(processor, Mapping):
                yield Finding(f"{where}: expected a name and options, got {processor!r}")
            else:
                yield from _check_processor(processor, where, model)


def _check_processor(options: Section, where: str, model: Section) -> Findings:
    name = options.get("name")
    if name not in registry.list_processors():
        known = suggestion(str(name), registry.list_processors())
        yield Finding(f"{where}.name does not know {name!r}; {known}")
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
    wanted = _number(model, "region", "num_views")
    if wanted is not None and views != {wanted}:
        found = " or ".join(map(str, sorted(views)))
        yield Finding(f"{where}: gives {found} views a region, model.region.num_views is {wanted}")
    size = _number(model, "vision", "image_size")
    if size is not None and processor.image_size != size:
        yield Finding(
            f"{where}.image_size: is {processor.image_size}, model.vision.image_size is {size}"
        )


def views_of(policy: ViewPolicy) -> set[int]:
    """How many views the tasks are given, from the plan for one region; one number if all agree."""
    plan = policy.plan(Image.new("RGB", (8, 8)), torch.tensor([[2.0, 2.0, 6.0, 6.0]]))
    everything = plan.scales.shape[1]
    return {len(plan.routes[task]) if task in plan.routes else everything for task in TASKS}


def _number(model: Section, part: str, key: str) -> int | None:
    """A number of a model section, its default if the section does not say; None without model."""
    config_class = MODEL_CONFIGS.get(model.get("arch", ""))
    if config_class is None:
        return None
    try:
        return getattr(
            getattr(from_mapping(config_class, {part: model.get(part) or {}}), part), key
        )
    except ValueError:  # `check_model` has said so
        return None


def check_dataset(name: str, section: Section) -> Findings:
    """A dataset, merged with the yaml of its type."""
    builder_class = registry.get_builder_class(name)
    if not issubclass(builder_class, RegionDatasetBuilder):
        return
    place = f"datasets.{name}"
    for key in section:
        if key not in KEYS:
            yield Finding(f"{place}: unknown {key!r}; {suggestion(key, KEYS)}")
    place = f"{place}.build_info"
    try:
        info = from_mapping(builder_class.info_type, section.get("build_info") or {}, where=place)
    except ValueError as error:
        yield Finding(str(error))
        return
    known = _builder(name, section).available_splits()
    for split in {*(info.splits or ()), *info.split_names}:
        if split not in known:
            yield Finding(f"{place}: no split {split!r}; {suggestion(split, known)}")
    if info.on_error not in ON_ERROR:
        yield Finding(f"{place}.on_error: expected one of {ON_ERROR}, got {info.on_error!r}")
    if info.evaluator is not None and info.evaluator not in EVALUATORS:
        hint = suggestion(info.evaluator, EVALUATORS)
        yield Finding(f"{place}.evaluator: no {info.evaluator!r}; {hint}")
    yield from _check_data_files(info, place, builder_class.root_variable)


def _check_data_files(info: Any, place: str, root_variable: str) -> Findings:
    if info.tags not in (None, "auto"):
        yield from warn_if_absent(info.tags, f"{place}.tags")
    if info.root is None:
        if root_variable:
            text = f"{place}.root: not set; give it as an option or export {root_variable}"
            yield Finding(text, fatal=False)
        return
    root = Path(info.root).expanduser()
    if not root.is_dir():
        if root_variable:
            yield Finding(f"{place}.root: no folder {str(root)!r}", fatal=False)
        return
    files = {key: getattr(info, key, None) for key in RAW_FILES}
    for key, value in {**files, "images.storage": info.images.storage}.items():
        if value and not (root / Path(value).expanduser()).exists():
            text = f"{place}.{key}: no {str(root / Path(value).expanduser())!r}"
            yield Finding(text, fatal=False)


def evaluators_by_split(name: str, section: Section) -> dict[str, str]:
    """Split as the run calls it -> what grades it, of a dataset without findings."""
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
