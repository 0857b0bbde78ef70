"""Where weights come from: the published files of the frozen parts, and DynRefer checkpoints.

The released code reads, in this order, EVA-CLIP-g's vision transformer, BLIP-2's Q-Former, Flan-T5
(by its adapter), EVA-CLIP's text tower and then its own checkpoint. A later file wins.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch
from filelock import FileLock
from torch import Tensor, nn

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.weights.checkpoint import (
    CheckpointError,
    LoadReport,
    load_weights,
    read_state_dict,
)
from lavis_dynrefer.paths import cache_dir, resource_path

logger = logging.getLogger(__name__)
State = dict[str, Tensor]


def eva_vit(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """EVA-CLIP-g's transformer (eva_vit_g.pth): the blocks the model has, without final norm."""
    own = model.state_dict()
    renamed = {f"backbone.vit.{name}": value for name, value in state.items()}
    # BLIP-2 leaves out the last block, the norm and the head.
    return {name: value for name, value in renamed.items() if name in own}


def blip2(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """BLIP-2's query tokens, Q-Former, vision norm and projection, without its text branch."""
    own = model.state_dict()
    table = {
        "query_tokens": "qformer.query_tokens",
        "Qformer.bert.": "qformer.bert.",
        "ln_vision.": "backbone.norm.",
        "t5_proj.": "captioning.prefix.projection.",
    }
    renamed = {
        new + name[len(old) :]: value
        for name, value in state.items()
        for old, new in table.items()
        if name.startswith(old)
    }
    return {name: value for name, value in renamed.items() if name in own}


def eva_clip_text(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """EVA-CLIP's text tower (eva_clip_psz14.pt)."""
    own = model.state_dict()
    renamed = {
        f"text_encoder.{name[len('text.') :]}": value
        for name, value in state.items()
        if name.startswith("text.")
    }
    return {name: value for name, value in renamed.items() if name in own}


def parts(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """Any parts of the model under our own names."""
    del model
    return dict(state)


# Kind of file -> translation, and what it must fill.
SOURCES: dict[str, tuple[Callable[[Mapping[str, Tensor], nn.Module], State], tuple[str, ...]]] = {
    "eva_vit": (eva_vit, ("backbone.vit.",)),
    "blip2": (blip2, ("qformer.", "backbone.norm.")),
    "eva_clip_text": (eva_clip_text, ("text_encoder.",)),
    "parts": (parts, ()),
}


def load_sources(model: nn.Module, files: Mapping[str, str | Sequence[str] | None]) -> set[str]:
    """Fill frozen parts from their files, in the order of `SOURCES`.

    Args:
        model: target.
        files: kind of file -> path or URL, or a list of them, of which a later one wins; None is
            skipped.

    Returns:
        Names of the tensors that were filled.

    Raises:
        ValueError: an unknown kind.
        FileNotFoundError: a file that is not there; names the config key.
        CheckpointError: a file that does not fill all it should, or does not fit.
    """
    unknown = sorted(set(files) - set(SOURCES))
    if unknown:
        raise InputError(f"model.pretrained: unknown {unknown}; expected some of {list(SOURCES)}")
    filled: set[str] = set()
    for kind, (translate, needed) in SOURCES.items():
        names = files.get(kind) or ()
        for name in [names] if isinstance(names, str) else names:
            path = locate(name, key=f"model.pretrained.{kind}")
            state = translate(read_state_dict(path), model)
            own = [key for key in model.state_dict() if not key.endswith("position_ids")]
            absent = [key for key in own if needed and key.startswith(needed) and key not in state]
            if absent or not state:
                raise CheckpointError(
                    f"model.pretrained.{kind}: {path} lacks {len(absent)} tensors of this model, "
                    f"{absent[:3]}; is it the file of this kind and size?"
                )
            filled.update(load_weights(model, state, may_miss=[""]).loaded)
    llm = getattr(getattr(model, "captioning", None), "llm", None)
    if getattr(llm, "pretrained", False):  # its adapter has loaded it
        filled.update(f"captioning.llm.{name}" for name, _ in llm.named_parameters())
    return filled


def unfilled_frozen_parts(model: nn.Module, filled: Iterable[str]) -> list[str]:
    """Parts that are frozen although their weights came from nowhere, by their module names."""
    known = set(filled)
    nowhere = {
        ".".join(name.split(".")[:2])
        for name, weight in model.named_parameters()
        if not weight.requires_grad and name not in known
    }
    return sorted(nowhere)


def load_trained(model: nn.Module, name: str, *, filled: set[str]) -> LoadReport:
    """Fill the model from a DynRefer checkpoint, which may lack its frozen parts.

    Args:
        model: target.
        name: path or URL of a full or partial checkpoint, in our names or the official ones.
        filled: tensors that came from elsewhere.

    Raises:
        FileNotFoundError: the file is not there.
        CheckpointError: it does not fit, or a frozen part comes from nowhere.
    """
    path = locate(name, key="model.finetuned")
    parameters = dict(model.named_parameters())
    frozen = [key for key, weight in parameters.items() if not weight.requires_grad]
    aliases = [key for key in model.state_dict() if key not in parameters]
    report = load_weights(model, read_state_dict(path), may_miss=[*frozen, *aliases])
    nowhere = [key for key in report.missing if key not in filled and key in frozen]
    if nowhere:
        parts_missing = sorted({key.split(".")[0] for key in nowhere})
        raise CheckpointError(
            f"{path} holds only what was trained; {parts_missing} ({len(nowhere)} tensors) come "
            f"from nowhere. Name their files in model.pretrained: {list(SOURCES)}"
        )
    return report


def locate(name: str, *, key: str) -> Path:
    """A local file, or a download that is kept in the cache; of many processes one downloads.

    Raises:
        FileNotFoundError: no such local file; names the config key.
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
