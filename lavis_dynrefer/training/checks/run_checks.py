"""What can be wrong with a whole run: its sections, what they say of each other, this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from lavis_dynrefer.config import GenerationConfig, from_mapping
from lavis_dynrefer.metrics.expected import Expected
from lavis_dynrefer.training.checks.dataset_checks import (
    check_dataset,
    check_expected,
    evaluators_by_split,
    is_ours,
)
from lavis_dynrefer.training.checks.findings import (
    Finding,
    Findings,
    Section,
    absent_file,
    check_numbers,
    missing,
)
from lavis_dynrefer.training.checks.model_checks import check_model
from lavis_dynrefer.training.checks.processor_checks import Uses, check_presence, check_processors
from lavis_dynrefer.training.loaders import TRAIN, select_splits
from lavis_dynrefer.training.run_config import (
    OWN_RUNNER,
    OWN_TASK,
    LaunchError,
    RunConfig,
    load_run_config,
)
from lavis_dynrefer.training.run_keys import key_problems
from lavis_dynrefer.training.task import TASKS_OF

Evaluators = Mapping[str, Mapping[str, Any]]  # dataset -> split -> evaluator, None if not known


def load_checked_config(
    cfg_path: str, options: Sequence[str] = (), *, evaluate: bool = False
) -> tuple[RunConfig, list[str]]:
    """Read a run's configuration and refuse one that cannot run here; arguments as in `launch`.

    Returns:
        The configuration, and what was found that may be in order.

    Raises:
        LaunchError: whatever is wrong, a line for each.
    """
    config = load_run_config(cfg_path, options, evaluate=evaluate)
    findings = list(check_run(config))
    stopping = [finding.text for finding in findings if finding.stops]
    others = [finding.text for finding in findings if not finding.stops]
    if stopping:
        raise LaunchError("\n".join(stopping), others)
    return config, others


def check_run(config: RunConfig) -> Findings:
    """A run, merged with the yaml of its model and datasets; what is LAVIS's own is let be."""
    content = OmegaConf.to_container(config.get_config(), resolve=True)
    run, datasets = content["run"], content["datasets"]
    yield from check_model(content["model"])
    yield from _check_device(run["device"])
    wrong = list(_check_run_section(run)) if run["task"] == OWN_TASK else []
    ours = {name: section for name, section in datasets.items() if is_ours(name)}
    for name, section in ours.items():
        wrong += check_dataset(name, section)
    yield from wrong
    if any(finding.fatal for finding in wrong) or run["task"] != OWN_TASK:
        for name, section in ours.items():
            yield from check_processors(section, f"datasets.{name}", content["model"], {})
        return
    if content["model"]["arch"] == "dynrefer_pretraining" and _evaluated(run):
        yield Finding(
            "model.arch: dynrefer_pretraining answers nothing; empty run.test_splits and such"
        )
    evaluators = {name: evaluators_by_split(name, section) for name, section in ours.items()}
    for name, section in ours.items():
        uses = _uses(run, evaluators[name])
        yield from check_processors(section, f"datasets.{name}", content["model"], uses)
        yield from check_presence(section, f"datasets.{name}", uses)
    if run["runner"] == OWN_RUNNER and len(ours) == len(datasets):
        yield from _check_splits(run, evaluators, config.expected)


def _check_run_section(run: Section) -> Findings:
    problems = list(key_problems(run))
    yield from (Finding(problem) for problem in problems)
    if problems:
        return
    try:
        generation = from_mapping(
            GenerationConfig, run.get("generation") or {}, where="run.generation"
        )
        yield from check_numbers(generation, "run.generation")
    except ValueError as error:
        yield Finding(str(error))
    yield from _check_paths(run)
    if run["runner"] != OWN_RUNNER:
        yield from _check_stock_runner(run)


def _check_device(name: Any) -> Findings:
    try:
        device = torch.device(name) if isinstance(name, str) else None
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        yield Finding(f"run.device: expected auto, cpu, cuda or cuda:1 and so on, got {name!r}")
        return
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        yield missing("run.device is cuda, but torch finds no GPU here; set run.device=cpu or auto")
    elif device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        yield missing(f"run.device: there is no {name} here, the last GPU is cuda:{last}")


def _check_paths(run: Section) -> Findings:
    given = run.get("load_ckpt_path") or []
    for path in given if isinstance(given, list) else [given]:
        yield from absent_file(path, "run.load_ckpt_path")
    if run.get("resume_ckpt_path") != "auto":
        yield from absent_file(run.get("resume_ckpt_path"), "run.resume_ckpt_path")
    if run["runner"] != OWN_RUNNER:  # LAVIS's write below their own folder
        return
    folder = Path(run["output_dir"]).expanduser().absolute()
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        yield missing(f"run.output_dir: {nearest} is not a folder")
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield missing(f"run.output_dir: {nearest} cannot be written; name another folder")


def _check_stock_runner(run: Section) -> Findings:
    """LAVIS's runners with our task: by epoch, on GPUs, and training under torchrun only."""
    name, cure = run["runner"], f"set run.runner: {OWN_RUNNER}"
    if name == "runner_iter":
        yield Finding(f"run.runner: {name} counts in iterations, task dynrefer in epochs; {cure}")
    if name != "runner_base":
        return
    if run["device"] == "cpu":
        yield missing(f"run.runner: {name} needs a GPU, run.device is cpu; {cure}")
    elif not run["evaluate"] and "RANK" not in os.environ:
        yield missing(f"run.runner: {name} trains under torchrun only; start with it, or {cure}")
    if isinstance(run.get("load_ckpt_path"), list):
        yield Finding(f"run.load_ckpt_path: {name} takes one file, not a list; {cure}")
    if run.get("resume_ckpt_path") == "auto":
        yield Finding(f"run.resume_ckpt_path: {name} does not know auto; name a file, or {cure}")


def _uses(run: Section, evaluators: Mapping[str, str | None]) -> Uses:
    """Phases of a dataset's processors that the run uses, each with the tasks it asks."""
    graded = [evaluators[split] for split in _evaluated(run) if split in evaluators]
    uses: dict[str, set[str] | None] = {}
    if TRAIN in evaluators and not run["evaluate"]:
        uses["train"] = set()
    if graded:
        known = set(graded) <= set(TASKS_OF)
        uses["eval"] = {task for item in graded for task in TASKS_OF[item]} if known else None
    return uses


def _evaluated(run: Section) -> list[str]:
    return [*run["valid_splits"], *run["test_splits"]]


def _check_splits(run: Section, evaluators: Evaluators, expected: Expected | None) -> Findings:
    """The splits the run names, and the numbers expected of them."""
    evaluated = _evaluated(run)
    if run["train_splits"] not in ([], [TRAIN]):
        yield Finding(f"run.train_splits: expected [{TRAIN}], got {run['train_splits']}")
    # One sample stands for the data.
    placeholders = {name: dict.fromkeys(splits, (None,)) for name, splits in evaluators.items()}
    try:
        select_splits(placeholders, evaluated=evaluated, training=not run["evaluate"])
    except ValueError as error:
        yield Finding(str(error))
        return
    if expected is not None:
        known = {split: item for found in evaluators.values() for split, item in found.items()}
        yield from check_expected(expected, {split: known[split] for split in evaluated})
