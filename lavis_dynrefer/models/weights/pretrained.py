"""Where weights come from: the published files of the frozen parts, and DynRefer checkpoints.

The order is that of the released code: EVA-CLIP-g's vision transformer, BLIP-2's Q-Former, Flan-T5
(by its adapter), EVA-CLIP's text tower, then a DynRefer checkpoint. A later file wins.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from filelock import FileLock
from torch import Tensor, nn

from lavis_dynrefer.config import PretrainedFiles
from lavis_dynrefer.errors import MissingFileError
from lavis_dynrefer.models.weights.checkpoint import (
    CheckpointError,
    LoadReport,
    from_official,
    is_official,
    load_weights,
    read_state_dict,
)
from lavis_dynrefer.paths import cache_dir, resource_path
from lavis_dynrefer.settings import from_mapping

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """A published file.

    Args:
        names: prefixes in the file -> ours; other tensors are not used.
        fills: prefixes of our tensors that the file must fill; without any, all of it is used.
    """

    names: Mapping[str, str]
    fills: tuple[str, ...]

    def rename(self, state: Mapping[str, Tensor], model_names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of the file that the model has, under our names."""
        renamed = {
            new + name[len(old) :]: value
            for name, value in state.items()
            for old, new in self.names.items()
            if name.startswith(old)
        }
        known = set(model_names) if self.fills else renamed.keys()
        return {name: value for name, value in renamed.items() if name in known}


SOURCES = {
    # Like BLIP-2, the model has no last block, norm and head.
    "eva_vit": Source({"": "backbone.vit."}, ("backbone.vit.",)),
    "blip2": Source(  # without the text branch of the Q-Former
        {
            "query_tokens": "qformer.query_tokens",
            "Qformer.bert.": "qformer.bert.",
            "ln_vision.": "backbone.norm.",
            "t5_proj.": "captioning.prefix.projection.",
        },
        ("qformer.", "backbone.norm."),
    ),
    "eva_clip_text": Source({"text.": "text_encoder."}, ("text_encoder.",)),
    "parts": Source({"": ""}, ()),
}


def load_sources(model: nn.Module, files: Mapping[str, Any]) -> set[str]:
    """Fill frozen parts from their files, in the order of `SOURCES`.

    Args:
        model: target.
        files: see `PretrainedFiles`.

    Returns:
        Names of the tensors that were filled.

    Raises:
        InputError: an unknown kind of file.
        MissingFileError: a file that is not there; names the config key.
        CheckpointError: a file that does not fill all it should, or does not fit.
    """
    paths = from_mapping(PretrainedFiles, files, where="model.pretrained")
    names = [name for name in model.state_dict() if not name.endswith("position_ids")]
    filled: set[str] = set()
    for item in fields(paths):
        source, key = SOURCES[item.name], f"model.pretrained.{item.name}"
        for given in getattr(paths, item.name) or ():
            path = locate(given, key=key)
            state = source.rename(read_state_dict(path), names)
            absent = [name for name in names if name.startswith(source.fills) and name not in state]
            if absent or not state:
                raise CheckpointError(
                    f"{key}: {path} lacks {len(absent)} tensors of this model, {absent[:3]}; is it "
                    "the file of this kind and size?"
                )
            filled.update(load_weights(model, state, may_miss=[""]).loaded)
    llm = getattr(getattr(model, "captioning", None), "llm", None)
    if getattr(llm, "pretrained", False):  # its adapter has loaded it
        filled.update(f"captioning.llm.{name}" for name in llm.state_dict())
    return filled


def unfilled_frozen_parts(model: nn.Module, filled: Iterable[str]) -> list[str]:
    """Module names of the parts that are frozen although they have random weights."""
    known = set(filled)
    names = {
        ".".join(name.split(".")[:2])
        for name, weight in model.named_parameters()
        if not weight.requires_grad and name not in known
    }
    return sorted(names)


def read_trained(names: Iterable[str], *, key: str) -> dict[str, Tensor]:
    """The weights of several DynRefer checkpoints under our names; a later file wins.

    Args:
        names: paths or URLs of checkpoints of runs, state dicts, or files of the official release.
        key: config key that names them, for messages.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: a file is damaged or holds something else.
    """
    weights: dict[str, Tensor] = {}
    for name in names:
        state = read_state_dict(locate(name, key=key))
        weights.update(from_official(state) if is_official(state) else state)
    return weights


def fill_trained(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Fill a model from weights that may lack its frozen parts and buffers, and nothing else.

    Every checkpoint goes this way: `model.finetuned`, `run.load_ckpt_path`, resumed runs.

    Args:
        model: the bare model, not wrapped for distributed training. Its `filled`, if it has that,
            are names of the tensors that other files filled.
        weights: under our names.
        source: where they came from, for messages.

    Raises:
        CheckpointError: a trained parameter is missing, a name is unknown, a shape differs, or no
            file has a frozen part.
    """
    entries = model.state_dict(keep_vars=True)  # shows requires_grad under every name
    trained = {name for name, value in entries.items() if value.requires_grad}
    try:
        report = load_weights(
            model, weights, may_miss=[name for name in entries if name not in trained]
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    filled = getattr(model, "filled", None)
    if filled is None:
        return report
    known = {id(entries[name]) for name in filled if name in entries}
    absent = [
        name
        for name in report.missing
        if isinstance(entries[name], nn.Parameter)
        and name not in trained
        and id(entries[name]) not in known
    ]
    if absent:
        parts = sorted({key.split(".")[0] for key in absent})
        raise CheckpointError(
            f"{source} holds only what was trained; {parts} ({len(absent)} tensors) have no file: "
            f"name one in model.pretrained: {list(SOURCES)}"
        )
    return report


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """State dict of `model` without the frozen parameters that other files hold.

    Where the model knows which of its parameters came from files (`filled`), those; else all.
    """
    entries = model.state_dict(keep_vars=True)  # the same object under each name of a tied tensor
    filled = getattr(model, "filled", entries)
    known = {id(entries[name]) for name in filled if name in entries}
    return {
        name: value.detach()
        for name, value in entries.items()
        if not isinstance(value, nn.Parameter) or value.requires_grad or id(value) not in known
    }


def locate(name: str, *, key: str) -> Path:
    """A local file, or a download that is kept in the cache; of many processes, one downloads.

    Raises:
        MissingFileError: no such local file, or it cannot be downloaded; names the config key.
    """
    url = urlparse(name)
    if url.scheme not in ("http", "https"):
        return resource_path(name, key=key)
    origin = hashlib.sha256(name.encode()).hexdigest()[:12]  # many files are called model.pth
    path = cache_dir() / "weights" / origin / Path(url.path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            logger.info("Downloading %s to %s", name, path)
            try:
                torch.hub.download_url_to_file(name, str(path))
            except (OSError, HTTPException) as error:
                raise MissingFileError(
                    f"{key}: cannot download {name} ({error}); download it elsewhere, and name "
                    "the file"
                ) from error
    return path
