"""Check the yaml of a run, a model or a dataset without building a model or reading data.

    dynrefer validate projects/dynrefer/evaluate/ovad.yaml --options run.seed=1

Exit code 0 if all is well, 2 if something is wrong; files that are not here are warnings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lavis.common.registry import registry
from lavis.tasks import setup_task
from omegaconf import OmegaConf

from lavis_dynrefer.cli.dataset_checks import (
    PROCESSORS,
    check_dataset,
    check_expected,
    check_processors,
    evaluators_by_split,
)
from lavis_dynrefer.cli.findings import Finding, Findings, Section, absent_file, not_a_mapping
from lavis_dynrefer.cli.model_checks import check_model, check_numbers
from lavis_dynrefer.config import GenerationConfig, from_mapping
from lavis_dynrefer.loaders import TRAIN, select_splits
from lavis_dynrefer.run_config import (
    OWN_RUNNER,
    OWN_TASK,
    LaunchError,
    RunConfig,
    load_run_config,
    read_sections,
    readable,
)
from lavis_dynrefer.run_keys import suggestion

EXIT_BAD_INPUT = 2  # as argparse and the launcher
MODEL_SECTIONS = ("model", "preprocess")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer validate`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="yaml of a run, model or dataset")
    parser.add_argument(
        "--options", nargs="+", default=[], help="settings that win over the yaml: a.b=1, or a.b 1"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check every file; returns 0, or 2 if one is wrong."""
    code = 0
    for name in arguments.files:
        findings = validate(name, arguments.options)
        problems = sum(finding.fatal for finding in findings)
        print(f"{name}: {f'{problems} wrong' if problems else 'ok'}")
        for finding in findings:
            print(f"  {'error' if finding.fatal else 'warning'}: {finding.text}")
        code = EXIT_BAD_INPUT if problems else code
    return code


def validate(name: str, options: Sequence[str] = ()) -> list[Finding]:
    """Everything found in one file.

    Args:
        name: yaml file, from the current folder; else one of those shipped in projects/.
        options: as the launcher takes them.
    """
    try:
        with readable(name):
            sections = OmegaConf.to_container(read_sections(name, options))
            names = set(sections)
            if "model" in names and names.issubset(MODEL_SECTIONS):
                return list(_check_model_file(_resolved(name, options)))
            if names == {"datasets"}:
                return list(_check_dataset_file(_resolved(name, options)))
            return list(_check_run(name, options, sections))
    except LaunchError as error:
        return [Finding(str(error))]


def _resolved(name: str, options: Sequence[str]) -> dict[str, Any]:
    sections = read_sections(name, options)
    unset = OmegaConf.missing_keys(sections)
    if unset:
        raise LaunchError(f"a value must be given for {', '.join(sorted(unset))}")
    return OmegaConf.to_container(sections, resolve=True)


def _check_model_file(sections: Section) -> Findings:
    wrong = [item for key in sections for item in not_a_mapping(sections[key], key)]
    yield from wrong
    if wrong:
        return
    model, preprocess = sections["model"] or {}, sections.get("preprocess") or {}
    arch, known = model.get("arch"), registry.list_models()
    if arch not in known:
        yield Finding(f"model.arch does not know {arch!r}; {suggestion(str(arch), known)}")
        return
    yield from check_model(model)
    for key in preprocess:
        if key not in PROCESSORS:
            yield Finding(f"preprocess: unknown {key!r}; {suggestion(key, PROCESSORS)}")
    yield from check_processors(preprocess, "preprocess", model)


def _check_dataset_file(sections: Section) -> Findings:
    datasets, known = sections["datasets"], registry.list_datasets()
    if not isinstance(datasets, Mapping) or not datasets:
        yield Finding(f"datasets: expected some of {known}, got {datasets!r}")
        return
    for name, section in datasets.items():
        if name not in known:
            yield Finding(f"datasets does not know {name!r}; {suggestion(name, known)}")
        elif isinstance(section or {}, Mapping):
            yield from _check_one_dataset(name, section or {}, {})
        else:
            yield from not_a_mapping(section, f"datasets.{name}")


def _check_one_dataset(name: str, section: Section, model: Section) -> Findings:
    yield from check_dataset(name, section)
    yield from check_processors(section, f"datasets.{name}", model)


def _check_run(name: str, options: Sequence[str], sections: Section) -> Findings:
    given = sections.get("run")
    device = str(given.get("device")) if isinstance(given, Mapping) else ""
    if device.startswith("cuda") and not torch.cuda.is_available():
        yield Finding("run.device is cuda, and there is no GPU here", fatal=False)
        options = [*options, "run.device=cpu"]
    config = load_run_config(name, options)
    content = OmegaConf.to_container(config.get_config(), resolve=True)
    yield from check_model(content["model"])
    wrong = False
    for dataset, section in content["datasets"].items():
        for finding in _check_one_dataset(dataset, section, content["model"]):
            wrong = wrong or finding.fatal
            yield finding
    run_section = content["run"]
    yield from _check_checkpoints(run_section)
    if run_section["task"] != OWN_TASK:
        return
    try:
        task = setup_task(config)
        generation = from_mapping(GenerationConfig, task.options.generation or {})
    except ValueError as error:
        yield Finding(str(error))
    else:
        yield from check_numbers(generation, "run.generation")
    if not wrong and run_section["runner"] == OWN_RUNNER:
        yield from _check_splits(config, content)


def _check_checkpoints(run_section: Section) -> Findings:
    given = run_section.get("load_ckpt_path") or []
    for path in given if isinstance(given, list) else [given]:
        yield from absent_file(path, "run.load_ckpt_path")
    if run_section.get("resume_ckpt_path") != "auto":
        yield from absent_file(run_section.get("resume_ckpt_path"), "run.resume_ckpt_path")


def _check_splits(config: RunConfig, content: Section) -> Findings:
    """The splits the run names, and the numbers expected of them."""
    run_section = content["run"]
    by_dataset = {
        name: evaluators_by_split(name, section) for name, section in content["datasets"].items()
    }
    evaluated = [*run_section["valid_splits"], *run_section["test_splits"]]
    if run_section["train_splits"] not in ([], [TRAIN]):
        yield Finding(f"run.train_splits: expected [{TRAIN}], got {run_section['train_splits']}")
    # One sample stands for the data.
    placeholders = {name: dict.fromkeys(splits, (None,)) for name, splits in by_dataset.items()}
    try:
        select_splits(placeholders, evaluated=evaluated, training=not run_section["evaluate"])
    except ValueError as error:
        yield Finding(str(error))
        return
    if config.expected is not None:
        evaluators = {split: item for found in by_dataset.values() for split, item in found.items()}
        asked = {split: evaluators[split] for split in evaluated}
        yield from check_expected(config.expected, asked)
