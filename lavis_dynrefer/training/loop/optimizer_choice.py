"""The optimiser of a run."""

from __future__ import annotations

import torch
from torch import nn

from lavis_dynrefer.training.loop.muon import MATRICES, Muon
from lavis_dynrefer.training.run_settings import RunSettings

_OF_A_GROUP = ("params", "lr", "betas", "eps", "weight_decay")  # settings of AdamW


def choose_optimizer(
    plain: torch.optim.Optimizer, model: nn.Module, run: RunSettings
) -> torch.optim.Optimizer:
    """`run.optimizer` for the trained parameters of a model.

    Args:
        plain: LAVIS's AdamW.
        model: may be wrapped to train in a group.
        run: names the optimiser and has its numbers.

    Returns:
        AdamW with a step that is fused into few kernels, where torch has it for the device; or
        Muon.
    """
    if run.optimizer == "muon":
        return muon_of(model, run)
    groups = [{key: group[key] for key in _OF_A_GROUP} for group in plain.param_groups]
    try:
        return torch.optim.AdamW(groups, fused=True)
    except RuntimeError:
        return plain


def muon_of(model: nn.Module, run: RunSettings) -> Muon:
    """Muon for the trained parameters of a model, with the numbers of a run.

    Weights of linear layers are its matrices, except those of heads, modules whose name ends with
    "head": each of their rows is a class, and Muon would move rare classes as fast as others.
    """
    matrices = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.endswith("head")
    }
    trained = [item for item in model.parameters() if item.requires_grad]
    flat = [item for item in trained if id(item) not in matrices]
    decay = {"weight_decay": run.weight_decay}
    groups = [
        {"params": [item for item in trained if id(item) in matrices], MATRICES: True, **decay},
        {"params": [item for item in flat if item.ndim > 1], **decay},
        {"params": [item for item in flat if item.ndim < 2], "weight_decay": 0.0},
    ]
    return Muon(groups, lr=run.init_lr or 0.0, betas=(0.9, run.beta2))
