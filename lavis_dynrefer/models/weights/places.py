"""Where the files of a model are: named, told once, downloaded before, or fetched now.

The word "auto" in a `model` section stands for a part's file: that of `dynrefer weights set`, else
the one that `dynrefer download` keeps, else it is fetched from the place in `model.published`.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlparse

from omegaconf import DictConfig, OmegaConf

from lavis_dynrefer.config import LAVIS_KEYS, MODELS, ModelFiles, PublishedPart
from lavis_dynrefer.errors import InputError, MissingFileError, choice_problem
from lavis_dynrefer.models.weights.fetching.kept_parts import (
    FetchOptions,
    Published,
    check_space,
    fetch,
    find_kept,
    free_space,
    gigabytes,
    is_local,
    needed,
    only_process,
    weights_folder,
)
from lavis_dynrefer.models.weights.fetching.part_registry import registered
from lavis_dynrefer.models.weights.fetching.transfer import (
    TransferError,
    download,
    offline_variable,
)
from lavis_dynrefer.models.weights.fetching.transfer_progress import show_progress
from lavis_dynrefer.paths import config_path, resource_path
from lavis_dynrefer.settings import from_mapping

AUTO = "auto"
CHECKPOINT = "dynrefer"
KEYS = {  # part -> its key below `model`
    "eva_vit": "pretrained.eva_vit",
    "blip2": "pretrained.blip2",
    "eva_clip_text": "pretrained.eva_clip_text",
    "flan_t5": "captioning.llm_options.pretrained",
    "tags": "tagging.vocabulary",
    CHECKPOINT: "finetuned",
}

logger = logging.getLogger(__name__)


class MissingPartsError(MissingFileError):
    """Files of a model that are not on this machine; the message lists all of them."""


class Found(NamedTuple):
    """What a `model` section asks for by "auto".

    Args:
        model_type: as one names it in commands; None: it has no name.
        published: part -> its place.
        here: part -> path.
        gone: part -> path that was told, but does not exist any more.
        absent: parts that are not here.
    """

    model_type: str | None
    published: Published
    here: dict[str, Path]
    gone: dict[str, Path]
    absent: tuple[str, ...]

    def fetchable(self) -> dict[str, PublishedPart]:
        """Of the absent parts those that can be downloaded, or are here for another program."""
        places = {name: self.published.get(name) for name in self.absent}
        offline = offline_variable()
        return {
            name: part
            for name, part in places.items()
            if part is not None and part.files and (not offline or is_local(part))
        }


def model_config(model: str) -> DictConfig:
    """The yaml of a model type, or of a file, which is laid over that of its `model.model_type`.

    Raises:
        InputError: no such type, or not the yaml of a model.
        MissingFileError: no such file.
    """
    yamls = MODELS["dynrefer"].yamls
    if Path(model).suffix not in (".yaml", ".yml"):
        problem = choice_problem("model", model, yamls)
        if problem is not None:
            raise InputError(problem)
        return cast(DictConfig, OmegaConf.load(config_path(yamls[model])))
    path = str(resource_path(model, key="model"))
    content = OmegaConf.load(path)
    section = content.get("model") if isinstance(content, DictConfig) else None
    if not isinstance(section, DictConfig):
        raise InputError(f"{path}: expected a yaml with a section `model`")
    return laid_over_its_type(content)


def laid_over_its_type(content: DictConfig) -> DictConfig:
    """The sections of a model's yaml, completed by those of its `model.model_type`."""
    family = MODELS.get(content.model.get("arch", "dynrefer"))
    kind = content.model.get("model_type")
    if family is None or kind not in family.yamls:
        return content
    return cast(
        DictConfig, OmegaConf.merge(OmegaConf.load(config_path(family.yamls[kind])), content)
    )


def model_section(model: str) -> dict[str, Any]:
    """The `model` section of `model_config`, as plain values."""
    section = OmegaConf.to_container(model_config(model).model, resolve=True)
    return cast("dict[str, Any]", section)


