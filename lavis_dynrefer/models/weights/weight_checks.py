"""Looks into all files that a model section names before anything is built; reads headers only.

What is found is told in one error: which file, what it is, and what was expected.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from torch import Tensor

from lavis_dynrefer.config import LAVIS_KEYS, DynReferConfig, ModelFiles
from lavis_dynrefer.errors import DynReferError, InputError, MissingFileError
from lavis_dynrefer.models.weights.checkpoint import from_official, is_official
from lavis_dynrefer.models.weights.hugging_face_folder import is_hub_name, no_folder, shard_paths
from lavis_dynrefer.models.weights.places import AUTO, locate, resolve_files
from lavis_dynrefer.models.weights.pretrained import SOURCES, no_file_for
from lavis_dynrefer.models.weights.tensor_reading import open_tensors
from lavis_dynrefer.paths import find_resource, resource_path
from lavis_dynrefer.settings import from_mapping
from lavis_dynrefer.vocab import load_names

Tensors = Mapping[str, Tensor]
_LLM_KEY = "model.captioning.llm_options.pretrained"
_PROJECTION = "captioning.prefix.projection.weight"
_KINDS = {  # what a file is -> a pattern of one of its names; the first that fits
    "a DynRefer checkpoint": r"cem_memory|cvem_|region_encoder\.|captioning\.|tagging\.|contrast\.",
    "a BLIP-2 file": r"Qformer\.bert\.|query_tokens$",
    "an EVA-CLIP file": r"text\.(transformer|text_projection)",
    "a T5 model": r"encoder\.block\.0\.layer\.0\.SelfAttention\.q",
    "an EVA ViT file": r"blocks\.0\.attn\.",
}
_EXPECTED = {
    "eva_vit": "an EVA ViT file",
    "blip2": "a BLIP-2 file",
    "eva_clip_text": "an EVA-CLIP file",
    "finetuned": "a DynRefer checkpoint",
}
_PARTS = (  # prefixes of the model's names; each comes from some file
    *("backbone.vit", "backbone.norm", "qformer.query_tokens", "qformer.bert", "text_encoder"),
    *("region_encoder", "tagging", "contrast", "captioning.prefix", "captioning.llm"),
)

logger = logging.getLogger(__name__)


def checked_files(section: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` section with a path for every "auto", and only files that can be used.

    Raises:
        InputError, MissingFileError: see `check_files` and `places.resolve_files`.
    """
    check_files(section, fetch=False)  # before anything is downloaded
    resolved = resolve_files(section)
    if resolved != section:
        check_files(resolved)
    return resolved


def check_files(section: Mapping[str, Any], *, fetch: bool = True) -> None:
    """Check the files of weights that a `model` section names, and that each part has one.

    Args:
        section: plain; "auto" is passed over, see `places.resolve_files`.
        fetch: see `weight_problems`.

    Raises:
        InputError: lists every file that cannot be used.
        MissingFileError: the same, where all that is wrong is that there are no files.
    """
    problems = list(weight_problems(section, fetch=fetch))
    if problems:
        kind = MissingFileError if all(problem.absent for problem in problems) else InputError
        raise kind("\n".join(problem.text for problem in problems))


class WeightProblem(NamedTuple):
    """Something wrong with a file.

    Args:
        text: for the user.
        absent: there is no such file.
    """

    text: str
    absent: bool = False

    @classmethod
    def of(cls, error: DynReferError, key: str) -> WeightProblem:
        """From the error of a file that a key of the config names."""
        text = str(error)
        text = text if text.startswith(key) else f"{key}: {text}"
        return cls(text, absent=isinstance(error, MissingFileError))


def weight_problems(section: Mapping[str, Any], *, fetch: bool = True) -> Iterator[WeightProblem]:
    """What `check_files` finds, one by one.

    Args:
        section: see there; "auto" is passed over.
        fetch: whether files that are named by an address are downloaded; else they are passed over.
    """
    config, files = _read(section)
    options = config.captioning.llm_options
    known: set[str] = set()  # beginnings of our names for which there is a file
    widths: dict[str, int] = {}  # file -> width of the language model that it was trained with
    if files.load_finetuned and not files.finetuned:
        known.update(_usual_names("finetuned", config))
        yield WeightProblem(
            "model.finetuned: not set; name a checkpoint, or set model.load_finetuned: false to "
            "start a training"
        )
    for kind, key, name in _named(files):
        known.update(_usual_names(kind, config))
        if name == AUTO or (urlparse(name).scheme in ("http", "https") and not fetch):
            continue
        try:
            path = locate(name, key=key)
            tensors = open_tensors(path)
            problem = _misfit(kind, tensors, config)
            ours = _our_names(kind, tensors)
        except DynReferError as error:
            yield WeightProblem.of(error, key)
            continue
        if problem is not None:
            yield WeightProblem(f"{key}: {path} {problem}")
        known.update(ours)
        if _PROJECTION in ours:
            widths[f"{key}: {path}"] = len(ours[_PROJECTION])
        elif kind == "blip2" and not files.load_finetuned:
            logger.warning(
                "%s: %s is of the first stage of BLIP-2, without t5_proj; that begins with random "
                "weights",
                key,
                path,
            )
    if options.get("pretrained"):
        known.add("captioning.llm")
    yield from _llm_problems(options, widths)
    yield from _tag_problems(config.tagging.vocabulary)
    yield from _uncovered(config, files, known)


