"""Reads the yaml of a run and merges it with the defaults of the model and datasets it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lavis.common.optims  # registers the learning rate schedules
import lavis.runners  # noqa: F401  registers LAVIS's own runners
import torch
import yaml
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.metrics.expected import Expected, parse_expected
from lavis_dynrefer.paths import project_path
from lavis_dynrefer.training.run_keys import fill_defaults, suggestion

OWN_TASK = "dynrefer"
OWN_RUNNER = "runner_dynrefer"
NEEDED_SECTIONS = {"run", "model", "datasets"}
SECTIONS = {*NEEDED_SECTIONS, "expected"}


class LaunchError(InputError):
    """A run cannot start; the message says what is wrong and how to cure it, a line for each.

    Args:
        message: see above.
        warnings: what else was found, which may be in order.
    """

    def __init__(self, message: str, warnings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.warnings = tuple(warnings)


class RunConfig(Config):
    """LAVIS's `Config`, built from sections into which the options are merged already.

    LAVIS merges them last, so that `model.model_type` or `datasets.x.type` given as an option
    changes the label but not the default yaml that is loaded.

    Args:
        sections: `run`, `model` and `datasets`.
        expected: what the reports are compared with.
    """

    def __init__(self, sections: DictConfig, expected: Expected | None = None) -> None:
        self.args = None
        self.expected = expected
        registry.register("configuration", self)
        self.config = OmegaConf.merge(
            self.build_runner_config(sections),
            self.build_model_config(sections),
            self.build_dataset_config(sections),
        )


def load_run_config(
    cfg_path: str, options: Sequence[str] = (), *, evaluate: bool = False
) -> RunConfig:
    """Read and complete the configuration of a run; `checks.run_checks` tells what is wrong in it.

    Args:
        cfg_path: yaml file, from the current folder; else one of those shipped in projects/.
        options: "a.b=value", or "a.b" followed by "value", as LAVIS takes them.
        evaluate: evaluate only, whatever the yaml says.

    Raises:
        LaunchError: the file, a section or a registered name is wrong, so that nothing can be
            merged.
    """
    with readable(cfg_path):
        sections = read_sections(cfg_path, options)
        _check_sections(sections)
        _check_model(sections.model)
        run = OmegaConf.to_container(sections.run, resolve=True)
        sections.run = _completed_run(run, evaluate=evaluate)
        sections.datasets = _checked_datasets(sections.datasets)
        config = _merged_with_defaults(sections)
        resolved = OmegaConf.to_container(config.get_config(), resolve=True)
    _check_processors(resolved["datasets"])
    return config


def find_run_file(cfg_path: str) -> Path:
    """A yaml as named from the current folder, else the shipped one of that name.

    Raises:
        LaunchError: neither exists.
    """
    given = Path(cfg_path).expanduser()
    shipped_root = Path(project_path("."))
    parts = given.parts[1:] if given.parts[:1] == ("projects",) else given.parts
    for path in (given, shipped_root.joinpath(*parts)):
        if path.is_file():
            return path
    shipped = [
        f"projects/{path.relative_to(shipped_root).as_posix()}"
        for path in shipped_root.rglob("*.yaml")
    ]
    raise LaunchError(f"no file {cfg_path} from {Path.cwd()}; {suggestion(cfg_path, shipped)}")


def read_sections(cfg_path: str, options: Sequence[str] = ()) -> DictConfig:
    """The content of a yaml, options merged into it; arguments as in `load_run_config`."""
    path = find_run_file(cfg_path)
    content = OmegaConf.load(path)
    if not content or not isinstance(content, DictConfig):
        found = "a list" if content else "an empty file"
        raise LaunchError(f"{path}: expected the sections {sorted(NEEDED_SECTIONS)}, got {found}")
    try:
        return OmegaConf.merge(content, _read_options(options))
    except TypeError as error:  # OmegaConf's, without the place
        raise LaunchError(
            f"--options {list(options)}: a list stands where {path} has a mapping, or the other "
            "way round"
        ) from error


@contextmanager
def readable(cfg_path: str) -> Iterator[None]:
    """While entered, what the yaml libraries complain about becomes a `LaunchError`."""
    try:
        yield
    except OmegaConfBaseException as error:
        place = f"{error.full_key}: " if error.full_key else ""
        raise LaunchError(f"{cfg_path}: {place}{str(error).splitlines()[0]}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{cfg_path}: not a readable yaml file: {_one_line(error)}") from error


def _read_options(options: Sequence[str]) -> DictConfig:
    pairs = _dot_list(options)
    try:
        return OmegaConf.from_dotlist(pairs)
    except yaml.YAMLError as error:
        raise LaunchError(f"--options {pairs}: not yaml: {_one_line(error)}") from error


def _dot_list(options: Sequence[str]) -> list[str]:
    """Both ways of LAVIS to write options, as "a.b=value".

    >>> _dot_list(["run.seed=1", "run.amp", "true"])
    ['run.seed=1', 'run.amp=true']
    """
    pairs, rest = [], iter(options)
    for option in rest:
        value = "" if "=" in option else next(rest, None)
        if value is None:
            raise LaunchError(f"--options: {option} has no value; write {option}=VALUE")
        pairs.append(option if "=" in option else f"{option}={value}")
    return pairs


def _check_sections(sections: DictConfig) -> None:
    for name in sorted(NEEDED_SECTIONS):
        if OmegaConf.is_missing(sections, name) or not isinstance(sections.get(name), DictConfig):
            raise LaunchError(f"section {name!r} is missing or not a mapping")
    unset = OmegaConf.missing_keys(sections)
    if unset:
        raise LaunchError(f"a value must be given for {', '.join(sorted(unset))}")
    if sections.run.get("task") == OWN_TASK:
        for name in set(sections) - SECTIONS:
            raise LaunchError(f"unknown section {name!r}; {suggestion(name, SECTIONS)}")


def _expected(sections: DictConfig) -> Expected | None:
    """The numbers to compare with; other tasks may use the word for something else."""
    section = sections.get("expected")
    if section is None or sections.run.task != OWN_TASK:
        return None
    try:
        return parse_expected(
            OmegaConf.to_object(section) if OmegaConf.is_config(section) else section
        )
    except ValueError as error:
        raise LaunchError(str(error)) from None


def _merged_with_defaults(sections: DictConfig) -> RunConfig:
    try:
        return RunConfig(sections, _expected(sections))
    except TypeError as error:  # OmegaConf's, without the place
        raise LaunchError(
            f"a list stands where the default yaml of the model or a dataset has a mapping, or the "
            f"other way round ({error})"
        ) from error


def _completed_run(run: Mapping[str, Any], *, evaluate: bool) -> dict[str, Any]:
    """The run section with defaults, checked."""
    complete = fill_defaults({**run, "evaluate": True} if evaluate else run)
    _check_registered("run.task", complete.get("task"), registry.list_tasks())
    own = complete["task"] == OWN_TASK
    complete["runner"] = complete.get("runner") or (OWN_RUNNER if own else "runner_base")
    _check_registered("run.runner", complete["runner"], registry.list_runners())
    _check_registered("run.lr_sched", complete["lr_sched"], registry.list_lr_schedulers())
    if own:  # LAVIS takes a null for a value
        complete = {name: value for name, value in complete.items() if value is not None}
    if complete["evaluate"]:
        complete["max_epoch"] = complete.get("max_epoch") or 1
    if complete["device"] == "auto":
        complete["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return complete


def _check_model(model: DictConfig) -> None:
    _check_registered("model.arch", model.get("arch"), registry.list_models())
    types = getattr(registry.get_model_class(model.arch), "PRETRAINED_MODEL_CONFIG_DICT", None)
    if types is None:  # a plugin that finds its yaml in its own way
        return
    if model.get("model_type") is None and "default" in types:
        model.model_type = "default"
    _check_registered("model.model_type", model.get("model_type"), types)


def _checked_datasets(datasets: DictConfig) -> DictConfig:
    """The datasets section, `name: null` meaning "all defaults"."""
    if not datasets:
        raise LaunchError(f"datasets: none is named; known are {registry.list_datasets()}")
    for name in datasets:
        _check_registered("datasets", name, registry.list_datasets())
        if datasets[name] is None:
            datasets[name] = {}
        if not isinstance(datasets[name], DictConfig):
            raise LaunchError(f"datasets.{name}: expected a mapping, got {datasets[name]!r}")
        types = getattr(registry.get_builder_class(name), "DATASET_CONFIG_DICT", None)
        if types is not None:
            _check_registered(f"datasets.{name}.type", datasets[name].get("type", "default"), types)
    return datasets


def _check_processors(datasets: Mapping[str, Any]) -> None:
    for name, dataset in datasets.items():
        for kind in ("vis_processor", "text_processor"):
            phases = dataset.get(kind) or {}
            if not isinstance(phases, Mapping):
                raise LaunchError(f"datasets.{name}.{kind}: expected a mapping, got {phases!r}")
            named = {phase: item for phase, item in phases.items() if item is not None}
            for phase, processor in named.items():
                place = f"datasets.{name}.{kind}.{phase}.name"
                wanted = processor.get("name") if isinstance(processor, Mapping) else processor
                _check_registered(place, wanted, registry.list_processors())


def _check_registered(place: str, name: Any, known: Iterable[str]) -> None:
    if name not in list(known):  # it may be a mapping
        what = "is missing" if name is None else f"does not know {name!r}"
        raise LaunchError(f"{place} {what}; {suggestion(str(name), known)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
