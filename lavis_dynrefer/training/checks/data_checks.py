"""Checks of the data that a run reads: can it be graded, and what do the tokenizers lose of it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from lavis_dynrefer.config import DynReferConfig
from lavis_dynrefer.datasets.evaluator_choice import grading_problem
from lavis_dynrefer.datasets.sources.image_turns import TURNED, turned_images
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.errors import DynReferError, InputError
from lavis_dynrefer.structures import RegionSet
from lavis_dynrefer.training.checks.dataset_checks import is_ours, source_of
from lavis_dynrefer.training.checks.findings import (
    Finding,
    Findings,
    Section,
    warning,
)
from lavis_dynrefer.training.checks.grader_checks import check_graders
from lavis_dynrefer.training.checks.model_checks import read_model
from lavis_dynrefer.training.checks.text_checks import (
    Counters,
    check_captions,
    check_graded_names,
    check_names,
)
from lavis_dynrefer.training.run_config import RunConfig
from lavis_dynrefer.training.run_settings import OWN_TASK
from lavis_dynrefer.training.run_splits import TRAIN

logger = logging.getLogger(__name__)
BLIP_MAX_WORDS = 50  # LAVIS's default


@dataclass(frozen=True)
class UsedSplit:
    """A split that a run trains or is evaluated on.

    Args:
        place: its name in messages.
        region_set: its regions.
        evaluator: what grades it; None if it is trained on.
        max_words: what the text processor keeps of a caption; None for all.
        tags: the tag list that it is trained with.
    """

    place: str
    region_set: RegionSet
    evaluator: str | None
    max_words: Any = None
    tags: Sequence[str] = ()


def used_splits(
    datasets: Mapping[str, Mapping[str, Any]], *, evaluated: Iterable[str], training: bool
) -> list[UsedSplit]:
    """The splits of regions among the datasets that a run has built.

    Args:
        datasets: dataset -> split -> `RegionDataset`, or a dataset of another kind.
        evaluated: names of the splits to evaluate.
        training: whether the split `train` is trained on.
    """
    names = {*evaluated, *([TRAIN] if training else ())}
    return [
        UsedSplit(
            f"datasets.{name}, split '{split}'",
            dataset.region_set,
            None if split == TRAIN else dataset.evaluator,
            getattr(getattr(dataset, "text_processor", None), "max_words", None),
            dataset.tag_names or (),
        )
        for name, splits in datasets.items()
        for split, dataset in splits.items()
        if split in names and isinstance(getattr(dataset, "region_set", None), RegionSet)
    ]


def check_data(config: RunConfig) -> Findings:
    """The data of a run, read as the run reads it and prepared on the way; takes its time."""
    from lavis.common.registry import registry

    run, datasets = config.run_cfg, {}
    for name, section in config.datasets_cfg.items():
        if is_ours(name):
            try:
                datasets[name] = registry.get_builder_class(name)(section).build_datasets()
            except (DynReferError, OSError) as error:
                yield Finding(str(error))
    used = used_splits(
        datasets, evaluated=[*run.valid_splits, *run.test_splits], training=not run.evaluate
    )
    model = OmegaConf.to_container(config.model_cfg, resolve=True)
    yield from _check_used(used, model)
    if run.get("num_workers", 1):
        for name, splits in datasets.items():
            yield from check_workers(f"datasets.{name}", splits)


def check_workers(place: str, splits: Mapping[str, Any]) -> Findings:
    """Whether datasets can be handed to loader workers, which are spawned on macOS and Windows.

    Args:
        place: name of the dataset in messages.
        splits: split -> torch dataset.
    """
    for split, dataset in splits.items():
        try:
            pickle.dumps(dataset)
        except Exception as error:  # anything that a class of the user raises
            yield warning(
                f"{place}, split '{split}': cannot be pickled, which spawned loader workers "
                f"need, as on macOS and Windows ({error}); is there a lambda or a local class in "
                "its processors? Move it to a module, or set run.num_workers: 0"
            )


def check_prepared(config: RunConfig) -> Findings:
    """The data of a run as far as it is prepared; nothing is converted or built."""
    content = OmegaConf.to_container(config.config, resolve=True)
    run = content["run"]
    if run["task"] != OWN_TASK:
        return
    used = [
        split
        for name, section in content["datasets"].items()
        if is_ours(name)
        for split in prepared_splits(
            name,
            section,
            evaluated=[*run["valid_splits"], *run["test_splits"]],
            training=not run["evaluate"],
        )
    ]
    yield from _check_used(used, content["model"])


def _check_used(used: Sequence[UsedSplit], model: Section) -> Findings:
    yield from check_grading(used)
    yield from check_notes(used)
    config, _ = read_model(model)
    if used and isinstance(config, DynReferConfig):
        yield from check_texts(used, Counters.of_config(config))


def prepared_splits(
    name: str, section: Section, *, evaluated: Iterable[str], training: bool
) -> list[UsedSplit]:
    """As `used_splits`, of a dataset of ours in a config, as far as it is prepared already."""
    source = source_of(name, section)
    try:
        found = source.read_prepared()
    except (DatasetError, NotImplementedError):  # other checks name these
        return []
    info = source.info()
    used = {*evaluated, *([TRAIN] if training else ())}
    names = {split: str(info.split_names.get(split, split)) for split in found}
    return [
        UsedSplit(
            f"datasets.{name}, split '{names[split]}'",
            region_set,
            None if names[split] == TRAIN else info.evaluator or source.evaluator_of(split),
            _max_words(section),
        )
        for split, region_set in found.items()
        if names[split] in used
    ]


def _max_words(section: Section) -> Any:
    """What LAVIS's processor keeps of a training caption; None for all, or if it is another."""
    processor = (section.get("text_processor") or {}).get("train") or {}
    if processor.get("name") != "blip_caption":
        return None
    return processor.get("max_words", BLIP_MAX_WORDS)


def check_grading(splits: Iterable[UsedSplit]) -> Findings:
    """Whether the evaluators can grade the splits here: found now, not after the evaluation."""
    splits = list(splits)
    yield from check_graders(split.evaluator for split in splits)
    for split in splits:
        problem = split.evaluator and grading_problem(split.region_set, split.evaluator)
        if problem:
            place = split.place.partition(",")[0]
            yield Finding(f"{place}: {problem}")


def check_notes(splits: Iterable[UsedSplit]) -> Findings:
    """What the reader noted about a split that may spoil a run in silence."""
    for split in splits:
        turned = split.region_set.noted.get(TURNED)
        if turned:
            yield warning(f"{split.place}: {turned_images(turned)}")


def check_texts(splits: Iterable[UsedSplit], counters: Counters) -> Findings:
    """What the tokenizers lose of captions, tags, attributes and categories."""
    for split in splits:
        if split.evaluator is None:
            if counters.captions is not None:
                yield from check_captions(
                    split.place, split.region_set, split.max_words, counters.captions
                )
            if counters.names is not None:
                yield from check_names(split.place, "tags", split.tags, split.tags, counters.names)
        elif counters.names is not None:
            yield from check_graded_names(
                split.place, split.region_set, split.evaluator, counters.names
            )


def stop_or_warn(findings: Iterable[Finding], *, quiet: bool = False) -> None:
    """Log what may be intended, unless `quiet`, and refuse what stops a run.

    Raises:
        InputError: a line for each finding that stops the run.
    """
    stopping = []
    for finding in findings:
        if finding.stops:
            stopping.append(finding.text)
        elif not quiet:
            logger.warning(finding.text)
    if stopping:
        raise InputError("\n".join(stopping))
