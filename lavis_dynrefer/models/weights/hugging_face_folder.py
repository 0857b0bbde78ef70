"""Folders of weights as Hugging Face publishes them: one file or shards with an index."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.models.weights.checkpoint import check_ties, load_weights
from lavis_dynrefer.models.weights.fetching.transfer import offline_variable
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError, open_tensors
from lavis_dynrefer.paths import find_resource

INDEX = ".index.json"  # end of the name of the file that says which shard has which tensor
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# What a folder is downloaded for, .bin only where there is nothing else.
_WANTED = ("*.json", "*.model", "*.txt", "*.safetensors")

logger = logging.getLogger(__name__)


def model_folder(source: str, *, key: str) -> Path:
    """The folder of a model: a path, or a name on the hub, whose files are fetched once.

    Raises:
        MissingFileError: there is no such folder; names the config key.
        InputError: the hub cannot be reached, or has no such model; or a folder of other files.
    """
    path = find_resource(source)
    if path is not None and path.is_dir():
        if not (path / "config.json").is_file():  # newer transformers would invent the sizes
            raise InputError(
                f"{key}: cannot load {source!r}: expected a folder of Hugging Face files, it has "
                "no config.json"
            )
        return path
    if path is not None:
        raise InputError(f"{key}: expected a folder of Hugging Face files, {source!r} is a file")
    if not is_hub_name(source):
        raise MissingFileError(no_folder(source, key))
    for patterns in (_WANTED, ("*.bin",)):
        path = hub_folder(source, patterns, key=key)
        if any(path.glob("model*.safetensors")):
            break
    return path


def hub_folder(source: str, patterns: Sequence[str], *, key: str) -> Path:
    """The folder of a name on the hub, with the files of these patterns, fetched once.

    Raises:
        InputError: the hub cannot be reached, or has no such model; names the config key.
    """
    # Imported here: rarely needed.
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                source,
                allow_patterns=list(patterns),
                local_files_only=offline_variable() is not None,
            )
        )
    except Exception as error:  # from 1.0 on also what its library of HTTP raises
        reason = " ".join(str(error).split())
        raise InputError(
            f"{key}: cannot load {source!r}: there is no such folder, and no such model on "
            f"huggingface.co, or it cannot be reached ({reason:.150})"
        ) from error


def no_folder(source: str, key: str) -> str:
    """The message about a folder that is not there."""
    return f"{key}: no folder {source!r}; a name on huggingface.co is OWNER/MODEL"


def is_hub_name(source: str) -> bool:
    """Whether something that is no path may be a name on the hub: OWNER/MODEL."""
    return _HUB_NAME.fullmatch(source) is not None


def shard_paths(folder: Path) -> list[Path]:
    """The files of weights of a folder, .safetensors before .bin.

    Raises:
        CheckpointError: there are none, or the index is not readable.
    """
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        if (folder / f"{stem}{suffix}").is_file():
            return [folder / f"{stem}{suffix}"]
        index = folder / f"{stem}{suffix}{INDEX}"
        if index.is_file():
            try:
                places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                return [folder / name for name in sorted(set(places.values()))]
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"{index}: expected which file has which tensor under 'weight_map' ({error})"
                ) from error
    found = sorted(path.name for path in folder.iterdir())[:5]
    raise CheckpointError(
        f"{folder}: expected model.safetensors or pytorch_model.bin, whole or in shards with their "
        f"index, found {found}"
    )


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder, see `open_tensors`.

    Raises:
        CheckpointError: a file is damaged.
        MissingFileError: a shard is not there.
    """
    tensors: dict[str, Tensor] = {}
    for path in shard_paths(folder):
        tensors.update(open_tensors(path))
    return tensors


def fill_from_folder(
    model: nn.Module,
    folder: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    *,
    key: str,
) -> None:
    """Fill a model of Hugging Face, built `without_values`, from its folder.

    Weights in the format `dtype` stay mapped; others are converted one by one.

    Args:
        model: target; nothing of it may be on another device than meta.
        folder: see `model_folder`.
        tensors: of the folder, see `read_folder`.
        dtype: in which it is stored.
        key: config key that names the folder, for messages.

    Raises:
        CheckpointError: the folder lacks tensors, or they have other shapes, or it has two for one
            of the model.
    """
    entries = model.state_dict(keep_vars=True)
    tensors = _under_names_of(entries, tensors, getattr(model, "base_model_prefix", ""))
    once = {id(entries[name]): name for name in tensors}  # of the names of a tied tensor one
    wanted = {
        name: tensors[name].to(dtype) if tensors[name].is_floating_point() else tensors[name]
        for name in once.values()
    }
    other = sum(tensors[name].nbytes for name in wanted if tensors[name].dtype != dtype)
    if other:
        logger.info("%s: %.1f GB are converted to %s, as at each start", folder, other / 1e9, dtype)
    buffers = [name for name, value in entries.items() if not isinstance(value, nn.Parameter)]
    model.requires_grad_(False)  # nothing is trained unless the caller says so later
    try:
        check_ties(entries, tensors)
        load_weights(model, wanted, may_miss=buffers, copy=False)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {folder} and its own config.json: {error}") from error


def _under_names_of(
    entries: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    """The tensors that a model has; some files lack the name of the model below the head."""
    named = {}
    for name, tensor in tensors.items():
        for known in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")):
            if known in entries:
                named[known] = tensor
                break
    return named
