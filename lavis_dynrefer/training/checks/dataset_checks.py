"""What can be wrong with datasets and the numbers expected of them, found without data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_dynrefer.config import from_mapping
from lavis_dynrefer.datasets.prepared import read_manifest
from lavis_dynrefer.datasets.region_builder import KEYS, RegionDatasetBuilder
from lavis_dynrefer.datasets.region_dataset import EVALUATORS, ON_ERROR
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.metrics.expected import METRIC_NAMES, Expected
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


def is_ours(name: str) -> bool:
    """Whether a registered dataset is one of regions."""
    return issubclass(registry.get_builder_class(name), RegionDatasetBuilder)


def check_dataset(name: str, section: Section) -> Findings:
    """A dataset of ours, merged with the yaml of its type or that yaml itself."""
    builder_class, place = registry.get_builder_class(name), f"datasets.{name}"
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
        builder = _builder(name, section)
        known = builder.available_splits()
    except ValueError as error:
        yield Finding(str(error))
        return
    yield from check_numbers(info, place)
    yield from _check_splits(info, known, place)
    for key, value, choices in (
        ("on_error", info.on_error, ON_ERROR),
        ("evaluator", info.evaluator or EVALUATORS[0], EVALUATORS),
    ):
        if value not in choices:
            yield Finding(f"{place}.{key} does not know {value!r}; {suggestion(value, choices)}")
    if info.tags != "auto":
        yield from absent_file(info.tags, f"{place}.tags")
    if info.prepared is not None:
        yield from _check_prepared(info, place)
    elif builder_class.make_raw_files is RegionDatasetBuilder.make_raw_files:
        yield from _check_raw_files(builder, info, place)


def _check_splits(info: Any, known: tuple[str, ...], place: str) -> Findings:
    for split in dict.fromkeys([*(info.splits or ()), *info.split_names]):
        if split not in known:
            yield Finding(f"{place}: no split {split!r}; {suggestion(str(split), known)}")
    names = [str(info.split_names.get(split, split)) for split in info.splits or known]
    if len(set(names)) < len(names):
        yield Finding(f"{place}.split_names: two splits share a name: {names}")


def _check_prepared(info: Any, place: str) -> Findings:
    """A prepared folder that is not there, or lacks a split; it needs no raw files."""
    try:
        manifest = read_manifest(info.prepared)
    except DatasetError as error:
        yield missing(f"{place}.{error}")
        return
    for split in info.splits or ():
        if split not in manifest["splits"]:
            hint = suggestion(split, manifest["splits"])
            yield missing(f"{place}.prepared: {info.prepared} has no split {split!r}; {hint}")


def _check_raw_files(builder: RegionDatasetBuilder, info: Any, place: str) -> Findings:
    """Raw files that are not where the config says; they may have been prepared before."""
    try:
        files = {**builder.sources(info), "images.storage": builder.images(info)}
    except NotImplementedError:  # a builder that reads in its own way
        return
    except DatasetError as error:
        if info.root is not None or not builder.root_variable:
            yield Finding(str(error) if str(error).startswith(place) else f"{place}.{error}")
            return
        hint = f"give it as an option or export {builder.root_variable}"
        yield missing(f"{place}.root: not set; {hint}")
        return
    root = Path(info.root or ".").expanduser()
    if not root.is_dir():
        yield warning(f"{place}.root: no folder {str(root)!r}")
        return
    for key, path in files.items():
        if not path.exists():
            yield warning(f"{place}.{key}: no {str(path)!r}")


def evaluators_by_split(name: str, section: Section) -> dict[str, str | None]:
    """Split as the run calls it -> what grades it, of a dataset of ours without findings.

    None where only the data tell.
    """
    builder = _builder(name, section)
    info = from_mapping(builder.info_type, section.get("build_info") or {})
    by_data = hasattr(info, "evaluators")  # the user's own annotations: what fits them
    return {
        str(info.split_names.get(split, split)): info.evaluator
        or (info.evaluators.get(split) if by_data else builder.evaluator_of(split))
        for split in info.splits or builder.available_splits()
    }


def check_expected(expected: Expected, evaluators: Mapping[str, str | None]) -> Findings:
    """The `expected` section, which never stops a run.

    Args:
        expected: its numbers.
        evaluators: split that the run evaluates -> what grades it, None where that is not known.
    """
    for number in expected.numbers:
        place = f"expected.{number.split}"
        if number.split not in evaluators:
            text = f"{place}: not evaluated; {suggestion(number.split, evaluators)}"
            yield Finding(text, stops=False)
            continue
        evaluator = evaluators[number.split]
        if evaluator is not None and number.metric not in METRIC_NAMES[evaluator]:
            hint = suggestion(number.metric, METRIC_NAMES[evaluator])
            group = evaluator == "attributes" and number.metric.startswith("map_")
            more = "; or is it a parent type of the vocabulary?" if group else ""
            text = f"{place}: {evaluator} reports no {number.metric!r}; {hint}{more}"
            yield Finding(text, fatal=not group, stops=False)


def _builder(name: str, section: Section) -> RegionDatasetBuilder:
    defaults = {"data_type": "images", "type": "default"}
    return registry.get_builder_class(name)(OmegaConf.create({**defaults, **section}))