def files_of(section: Mapping[str, Any]) -> ModelFiles:
    """The keys about files of a `model` section.

    Raises:
        SettingsError: an invalid value.
    """
    given = {key: section[key] for key in LAVIS_KEYS if key in section}
    return from_mapping(ModelFiles, given, where="model")


def look_up(section: Mapping[str, Any]) -> Found:
    """Find the parts for which a `model` section says "auto"; nothing is fetched or written."""
    files = files_of(section)
    wanted = [name for name, key in KEYS.items() if _value(section, key) == AUTO]
    if not files.load_finetuned and CHECKPOINT in wanted:
        wanted.remove(CHECKPOINT)
    told = registered(files.model_type) if wanted else {}
    here, gone = {}, {}
    for name in wanted:
        if name in told:
            (here if told[name].exists() else gone)[name] = told[name]
            continue
        part = files.published.get(name)
        kept = find_kept(weights_folder(create=False), part) if part and part.files else None
        if kept is not None:
            here[name] = kept
    absent = tuple(name for name in wanted if name not in here)
    return Found(files.model_type, files.published, here, gone, absent)


def named_file(section: Mapping[str, Any], part: str) -> Any:
    """What a `model` section says of a part: a path, "auto", or None."""
    return _value(section, KEYS[part])


def checkpoint_of(section: Mapping[str, Any]) -> str | None:
    """The file that a model takes as its checkpoint by a variable or `dynrefer weights set`."""
    named = named_file(section, CHECKPOINT)
    if named != AUTO:
        return named if files_of(section).published else None  # else it comes with the package
    found = look_up(section).here.get(CHECKPOINT)
    return None if found is None else str(found)


def only_named(section: Mapping[str, Any], part: str, path: Path) -> dict[str, Any]:
    """The `model` section with a path for one part, and "auto" for all others."""
    changed = copy.deepcopy(dict(section))
    for name in KEYS:
        _set(changed, KEYS[name], str(path.absolute()) if name == part else AUTO)
    changed["load_finetuned"] = True
    return changed


