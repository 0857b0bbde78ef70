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

from lavis_dynrefer.cli import yaml_checks
from lavis_dynrefer.cli.yaml_checks import Finding, Findings
from lavis_dynrefer.loaders import select_splits
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
                findings = _check_model_file(_resolved(name, options))
            elif names == {"datasets"}:
                findings = _check_dataset_file(_resolved(name, options))
            else:
                findings = _check_run(name, options, sections)
            return list(findings)
    except LaunchError as error:
        return [Finding(str(error))]


def _resolved(name: str, options: Sequence[str]) -> dict[str, Any]:
    return OmegaConf.to_container(read_sections(name, options), resolve=True)


def _check_model_file(sections: Mapping[str, Any]) -> Findings:
    model = sections["model"] or {}
    if model.get("arch") not in registry.list_models():
        known = suggestion(str(model.get("arch")), registry.list_models())
        yield Finding(f"model.arch does not know {model.get('arch')!r}; {known}")
        return
    yield from yaml_checks.check_model(model)
    preprocess = sections.get("preprocess") or {}
    yield from yaml_checks.check_processors(preprocess, "preprocess", model)


def _check_dataset_file(sections: Mapping[str, Any]) -> Findings:
    known = registry.list_datasets()
    for name, section in (sections["datasets"] or {}).items():
        if name not in known:
            yield Finding(f"datasets does not know {name!r}; {suggestion(name, known)}")
        else:
            yield from _check_dataset(name, section or {}, {})


def _check_dataset(name: str, section: Mapping[str, Any], model: Mapping[str, Any]) -> Findings:
    yield from yaml_checks.check_dataset(name, section)
    yield from yaml_checks.check_processors(section, f"datasets.{name}", model)


def _check_run(name: str, options: Sequence[str], sections: Mapping[str, Any]) -> Findings:
    device = str((sections.get("run") or {}).get("device"))
    if device.startswith("cuda") and not torch.cuda.is_available():
        yield Finding("run.device is cuda, and there is no GPU here", fatal=False)
        options = [*options, "run.device=cpu"]
    config = load_run_config(name, options)
    content = OmegaConf.to_container(config.get_config(), resolve=True)
    yield from yaml_checks.check_model(content["model"])
    wrong = False
    for dataset, section in content["datasets"].items():
        for finding in _check_dataset(dataset, section, content["model"]):
            wrong = wrong or finding.fatal
            yield finding
    yield from _check_checkpoints(content["run"])
    if content["run"]["task"] != OWN_TASK:
        return
    try:
        setup_task(config)
    except ValueError as error:
        yield Finding(str(error))
    if not wrong and content["run"]["runner"] == OWN_RUNNER:
        yield from _check_splits(config, content)


def _check_checkpoints(run: Mapping[str, Any]) -> Findings:
    given = run.get("load_ckpt_path") or []
    for path in [given] if isinstance(given, str) else given:
        yield from yaml_checks.warn_if_absent(path, "run.load_ckpt_path")
    if run.get("resume_ckpt_path") != "auto":
        yield from yaml_checks.warn_if_absent(run.get("resume_ckpt_path"), "run.resume_ckpt_path")


def _check_splits(config: RunConfig, content: Mapping[str, Any]) -> Findings:
    """The splits the run names, and the numbers expected of them."""
    run = content["run"]
    by_dataset = {
        name: yaml_checks.evaluators_by_split(name, section)
        for name, section in content["datasets"].items()
    }
    # One sample stands for the data.
    placeholders = {name: dict.fromkeys(splits, (None,)) for name, splits in by_dataset.items()}
    evaluated = [*run["valid_splits"], *run["test_splits"]]
    try:
        select_splits(placeholders, evaluated=evaluated, training=not run["evaluate"])
    except ValueError as error:
        yield Finding(str(error))
        return
    if config.expected is not None:
        evaluators = {split: item for found in by_dataset.values() for split, item in found.items()}
        asked = {split: evaluators[split] for split in evaluated}
        yield from yaml_checks.check_expected(config.expected, asked)