def _usual_names(kind: str, config: DynReferConfig) -> Iterable[str]:
    """Parts that a file of this kind fills, whatever else is in it."""
    if kind == "finetuned":
        return [part for part in _PARTS if _is_trained(part, config.trainable)]
    return SOURCES[kind].fills


def _read(section: Mapping[str, Any]) -> tuple[DynReferConfig, ModelFiles]:
    given = {key: section[key] for key in LAVIS_KEYS if key in section}
    numbers = {key: value for key, value in section.items() if key not in LAVIS_KEYS}
    config = from_mapping(DynReferConfig, numbers, where="model")
    return config, from_mapping(ModelFiles, given, where="model")


def _named(files: ModelFiles) -> Iterator[tuple[str, str, str]]:
    """Kind, config key and name of every file."""
    for item in fields(files.pretrained) if files.pretrained else ():
        for name in getattr(files.pretrained, item.name) or ():
            yield item.name, f"model.pretrained.{item.name}", name
    if files.load_finetuned and files.finetuned:
        yield "finetuned", "model.finetuned", str(files.finetuned)


def _our_names(kind: str, tensors: Tensors) -> dict[str, Tensor]:
    if kind != "finetuned":
        return SOURCES[kind].all_renamed(tensors)
    return from_official(tensors) if is_official(tensors) else dict(tensors)


def what_it_is(names: Iterable[str]) -> str:
    """The kind of a file by the names of its tensors."""
    names = list(names)
    for kind, pattern in _KINDS.items():
        if any(re.match(pattern, name) for name in names):
            return kind
    return f"a file with other tensors ({', '.join(sorted(names)[:3])})"


def _misfit(kind: str, tensors: Tensors, config: DynReferConfig) -> str | None:
    """Why a file is not the one that was expected; None if it may be."""
    if kind not in _EXPECTED:
        return None
    found = what_it_is(tensors)
    if found != _EXPECTED[kind]:
        return f"is {found}, expected {_EXPECTED[kind]}"
    for name, expected in _sizes(kind, config).items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape is None:
            return f"is {found}, but has no {name}; is it of this size, and whole?"
        if shape != expected:
            return f"is {found} of another size: its {name} is {shape}, expected {expected}"
    return None


def _sizes(kind: str, config: DynReferConfig) -> dict[str, tuple[int, ...]]:
    """Names in a file -> shapes that show its size."""
    vision, former, text = config.vision, config.qformer, config.text
    if kind == "eva_vit":
        return {
            "pos_embed": (1, vision.grid**2 + 1, vision.width),
            f"blocks.{vision.depth - 1}.norm1.weight": (vision.width,),
        }
    if kind == "blip2":
        return {
            "query_tokens": (1, former.num_queries, former.width),
            "ln_vision.weight": (vision.width,),
        }
    if kind == "eva_clip_text":
        return {
            "text.text_projection": (text.width, text.embed_dim),
            "text.positional_embedding": (text.context_length, text.width),
        }
    return {}


def _llm_problems(options: Mapping[str, Any], widths: Mapping[str, int]) -> Iterator[WeightProblem]:
    """Of the folder of the language model, and of files that were trained with another one."""
    name = options.get("pretrained")
    if name == AUTO:
        return
    if not name:
        width = (options.get("config") or {}).get("d_model")
        yield from _other_widths("that of this model", width, widths)
        return
    folder = find_resource(name)
    if folder is None:
        if not is_hub_name(name):
            yield WeightProblem(no_folder(name, _LLM_KEY), absent=True)
        return
    try:
        width = _width(folder)
        for path in shard_paths(folder):
            open_tensors(path)
    except DynReferError as error:
        yield WeightProblem.of(error, _LLM_KEY)
        return
    yield from _other_widths(f"{_LLM_KEY}: {folder}", width, widths)


def _tag_problems(name: str | None) -> Iterator[WeightProblem]:
    if name in (None, AUTO):  # without any, building says so
        return
    key = "model.tagging.vocabulary"
    try:
        load_names(resource_path(str(name), key=key))
    except DynReferError as error:
        yield WeightProblem.of(error, key)


def _width(folder: Path) -> int | None:
    """Width of a model of Hugging Face by its config.json.

    Raises:
        InputError: it is not there, or not readable.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of Hugging Face files, {folder} is a file")
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content.get("d_model", content.get("hidden_size"))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected the config.json of a model ({error})") from error


def _other_widths(
    place: str, width: int | None, widths: Mapping[str, int]
) -> Iterator[WeightProblem]:
    for file, wanted in widths.items():
        if width is not None and wanted != width:
            yield WeightProblem(
                f"{file} was trained with a language model of width {wanted}; {place} is of width "
                f"{width}"
            )


def _uncovered(
    config: DynReferConfig, files: ModelFiles, known: Iterable[str]
) -> Iterator[WeightProblem]:
    """Parts that no file fills although they may not be random; see `pretrained.check_filled`."""
    names = list(known)
    parts = [
        part
        for part in _PARTS
        if not any(name.startswith(part) or part.startswith(name) for name in names)
        and not (part == "region_encoder" and config.region.num_views == 1)  # it has no weights
        and not (not files.load_finetuned and _is_trained(part, config.trainable))
    ]
    if parts and not files.random_parts:
        yield WeightProblem(no_file_for(parts), absent=True)


def _is_trained(part: str, trainable: Iterable[str]) -> bool:
    return any(
        not name or f"{part}.".startswith(f"{name}.") or name.startswith(f"{part}.")
        for name in trainable
    )
