"""Reads the yaml of a run and merges it with the defaults of the model and datasets it names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_dynrefer.config import MODELS
from lavis_dynrefer.errors import InputError, choice_problem, did_you_mean
from lavis_dynrefer.metrics.expected import Expected, parse_expected
from lavis_dynrefer.paths import config_path, expand_home, project_path
from lavis_dynrefer.training.known_names import dataset_class, name_problem, registered
from lavis_dynrefer.training.run_settings import OWN_TASK, RunSettings, TaskSettings

NEEDED_SECTIONS = ("run", "model", "datasets")
SECTIONS = (*NEEDED_SECTIONS, "expected")
_OWN_KEYS = {item.name for item in fields(TaskSettings)}

logger = logging.getLogger(__name__)


class LaunchError(InputError):
    """A run cannot start; the message has a line for each problem.

    Args:
        message: see above.
        warnings: what else was found and may be intended.
    """

    def __init__(self, message: str, warnings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.warnings = tuple(warnings)


class RunConfig:
    """The merged configuration of a run, as LAVIS's `Config` shows it to tasks and runners.

    Args:
        config: `run`, `model` and `datasets`, complete.
        expected: what the reports are compared with.
    """

    def __init__(self, config: DictConfig, expected: Expected | None = None) -> None:
        self.config = config
        self.run_cfg = config.run
        self.model_cfg = config.model
        self.datasets_cfg = config.datasets
        self.expected = expected

    def get_config(self) -> DictConfig:
        """All sections; plugins of LAVIS may call it on any config."""
        return self.config

    def to_dict(self) -> dict[str, Any]:
        """All sections as plain containers, interpolations as they are written."""
        return OmegaConf.to_container(self.config)

    def pretty_print(self) -> None:
        """Log all sections."""
        logger.info("configuration of the run\n%s", OmegaConf.to_yaml(self.config, resolve=True))


def load_run_config(
    cfg_path: str, options: Sequence[str] = (), *, evaluate: bool = False
) -> RunConfig:
    """Read and complete the configuration of a run; `checks.run_checks` checks it.

    LAVIS merges options last, so that `model.model_type` or `datasets.x.type` given as an option
    would change the label but not the default yaml that is loaded; here they come first.

    Args:
        cfg_path: yaml file, from the current folder; else one of those shipped in projects/.
        options: "a.b=value", or "a.b" followed by "value", as LAVIS takes them.
        evaluate: evaluate only; overrides `run.evaluate`.

    Raises:
        LaunchError: the file, a section or a name is wrong, so that nothing can be merged.
    """
    with readable(cfg_path):
        sections = read_sections(cfg_path, options)
        _check_sections(sections)
        run = OmegaConf.to_container(sections.run, resolve=True)
        run = complete_run({**run, "evaluate": True} if evaluate else run)
        config = _merge([{"run": run}, *_with_defaults(sections)], cfg_path)
        _take_checkpoint_of_run(config)
        name_tags(config)
        OmegaConf.to_container(config, resolve=True)  # raises where an interpolation fails
        return RunConfig(config, _expected(sections))


def find_run_file(cfg_path: str) -> Path:
    """A yaml as named from the current folder, else the shipped one of that name.

    Raises:
        LaunchError: neither exists.
    """
    given = expand_home(cfg_path)
    root = Path(project_path("."))
    parts = given.parts[1:] if given.parts[:1] == ("projects",) else given.parts
    for path in (given, root.joinpath(*parts)):
        if path.is_file():
            return path
    shipped = sorted(
        f"projects/{path.relative_to(root).as_posix()}" for path in root.rglob("*.yaml")
    )
    hint = did_you_mean(cfg_path, shipped) or f"; the shipped files are in {root / 'dynrefer'}"
    raise LaunchError(f"no file {cfg_path} in {Path.cwd()}{hint}")


def read_sections(cfg_path: str, options: Sequence[str] = ()) -> DictConfig:
    """The content of a yaml, options merged into it; arguments as in `load_run_config`."""
    path = find_run_file(cfg_path)
    content = OmegaConf.load(path)
    if not content or not isinstance(content, DictConfig):
        found = "a list" if content else "an empty file"
        raise LaunchError(f"{path}: expected the sections {list(NEEDED_SECTIONS)}, got {found}")
    merged = _merge([content, read_options(options)], f"--options {list(options)}")
    unset = OmegaConf.missing_keys(merged)
    if unset:
        raise LaunchError(f"a value must be given for {', '.join(sorted(unset))}")
    return merged


@contextmanager
def readable(cfg_path: str) -> Iterator[None]:
    """While entered, what is wrong with the file becomes a `LaunchError`."""
    try:
        yield
    except LaunchError:
        raise
    except InputError as error:
        raise LaunchError(str(error)) from error
    except OmegaConfBaseException as error:
        place = f"{error.full_key}: " if error.full_key else ""
        raise LaunchError(f"{cfg_path}: {place}{str(error).splitlines()[0]}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{cfg_path}: not a readable yaml file: {_one_line(error)}") from error


def complete_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """The run section with the default of every key that it leaves out or sets to null.

    Raises:
        LaunchError: an unknown task.
    """
    given = {name: value for name, value in run.items() if value is not None}
    _raise_if(name_problem("run.task", "task", given.get("task")))
    defaults = asdict(RunSettings(evaluate=True))
    defaults["evaluate"] = False
    if given["task"] != OWN_TASK:  # it may have other keys with the same names
        defaults = {name: value for name, value in defaults.items() if name not in _OWN_KEYS}
        defaults = {**run, **defaults, "runner": "runner_base"}  # LAVIS takes a null for a value
    complete = {**{name: value for name, value in defaults.items() if value is not None}, **given}
    return {"max_epoch": 1, **complete} if complete["evaluate"] else complete


def _with_defaults(sections: DictConfig) -> Iterator[DictConfig]:
    """Default yamls, each before the section that changes it; in the order in which LAVIS merges.

    Raises:
        LaunchError: an unknown model, dataset or type.
    """
    model = sections.model
    _raise_if(name_problem("model.arch", "model", model.get("arch")))
    family = MODELS.get(model.arch)
    model_class = None if family else registered("model", model.arch)
    types = family.yamls if family else getattr(model_class, "PRETRAINED_MODEL_CONFIG_DICT", None)
    if types is not None:  # else a plugin with another way to find its yaml
        if model.get("model_type") is None and "default" in types:
            model.model_type = "default"
        _raise_if(choice_problem("model.model_type", model.get("model_type"), types))
    kind = model.get("model_type")
    path = config_path(family.yamls[kind]) if family else model_class.default_config_path(kind)
    yield OmegaConf.load(path)
    yield OmegaConf.create({"model": model})
    for name, section in sections.datasets.items():
        _raise_if(name_problem("datasets", "dataset", name))
        section = {} if section is None else section  # all defaults
        if not isinstance(section, Mapping):
            raise LaunchError(f"datasets.{name}: expected a mapping, got {section!r}")
        kind, source = section.get("type", "default"), dataset_class(name)
        types = getattr(source, "DATASET_CONFIG_DICT", None)
        if types is not None:
            _raise_if(choice_problem(f"datasets.{name}.type", kind, types))
        yield OmegaConf.load(source.default_config_path(kind))
        yield OmegaConf.create({"datasets": {name: section}})


def _take_checkpoint_of_run(config: DictConfig) -> None:
    """Where a run names its checkpoint, the model needs no other one."""
    run, model = config.run, config.model
    names = [run.get("load_ckpt_path") or (), run.get("resume_ckpt_path") or ()]
    names = [name for given in names for name in ([given] if isinstance(given, str) else given)]
    named = [name for name in names if name != "auto"]  # which may find none
    if named and model.get("load_finetuned") and model.get("finetuned") == "auto":
        model.finetuned, model.load_finetuned = named[0], len(named) == 1


def name_tags(config: DictConfig, *, fetch: bool = False) -> None:
    """Replace the model's "auto" by the path of its tag list: the data take over what is there.

    Args:
        config: all sections; changed.
        fetch: download what the model lacks; otherwise a list that is not here stays "auto".

    Raises:
        DynReferError: see `weight_checks.checked_files`.
    """
    model = config.model
    if model.get("arch") not in MODELS or OmegaConf.select(model, "tagging.vocabulary") != "auto":
        return
    from lavis_dynrefer.models.weights import places, weight_checks  # import torch

    section = OmegaConf.to_container(model, resolve=True)
    if fetch:
        model.tagging.vocabulary = weight_checks.checked_files(section)["tagging"]["vocabulary"]
    elif "tags" in (here := places.look_up(section).here):
        model.tagging.vocabulary = str(here["tags"])


def _check_sections(sections: DictConfig) -> None:
    for name in NEEDED_SECTIONS:
        if not isinstance(sections.get(name), DictConfig):
            raise LaunchError(f"section {name!r} is missing or not a mapping")
    if sections.run.get("task") == OWN_TASK:
        for name in sections:
            _raise_if(choice_problem("section", name, SECTIONS))
    if not sections.datasets:
        raise LaunchError("datasets: name at least one")


def _expected(sections: DictConfig) -> Expected | None:
    """The numbers to compare with; other tasks may use the word for something else."""
    section = sections.get("expected")
    if sections.run.task != OWN_TASK:
        return None
    return parse_expected(OmegaConf.to_object(section) if OmegaConf.is_config(section) else section)


def _merge(parts: Sequence[Any], place: str) -> DictConfig:
    try:
        return OmegaConf.merge(*parts)
    except TypeError as error:  # OmegaConf's, without the place
        reason = str(error).partition("\n")[0]
        raise LaunchError(f"{place}: cannot merge a list with a mapping ({reason})") from error


def _raise_if(problem: str | None) -> None:
    if problem is not None:
        raise LaunchError(problem)


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


def read_options(options: Sequence[str]) -> DictConfig:
    """The options of a command line as a config; see `load_run_config`."""
    pairs = _dot_list(options)
    try:
        return OmegaConf.from_dotlist(pairs)
    except (yaml.YAMLError, UnicodeError) as error:  # UnicodeError: bytes that are not UTF-8
        raise LaunchError(f"--options {pairs}: not yaml: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
