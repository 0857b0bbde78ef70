"""Weights into a model: the official names, and strict checks of names and shapes.

The released DynRefer stores only the tensors that it trained, under names of its own. The table
below is the complete translation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lavis_dynrefer.models.weights.lean_building import fill
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError

OFFICIAL_NAMES = (  # (official prefix, our prefix), first match wins
    ("visual_encoder.", "backbone.vit."),
    ("ln_vision.", "backbone.norm."),
    ("query_tokens", "qformer.query_tokens"),
    ("Qformer.bert.", "qformer.bert."),
    ("cvem_align.", "region_encoder.align."),
    ("cvem_mlp.", "region_encoder.fusion."),
    ("tag_head.encoder.layer.", "tagging.decoder.layers."),
    ("tag_vision_proj.", "tagging.decoder.vision_proj."),
    ("tag_text_proj.", "tagging.decoder.text_proj."),
    ("tag_fc.", "tagging.decoder.classifier."),
    ("attr_head.encoder.layer.", "contrast.decoder.layers."),
    ("attr_vision_proj.", "contrast.decoder.vision_proj."),
    ("attr_text_proj.", "contrast.decoder.text_proj."),
    ("attr_fc.", "contrast.decoder.classifier."),
    ("attr_t", "contrast.log_scale"),
    ("attr_b", "contrast.bias"),
    ("cem_memory", "captioning.prefix.control_embedding"),
    ("t5_proj.", "captioning.prefix.projection."),
    ("t5_model.", "captioning.llm.model."),
    ("text_encoder.", "text_encoder."),
)
OFFICIAL_DERIVED = (  # in official files, but computed at build time or never used
    "clip_embeds",
    "att_embeds",
    "ov_embeds",
    "text_encoder.logit_scale",
    "Qformer.bert.embeddings.position_ids",
)
_DERIVED = ("qformer.bert.embeddings.position_ids",)
CALIBRATION = "calibration."  # our own; the released code has none
_LORA = ".lora_"
_OFFICIAL_MARKS = ("cvem_mlp.0.weight", "cem_memory")

logger = logging.getLogger(__name__)


class LoadReport(NamedTuple):
    """Names of the tensors that a checkpoint filled, and of those that it lacks."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]


def is_official(names: Iterable[str]) -> bool:
    """Whether these are names of the released code."""
    return any(name in _OFFICIAL_MARKS for name in names)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the released code to ours, without derived tensors.

    Raises:
        CheckpointError: a name that the table lacks.
    """
    return _rename(
        {name: value for name, value in state.items() if name not in OFFICIAL_DERIVED},
        OFFICIAL_NAMES,
    )


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_official`, without a calibration."""
    table = [(ours, official) for official, ours in OFFICIAL_NAMES]
    kept = {
        name: value
        for name, value in state.items()
        if name not in _DERIVED and not name.startswith(CALIBRATION)
    }
    return _rename(kept, table)


def _rename(state: Mapping[str, Tensor], table: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, value in state.items():
        for old, new in table:
            if name == old or (old.endswith(".") and name.startswith(old)):
                renamed[new + name[len(old) :]] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"no translation for {len(unknown)} names: {sorted(unknown)[:10]}")
    return renamed


def _with_lora_names(state: Mapping[str, Tensor], model_names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a model without LoRA under the names they have in the same model with it."""
    wrapped = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): name
        for name in model_names
        if _LORA not in name
    }
    return {wrapped.get(name, name): value for name, value in state.items()}


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    may_miss: Sequence[str] = (),
    copy: bool = True,
) -> LoadReport:
    """Fill `model` with tensors after checking every name and shape; see `lean_building.fill`.

    The calibration of the file replaces that of the model. A file without one ends it: it belongs
    to other weights.

    Args:
        model: target.
        state: tensors under our names or the official ones.
        may_miss: names that the file may lack, e.g. of frozen parts; those that end with a dot,
            and the empty one, are prefixes. It may also lack all names but one of a tied tensor.
        copy: see `lean_building.fill`.

    Raises:
        CheckpointError: unexpected names, other names missing than `may_miss`, other shapes, or
            two tensors for one of the model.
    """
    if is_official(state):
        state = from_official(state)
    if hasattr(model, "calibration"):
        own = {name: value for name, value in state.items() if name.startswith(CALIBRATION)}
        places = (weight.device for weight in model.parameters() if not weight.is_meta)
        model.calibration.fill(
            {name[len(CALIBRATION) :]: value for name, value in own.items()},
            next(places, torch.device("cpu")),
        )
    target = model.state_dict(keep_vars=True)  # the same object under each name of a tied tensor
    state = _with_lora_names(state, target)
    unexpected = sorted(set(state) - set(target))
    given = {id(target[name]) for name in state if name in target}
    missing = sorted(
        name for name, value in target.items() if id(value) not in given and name not in _DERIVED
    )
    if not any(_LORA in name for name in state):  # LoRA may start untrained
        may_miss = [*may_miss, *(name for name in missing if _LORA in name)]
    prefixes = tuple(name for name in may_miss if not name or name.endswith("."))
    names = set(may_miss)
    forbidden = [name for name in missing if name not in names and not name.startswith(prefixes)]
    other = [
        f"{name}: file {_form(state[name])}, model {_form(target[name])}"
        for name in sorted(set(state) & set(target))
        if _form(state[name]) != _form(target[name])
    ]
    faults = {"unexpected": unexpected, "missing": forbidden, "of another shape": other}
    told = [f"{len(names)} {fault} {names[:5]}" for fault, names in faults.items() if names]
    if told:
        raise CheckpointError(
            f"checkpoint does not fit the model: {', '.join(told)}; is it of this model type?"
        )
    check_ties(target, state)
    fill(model, state, copy=copy)
    logger.info("Loaded %d tensors, %d stay unchanged", len(state), len(missing))
    return LoadReport(loaded=tuple(sorted(state)), missing=tuple(missing))


def check_ties(entries: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Check that tensors which are one in the model have the same values in the file.

    A library that ties layers whose weights differ would lose one of them without a word, as
    transformers 5 does with the output layer of Flan-T5.

    Args:
        entries: state dict of the model, the same object under each name of a tied tensor.
        state: of the file, under the same names.

    Raises:
        CheckpointError: they differ.
    """
    first: dict[int, str] = {}
    for name, value in state.items():
        known = first.setdefault(id(entries[name]), name) if name in entries else name
        if known != name and not same_values(state[known], value):
            raise CheckpointError(
                f"{known} and {name} are one tensor in the model and two in the file; is "
                "tie_word_embeddings right in its config?"
            )


def same_values(one: Tensor, other: Tensor | None) -> bool:
    """Whether two tensors are equal, whatever their formats; not if there is no other one."""
    if other is None or one.shape != other.shape:
        return False
    return one.data_ptr() == other.data_ptr() != 0 or torch.equal(one.float(), other.float())


def _form(tensor: Tensor) -> str:
    """Shape of a tensor; integers, as of quantised weights, are not taken for other numbers."""
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() else ' of integers'}"