def resolve_files(section: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` section with a path for every "auto".

    What is absent is fetched if all of it can be; of several processes one does.

    Args:
        section: the plain `model` section, merged with the yaml of its type.

    Raises:
        MissingPartsError: a part is not here and cannot be fetched; lists all of them.
        InputError: the disk has too little space for what would be fetched.
    """
    found = look_up(section)
    resolved = copy.deepcopy(dict(section))
    random = random_parts_of(section, found.absent)
    for name in random:
        _set(resolved, KEYS[name], None)
    if section.get("finetuned") == AUTO and CHECKPOINT not in {*found.here, *found.absent} - random:
        resolved.update(load_finetuned=False, finetuned=None)
    absent = [name for name in found.absent if name not in random]
    paths = dict(found.here)
    if absent:
        fetchable = found.fetchable()
        # A file of the user that is gone is not replaced by another one in silence.
        if found.gone or not set(absent) <= set(fetchable):
            raise MissingPartsError(describe_missing(found, absent))
        paths.update(fetch_parts({name: fetchable[name] for name in absent}))
    for name, path in paths.items():
        _set(resolved, KEYS[name], str(path))
    return resolved


def random_parts_of(section: Mapping[str, Any], absent: Iterable[str]) -> set[str]:
    """The absent parts that `random_parts` allows to be random; there is no random tokenizer."""
    if not section.get("random_parts"):
        return set()
    fixed = {"tags"}
    if not _value(section, "captioning.llm_options.tokenizer"):
        fixed.add("flan_t5")
    return set(absent) - fixed


def fetch_parts(
    parts: Published,
    folder: Path | None = None,
    options: FetchOptions = FetchOptions(),  # noqa: B008  immutable
) -> dict[str, Path]:
    """Fetch parts one after the other, with their progress on stderr.

    Args:
        parts: name -> its place.
        folder: where they are kept; None: in the cache.
        options: see there.

    Returns:
        Part -> the kept file or folder.

    Raises:
        InputError: the disk has too little space.
        TransferError, CheckpointError: see `kept_parts.fetch`.
    """
    folder = folder or weights_folder()
    absent = {name: part for name, part in parts.items() if find_kept(folder, part) is None}
    if absent:
        check_space(absent, folder, keep_original=options.keep_original)
        size = needed(absent, folder).transfer
        logger.warning("Downloading %s (%s) to %s", ", ".join(absent), gigabytes(size), folder)
    sizes = {item.name: item.bytes for part in parts.values() for item in part.files}
    with show_progress() as started:
        shown = options._replace(started=lambda name: started(name, sizes.get(name, 0)))
        return {name: _fetch(name, part, folder, shown) for name, part in parts.items()}


def _fetch(name: str, part: PublishedPart, folder: Path, options: FetchOptions) -> Path:
    try:
        return fetch(name, part, folder, options)
    except TransferError as error:
        raise TransferError(
            f"{name}: {error}; or name your own file by {part.variable} or model.{KEYS[name]}"
        ) from error


def describe_missing(found: Found, absent: Iterable[str]) -> str:
    """What is not here: each part with its size, its place and its names; then the commands."""
    absent, kind = tuple(absent), found.model_type
    lines = [f"{kind or 'this model'} needs files that are not on this machine:"]
    lines += [f"  {name}: {describe_part(found, name)}" for name in absent]
    public = {
        name: part
        for name, part in found.published.items()
        if name in absent and part.files and not is_local(part)
    }
    if public:
        folder = weights_folder(create=False)
        size, free = needed(public, folder).transfer, free_space(folder)
        offline = offline_variable()
        lines.append(
            f"`dynrefer download {kind}` fetches {', '.join(public)}: {gigabytes(size)} into "
            f"{folder}, with {gigabytes(free)} free"
            + (f"; not while {offline} is set" if offline else "")
        )
    if kind:
        lines.append(f"`dynrefer weights set PART FILE --model {kind}` remembers your own file")
    lines.append("`model.random_parts: true` gives these parts random weights, to try things out")
    return "\n".join(lines)


def describe_part(found: Found, name: str) -> str:
    """Where an absent part is, and the names under which to give one's own file."""
    part, text = found.published.get(name), ""
    if name in found.gone:
        text = f"{found.gone[name]} does not exist any more; "
    if part is not None and part.files:
        about = "about " if any(item.size is None for item in part.files) else ""
        size = about + gigabytes(sum(item.bytes for item in part.files))
        text += f"{size} at {part.at}/" + (part.files[0].name if len(part.files) == 1 else "")
    elif part is not None and part.page:
        text += f"it has no direct address, {part.page} links to it"
    else:
        text += "no place is known"
    variable = f"{part.variable} or " if part is not None else ""
    return f"{text}; name your own file by {variable}model.{KEYS[name]}"


def locate(name: str, *, key: str) -> Path:
    """A local file, or a download that is kept in the cache; of many processes, one downloads.

    Raises:
        MissingFileError: no such local file, or it cannot be downloaded; names the config key.
    """
    url = urlparse(name)
    if url.scheme not in ("http", "https"):
        return resource_path(name, key=key)
    origin = hashlib.sha256(name.encode()).hexdigest()[:12]  # many files are called model.pth
    path = weights_folder() / origin / Path(url.path).name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_process(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            logger.info("Downloading %s to %s", name, path)
            try:
                with show_progress() as started:
                    download(name, path, arrived=started(path.name, 0))
            except MissingFileError as error:
                raise MissingFileError(
                    f"{key}: {error}; download it elsewhere, and name the file"
                ) from error
    return path


def _value(section: Mapping[str, Any], key: str) -> Any:
    value: Any = section
    for step in key.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _set(section: dict[str, Any], key: str, value: Any) -> None:
    *steps, last = key.split(".")
    for step in steps:
        if not isinstance(section.get(step), dict):
            section[step] = {}
        section = section[step]
    section[last] = value
