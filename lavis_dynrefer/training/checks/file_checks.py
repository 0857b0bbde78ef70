"""Checks one yaml: of a run, of a model or of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_dynrefer.config import MODELS
from lavis_dynrefer.errors import choice_problem
from lavis_dynrefer.training.checks.data_checks import check_data, check_prepared
from lavis_dynrefer.training.checks.dataset_checks import check_dataset, is_ours
from lavis_dynrefer.training.checks.findings import Finding, Findings, Section, each, not_a_mapping
from lavis_dynrefer.training.checks.model_checks import check_model
from lavis_dynrefer.training.checks.processor_checks import PROCESSORS, check_processors
from lavis_dynrefer.training.checks.run_checks import check_run
from lavis_dynrefer.training.known_names import name_problem
from lavis_dynrefer.training.run_config import LaunchError, load_run_config, read_sections, readable

_MODEL_SECTIONS = ("model", "preprocess")


def check_file(name: str, options: Sequence[str] = (), *, read_data: bool = False) -> list[Finding]:
    """Everything found in one yaml, without building a model.

    Args:
        name: yaml file, from the current folder; else one of those shipped in projects/.
        options: as the launcher takes them.
        read_data: read the data of a run, and prepare it if it is not; otherwise only what is
            prepared already is looked at.
    """
    try:
        with readable(name):
            content = read_sections(name, options)
            if "model" in content and set(content).issubset(_MODEL_SECTIONS):
                if isinstance(content.model, DictConfig):
                    from lavis_dynrefer.models.weights.places import laid_over_its_type  # torch

                    content = laid_over_its_type(content)
                return list(_check_model_file(OmegaConf.to_container(content, resolve=True)))
            if set(content) == {"datasets"}:
                return list(_check_dataset_file(OmegaConf.to_container(content, resolve=True)))
            config = load_run_config(name, options)
            findings = list(check_run(config))
            if not any(finding.fatal for finding in findings):
                findings += (check_data if read_data else check_prepared)(config)
            return findings
    except LaunchError as error:
        return list(each(str(error).splitlines()))


def _check_model_file(content: Section) -> Findings:
    wrong = [item for key in content for item in not_a_mapping(content[key], key)]
    yield from wrong
    if wrong:
        return
    model, preprocess = content["model"] or {}, content.get("preprocess") or {}
    problem = name_problem("model.arch", "model", model.get("arch"))
    if problem is not None:
        yield Finding(problem)
        return
    yield from check_model(model)
    if model["arch"] in MODELS:
        yield from each(choice_problem("preprocess", key, PROCESSORS) for key in preprocess)
        yield from check_processors(preprocess, "preprocess", model)


def _check_dataset_file(content: Mapping[str, Any]) -> Findings:
    datasets = content["datasets"]
    if not isinstance(datasets, Mapping) or not datasets:
        yield Finding(f"datasets: expected at least one dataset, got {datasets!r}")
        return
    for name, section in datasets.items():
        place, problem = f"datasets.{name}", name_problem("datasets", "dataset", name)
        if problem is not None:
            yield Finding(problem)
        elif not isinstance(section or {}, Mapping):
            yield from not_a_mapping(section, place)
        elif is_ours(name):
            yield from check_dataset(name, section or {})
            yield from check_processors(section or {}, place, model={})
