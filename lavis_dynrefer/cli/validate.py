"""Check the yaml of a run, a model or a dataset without building a model or reading data.

    dynrefer validate projects/dynrefer/evaluate/ovad.yaml --options run.seed=1

Exit code 0 if all is well, 2 if something is wrong; files that are not here are warnings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_dynrefer.training.checks.dataset_checks import check_dataset, is_ours
from lavis_dynrefer.training.checks.findings import Finding, Findings, Section, not_a_mapping
from lavis_dynrefer.training.checks.model_checks import CONFIGS, check_model
from lavis_dynrefer.training.checks.processor_checks import PROCESSORS, check_processors
from lavis_dynrefer.training.checks.run_checks import check_run
from lavis_dynrefer.training.run_config import LaunchError, load_run_config, read_sections, readable
from lavis_dynrefer.training.run_keys import suggestion

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
            return list(check_run(load_run_config(name, options)))
    except LaunchError as error:
        return [Finding(line) for line in str(error).splitlines()]


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
    if arch not in CONFIGS:
        return
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
        place = f"datasets.{name}"
        if name not in known:
            yield Finding(f"datasets does not know {name!r}; {suggestion(name, known)}")
        elif not isinstance(section or {}, Mapping):
            yield from not_a_mapping(section, place)
        elif is_ours(name):
            yield from check_dataset(name, section or {})
            yield from check_processors(section or {}, place, model={})
