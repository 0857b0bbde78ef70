"""Checks of a whole run: its sections, how they fit each other, this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_dynrefer.config import MODELS
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.expected import Expected
from lavis_dynrefer.paths import expand_home
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
    each,
    missing,
    read_checked,
)
from lavis_dynrefer.training.checks.grader_checks import check_graders
from lavis_dynrefer.training.checks.model_checks import check_model
from lavis_dynrefer.training.checks.processor_checks import (
    Uses,
    check_presence,
    check_processors,
)
from lavis_dynrefer.training.known_names import name_problem
from lavis_dynrefer.training.run_config import LaunchError, RunConfig, load_run_config
from lavis_dynrefer.training.run_settings import OWN_RUNNER, OWN_TASK, TASKS_OF, RunSettings
from lavis_dynrefer.training.run_splits import TRAIN, select_splits
from lavis_dynrefer.training.scalars.log_services import logger_problem

Evaluators = Mapping[str, Mapping[str, Any]]  # dataset -> split -> evaluator, None if not known


def load_checked_config(
    cfg_path: str, options: Sequence[str] = (), *, evaluate: bool = False
) -> tuple[RunConfig, list[str]]:
    """Read a run's configuration and refuse one that cannot run here; arguments as in `launch`.

    Returns:
        The configuration, and warnings.

    Raises:
        LaunchError: the run cannot start; a line for each problem.
    """
    config = load_run_config(cfg_path, options, evaluate=evaluate)
    findings = list(check_run(config))
    stopping = [finding.text for finding in findings if finding.stops]
    others = [finding.text for finding in findings if not finding.stops]
    if stopping:
        raise LaunchError("\n".join(stopping), others)
    return config, others


def check_run(config: RunConfig) -> Findings:
    """A run, merged with the yaml of its model and datasets; LAVIS's own parts are not checked."""
    content = OmegaConf.to_container(config.config, resolve=True)
    run, model, datasets = content["run"], content["model"], content["datasets"]
    own_task = run["task"] == OWN_TASK
    yield from check_model(model)
    yield from _check_device(run["device"])
    for key, kind in (("runner", "runner"), ("lr_sched", "lr_sched")):
        yield from each([name_problem(f"run.{key}", kind, run[key])])
    wrong = list(_check_run_section(run)) if own_task else []
    ours = {name: section for name, section in datasets.items() if is_ours(name)}
    for name, section in ours.items():
        wrong += check_dataset(name, section)
    yield from wrong
    known = own_task and not any(finding.fatal for finding in wrong)
    evaluators: Evaluators = {}
    if known:
        evaluators = {name: evaluators_by_split(name, section) for name, section in ours.items()}
    for name, section in ours.items():
        place = f"datasets.{name}"
        uses = _uses(run, evaluators[name]) if known else {}
        yield from check_processors(section, place, model, uses)
        yield from check_presence(section, place, uses)
    if known:
        graded = [splits.get(split) for splits in evaluators.values() for split in _evaluated(run)]
        yield from check_graders(graded)
    if known and run["runner"] == OWN_RUNNER and len(ours) == len(datasets):
        yield from _check_splits(run, evaluators, config.expected)
    family = MODELS.get(model["arch"])
    if own_task and family and not family.answers and _evaluated(run):
        yield Finding(
            f"model.arch: {model['arch']} cannot be evaluated; empty run.valid_splits and "
            "run.test_splits"
        )


def _check_run_section(run: Section) -> Findings:
    settings, wrong = read_checked(RunSettings, run, "run")
    yield from wrong
    if settings is None:
        return
    for path in settings.load_ckpt_path or ():
        yield from absent_file(path, "run.load_ckpt_path")
    if settings.resume_ckpt_path != "auto":
        yield from absent_file(settings.resume_ckpt_path, "run.resume_ckpt_path")
    if settings.runner == OWN_RUNNER:
        yield from _check_output(Path(settings.output_dir))
        for problem in filter(None, map(logger_problem, settings.loggers)):
            yield missing(problem)
    else:
        yield from _check_stock_runner(settings)


def _check_device(name: Any) -> Findings:
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        yield Finding(f"run.device: expected auto, cpu, cuda or cuda:1 and so on, got {name!r}")
    elif name.startswith("cuda"):  # needs torch, which takes a second to import
        from lavis_dynrefer.models.precision import choose_device

        try:
            choose_device(name)
        except InputError as error:
            yield missing(f"run.{error}")


def _check_output(output_dir: Path) -> Findings:
    folder = expand_home(output_dir).absolute()
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        yield missing(f"run.output_dir: {nearest} is not a folder")
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield missing(f"run.output_dir: {nearest} cannot be written; name another folder")


def _check_stock_runner(run: RunSettings) -> Findings:
    """LAVIS's runners with our task: by epoch, on GPUs, and training under torchrun only."""
    name, cure = run.runner, f"set run.runner: {OWN_RUNNER}"
    if run.loggers:
        yield Finding(f"run.loggers: {name} does not know it; {cure}")
    if name == "runner_iter":
        yield Finding(f"run.runner: {name} counts in iterations, task dynrefer in epochs; {cure}")
    if name != "runner_base":
        return
    if _is_cpu(run.device):
        yield missing(f"run.runner: {name} needs a GPU, run.device is cpu; {cure}")
    elif not run.evaluate and "RANK" not in os.environ:
        yield missing(f"run.runner: {name} trains under torchrun only; start with it, or {cure}")
    if len(run.load_ckpt_path or ()) > 1:
        yield Finding(f"run.load_ckpt_path: {name} takes one file, not a list; {cure}")
    if run.resume_ckpt_path and not run.evaluate:
        yield Finding(
            f"run.resume_ckpt_path: {name} cannot continue a run, because its checkpoints lack the "
            f"frozen weights that it then asks for; {cure}"
        )
    if run.valid_splits and "val" not in run.valid_splits and not run.evaluate:
        yield Finding(
            f"run.valid_splits: {name} picks the best weights by a split named val only, and "
            f"fails at the end without one; name a split val, or {cure}"
        )


def _is_cpu(device: Any) -> bool:
    if device != "auto":
        return bool(device == "cpu")
    from lavis_dynrefer.models.precision import choose_device

    return choose_device("auto").type != "cuda"


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
    if list(run["train_splits"]) not in ([], [TRAIN]):
        yield Finding(f"run.train_splits: expected [{TRAIN}], got {run['train_splits']}")
    try:
        chosen = select_splits(evaluators, evaluated=_evaluated(run), training=not run["evaluate"])
    except InputError as error:
        yield Finding(str(error))
        return
    if expected is not None:
        yield from check_expected(
            expected, {split: parts[0] for split, parts in chosen.items() if split != TRAIN}
        )
