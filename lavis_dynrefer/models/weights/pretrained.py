"""Where weights come from: the published files of the frozen parts, and DynRefer checkpoints.

The order is that of the released code: EVA-CLIP-g's vision transformer, BLIP-2's Q-Former, Flan-T5
(by its adapter), EVA-CLIP's text tower, then a DynRefer checkpoint. A later file wins.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from filelock import FileLock
from torch import Tensor, nn

from lavis_dynrefer.config import PretrainedFiles
from lavis_dynrefer.models.weights.checkpoint import (
    CheckpointError,
    LoadReport,
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


def load_trained(model: nn.Module, name: str, *, filled: set[str]) -> LoadReport:
    """Fill the model from a DynRefer checkpoint, which may lack its frozen parts.

    Args:
        model: target.
        name: path or URL of a whole or partial checkpoint, under our names or the official ones.
        filled: names of the tensors that other files filled.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it does not fit, or no file has a frozen part.
    """
    path = locate(name, key="model.finetuned")
    trained = {key for key, weight in model.named_parameters() if weight.requires_grad}
    frozen = {key for key, weight in model.named_parameters() if not weight.requires_grad}
    may_miss = [key for key in model.state_dict() if key not in trained]  # also tied names, buffers
    report = load_weights(model, read_state_dict(path), may_miss=may_miss)
    absent = [key for key in report.missing if key not in filled and key in frozen]
    if absent:
        parts = sorted({key.split(".")[0] for key in absent})
        raise CheckpointError(
            f"{path} holds only what was trained; {parts} ({len(absent)} tensors) have no file: "
            f"name one in model.pretrained: {list(SOURCES)}"
        )
    return report


def locate(name: str, *, key: str) -> Path:
    """A local file, or a download that is kept in the cache; of many processes, one downloads.

    Raises:
        MissingFileError: no such local file; names the config key.
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
            torch.hub.download_url_to_file(name, str(path))
    return path
