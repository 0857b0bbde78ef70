"""Where weights come from: the published files of the frozen parts, and DynRefer checkpoints.

The order is that of the released code: EVA-CLIP-g's vision transformer, BLIP-2's Q-Former, Flan-T5
(by its adapter), EVA-CLIP's text tower, then a DynRefer checkpoint. A later file wins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import PretrainedFiles
from lavis_dynrefer.errors import MissingFileError
from lavis_dynrefer.models.weights.checkpoint import (
    LoadReport,
    from_official,
    is_official,
    load_weights,
)
from lavis_dynrefer.models.weights.conversion import RULES
from lavis_dynrefer.models.weights.places import locate
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError, read_state_dict
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
        renamed = self.all_renamed(state)
        known = set(model_names) if self.fills else renamed.keys()
        return {name: value for name, value in renamed.items() if name in known}

    def all_renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Under our names; some are of parts that the model does not have."""
        return {
            new + name[len(old) :]: value
            for name, value in state.items()
            for old, new in self.names.items()
            if name.startswith(old)
        }


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


OPTIONAL = ("scale_prior.",)  # prefixes of what a model answers without; no file need have it


def load_sources(model: nn.Module, files: Mapping[str, Any]) -> set[str]:
    """Fill frozen parts from their files, in the order of `SOURCES`.

    What has no values yet stays mapped, in the format of `conversion.RULES`.

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
            state = {name: _as_stored(item.name, name, value) for name, value in state.items()}
            try:
                report = load_weights(model, state, may_miss=[""], copy=False)
            except CheckpointError as error:
                raise CheckpointError(f"{key}: {path}: {error}") from error
            filled.update(report.loaded)
    llm = getattr(getattr(model, "captioning", None), "llm", None)
    if getattr(llm, "pretrained", False):  # its adapter has loaded it
        filled.update(f"captioning.llm.{name}" for name in llm.state_dict())
    return filled


def _as_stored(kind: str, name: str, value: Tensor) -> Tensor:
    """A tensor in the format in which the model stores it; where that is its own, still mapped."""
    if not value.is_floating_point():
        return value
    if kind == "eva_vit":
        return value.to(RULES[kind].dtype_of(name, value))
    return value.to(torch.float32)


def check_filled(
    model: nn.Module, filled: Iterable[str], *, random_parts: bool, from_scratch: bool
) -> None:
    """Refuse weights that no file has filled.

    Args:
        model: with `requires_grad` set.
        filled: names of the tensors that files filled.
        random_parts: random weights are wanted.
        from_scratch: a training starts: what is trained may be random.

    Raises:
        MissingFileError: names the parts without a file.
    """
    known = set(filled)
    unfilled = {
        name: weight
        for name, weight in model.named_parameters()
        if name not in known
        and ".lora_" not in name  # LoRA begins with a product of zero
        and not name.startswith(OPTIONAL)
    }
    refused = [
        name for name, weight in unfilled.items() if not (from_scratch and weight.requires_grad)
    ]
    if refused and not random_parts:
        raise MissingFileError(no_file_for(sorted(map(_part, refused))))
    if unfilled:
        parts = ", ".join(sorted(set(map(_part, unfilled))))
        logger.warning("These parts begin with random weights: %s", parts)


def no_file_for(parts: Iterable[str]) -> str:
    """The message about parts of the model that no file fills."""
    names = ", ".join(sorted(set(parts)))
    return (
        f"model: no file has the weights of {names}; name one in model.pretrained "
        f"({', '.join(SOURCES)}), or a DynRefer checkpoint as model.finetuned with "
        "model.load_finetuned: true; model.random_parts: true fills them at random"
    )


def _part(name: str) -> str:
    """backbone.vit.blocks.0.norm1.weight -> backbone.vit."""
    return ".".join(name.split(".")[:2])


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
        CheckpointError: a trained parameter is missing, a name is unknown, a shape differs, a
            number is not finite, or no file has a frozen part.
    """
    entries = model.state_dict(keep_vars=True)  # shows requires_grad under every name
    trained = {name for name, value in entries.items() if value.requires_grad}
    _warn_of_other_words(entries, weights, source)
    # By sums, in which nan and infinity survive and other numbers do not overflow: `isfinite` lacks
    # formats of 8 bits.
    spoilt = [
        name for name, value in weights.items() if not value.sum(dtype=torch.float64).isfinite()
    ]
    if spoilt:
        raise CheckpointError(f"{source}: nan or infinite numbers in {spoilt[:5]}")
    try:
        report = load_weights(
            model,
            weights,
            may_miss=[*OPTIONAL, *(name for name in entries if name not in trained)],
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
        and not name.startswith(OPTIONAL)
    ]
    if absent:
        parts = sorted({key.split(".")[0] for key in absent})
        raise CheckpointError(
            f"{source} holds only what was trained; {parts} ({len(absent)} tensors) have no file: "
            f"name one in model.pretrained: {list(SOURCES)}"
        )
    return report


def _warn_of_other_words(
    entries: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str
) -> None:
    """Official checkpoints hold the word embeddings of their frozen language model, too."""
    for name, value in weights.items():
        known = entries.get(name)
        if (
            name.startswith("captioning.llm.")
            and name.endswith("embed_tokens.weight")
            and known is not None
            and not (known.requires_grad or known.is_meta or known.shape != value.shape)
            and not torch.equal(known, value.to(known.device, known.dtype))
        ):
            logger.warning(
                "%s has other word embeddings than the language model, and these are used now; was "
                "it trained with this one?",
                source,
            )
            return


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
