"""Checks of datasets and of the numbers expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from lavis_dynrefer.datasets.prepared import absent_images, prepared_images, read_manifest
from lavis_dynrefer.datasets.region_source import KEYS, RegionSource
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.errors import choice_problem
from lavis_dynrefer.metrics.expected import METRIC_NAMES, Expected
from lavis_dynrefer.paths import expand_home
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
from lavis_dynrefer.training.known_names import dataset_class


def is_ours(name: str) -> bool:
    """Whether a registered dataset is one of regions."""
    return issubclass(dataset_class(name), RegionSource)


def check_dataset(name: str, section: Section) -> Findings:
    """A dataset of ours, merged with the yaml of its type or that yaml itself."""
    source_class, place = dataset_class(name), f"datasets.{name}"
    yield from each(choice_problem(place, key, KEYS) for key in section)
    types = source_class.DATASET_CONFIG_DICT
    problem = choice_problem(f"{place}.type", section.get("type", "default"), types)
    if problem is not None:
        yield Finding(problem)
        return
    place = f"{place}.build_info"
    info, wrong = read_checked(source_class.info_type, section.get("build_info") or {}, place)
    yield from wrong
    if info is None:
        return
    source = source_of(name, section)
    try:
        known = source.available_splits()
    except DatasetError as error:
        yield Finding(str(error))
        return
    yield from _check_splits(info, known, place)
    if info.tags != "auto":
        yield from absent_file(info.tags, f"{place}.tags")
    if info.prepared is not None:
        yield from _check_prepared(info, place)
    elif source_class.make_raw_files is RegionSource.make_raw_files:
        yield from _check_raw_files(source, info, place)


def _check_splits(info: Any, known: tuple[str, ...], place: str) -> Findings:
    named = dict.fromkeys([*(info.splits or ()), *info.split_names])
    yield from each(choice_problem(f"{place}.splits", split, known) for split in named)
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
    images = prepared_images(info.prepared, manifest)
    if info.images.storage is None and not images.is_dir():
        yield missing(f"{place}.{absent_images(info.prepared, images)}")
    for split in info.splits or ():
        if split not in manifest["splits"]:
            known = sorted(manifest["splits"])
            yield missing(f"{place}.prepared: {info.prepared} has no split {split!r}, only {known}")


def _check_raw_files(source: RegionSource, info: Any, place: str) -> Findings:
    """Raw files that are not in place; the dataset may have been prepared before."""
    try:
        files = {**source.sources(info), "images.storage": source.images(info)}
    except NotImplementedError:  # a dataset with its own way of reading
        return
    except DatasetError as error:
        if info.root is not None or not source.root_variable:
            yield Finding(str(error) if str(error).startswith(place) else f"{place}.{error}")
            return
        hint = f"give it as an option or export {source.root_variable}"
        yield missing(f"{place}.root: not set; {hint}")
        return
    root = expand_home(info.root or ".")
    if not root.is_dir():
        yield warning(f"{place}.root: no folder {str(root)!r}")
        return
    for key, path in files.items():
        if not path.exists():
            yield warning(f"{place}.{key}: no {str(path)!r}")


def evaluators_by_split(name: str, section: Section) -> dict[str, str | None]:
    """Split as the run calls it -> what grades it; None if only the data tell.

    The dataset is one of ours without findings.
    """
    source = source_of(name, section)
    info = source.info()
    by_data = hasattr(info, "evaluators")  # the user's own annotations: what fits them
    return {
        str(info.split_names.get(split, split)): info.evaluator
        or (info.evaluators.get(split) if by_data else source.evaluator_of(split))
        for split in info.splits or source.available_splits()
    }


def check_expected(expected: Expected, evaluators: Mapping[str, str | None]) -> Findings:
    """The `expected` section, which never stops a run.

    Args:
        expected: its numbers.
        evaluators: split that the run evaluates -> what grades it; None if that is not known.
    """
    for number in expected.numbers:
        place = f"expected.{number.split}"
        problem = choice_problem(place, number.split, evaluators)
        if problem is not None:
            yield Finding(f"{problem}; the run does not evaluate it", stops=False)
            continue
        evaluator = evaluators[number.split]
        if evaluator is None:
            continue
        problem = choice_problem(f"{place} ({evaluator})", number.metric, METRIC_NAMES[evaluator])
        if problem is not None:
            group = evaluator == "attributes" and number.metric.startswith("map_")
            more = "; or is it a parent type of the vocabulary?" if group else ""
            yield Finding(problem + more, fatal=not group, stops=False)


def source_of(name: str, section: Section) -> RegionSource:
    """The source of a dataset of ours in a config."""
    defaults = {"data_type": "images", "type": "default", "build_info": {}}
    given = {key: value for key, value in section.items() if value is not None}
    return dataset_class(name)(OmegaConf.create({**defaults, **given}))
