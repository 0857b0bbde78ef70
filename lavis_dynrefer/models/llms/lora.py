"""LoRA: small trainable matrices added to chosen linear layers of a frozen model."""

from __future__ import annotations

from collections.abc import Sequence

import transformers
from torch import nn

from lavis_dynrefer.errors import InputError, MissingPackageError
from lavis_dynrefer.models.llms.llm_options import LoraOptions

_MARK = "lora_"  # in the name of every weight that peft adds


def add_lora(model: nn.Module, options: LoraOptions, *, targets: Sequence[str]) -> nn.Module:
    """Wrap `model` so that its target layers carry LoRA; untrained, it changes no answer.

    The wrapper forwards calls and attributes to `model`. Weights are named as in the released code:
    `base_model.model.` before each, `base_layer` in an adapted layer. The added weights are float32
    regardless of the type of the model, because small steps vanish in bfloat16.

    Args:
        model: changed in place.
        options: see `LoraOptions`.
        targets: layers to adapt unless the options name others.

    Raises:
        ImportError: peft is missing or does not fit the installed transformers.
        InputError: no target, or one that matches no layer of the model.
    """
    chosen = targets if options.targets is None else options.targets
    _check_targets(model, chosen)
    try:
        from peft import LoraConfig, get_peft_model  # heavy, and rarely used
    except ImportError as error:
        raise MissingPackageError(
            "captioning.llm_options.lora needs peft; pip install 'lavis_dynrefer[lora]', or "
            f"'peft>=0.12,<0.14' below transformers 4.43 (found {transformers.__version__}): "
            f"{error}"
        ) from error
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(chosen),
    )
    return get_peft_model(model, config)


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Peft itself complains only if it finds none of the targets."""
    names = [name for name, _ in model.named_modules()]
    absent = [
        target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)
    ]
    if absent or not targets:
        parts = {name.rsplit(".", 1)[-1] for name in names}
        raise InputError(
            "captioning.llm_options.lora.targets: expected some of "
            f"{sorted(part for part in parts if part and not part.isdigit())}, "
            f"got {absent or list(targets)}"
        )


def lora_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The weights that `add_lora` added below `module`; empty without LoRA."""
    return [parameter for name, parameter in module.named_parameters() if _MARK in name]
