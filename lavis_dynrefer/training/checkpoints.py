"""Checkpoint files of a run: written whole or not at all, read safely, checked key by key.

A file holds plain containers and tensors only, so `torch.load(weights_only=True)` reads it.
Frozen parameters come from the model's own sources and are left out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor, nn

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.models.weights.checkpoint import (
    UNREADABLE,
    CheckpointError,
    from_official,
    is_official,
    load_weights,
    read_state_dict,
)
from lavis_dynrefer.models.weights.pretrained import locate

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pth"
BEST = "checkpoint_best.pth"

PathLike = Union[str, "os.PathLike[str]"]


def find_resumed(wanted: str | None, root: PathLike) -> Path | None:
    """The checkpoint to resume from, if any.

    Args:
        wanted: a path; "auto" for the `checkpoint_last.pth` written last, anywhere under `root`,
            or none if there is none yet; None or empty to start afresh.
        root: folder of all runs.
    """
    if wanted != "auto":
        return Path(wanted).expanduser().absolute() if wanted else None
    files = Path(root).rglob(LAST)
    found = max(files, key=lambda path: path.stat().st_mtime, default=None)
    logger.info("run.resume_ckpt_path=auto: %s", found or f"nothing under {root}, starting afresh")
    return found


def write_checkpoint(path: PathLike, content: Mapping[str, Any]) -> None:
    """Write `content` so that a killed process leaves the old file or the new one, never half."""
    target = Path(path)
    partial = target.with_name(target.name + ".tmp")  # same folder: a rename there is atomic
    torch.save(dict(content), partial)
    os.replace(partial, target)


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a run's checkpoint onto the CPU without running any code stored in it.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, holds more than tensors and plain containers, or
            holds only weights.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"no checkpoint at {path}; check run.resume_ckpt_path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint (damaged, or not only tensors and plain "
            "containers); use another file"
        ) from error
    kinds = {"model": Mapping, "optimizer": Mapping, "epoch": int}
    content = content if isinstance(content, Mapping) else {}
    absent = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if absent:
        raise CheckpointError(
            f"{path} cannot be resumed, it lacks {absent}; give it as run.load_ckpt_path"
        )
    return content


def read_weights(paths: Iterable[PathLike]) -> dict[str, Tensor]:
    """Union of the weights of several files under our names, later files winning.

    Args:
        paths: checkpoints of runs, bare state dicts, or files of the official release; or URLs.
    """
    weights: dict[str, Tensor] = {}
    for path in paths:
        state = read_state_dict(locate(os.fspath(path), key="run.load_ckpt_path"))
        weights.update(from_official(state) if is_official(state) else state)
    return weights


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, source: PathLike
) -> None:
    """Continue with the optimiser state of a checkpoint.

    Args:
        optimizer: has the parameters of this run.
        state: what an optimiser of the same kind and parameters gave.
        source: where it came from, for messages.

    Raises:
        CheckpointError: another kind of optimiser, or other parameters.
    """
    try:
        for group in state["param_groups"]:
            absent = sorted(_numbers_of(optimizer) - set(group))
            if absent:
                raise InputError(f"by an optimiser without {absent}")
        optimizer.load_state_dict(dict(state))
        _check_shapes(optimizer)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source}: other parameters were trained, or in another way ({error}); "
            "give it as run.load_ckpt_path to take its weights only"
        ) from error


def _numbers_of(optimizer: torch.optim.Optimizer) -> set[str]:
    """What tells its kind; torch itself fills in the switches that older versions did not have."""
    return {
        name
        for name, value in optimizer.defaults.items()
        if value is not None and not isinstance(value, bool)
    }


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Refuse what torch loads and only a step would stumble over."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            for name, value in optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
                    shapes = f"{tuple(value.shape)}, not {tuple(weight.shape)}"
                    raise InputError(f"{name} of a parameter is {shapes}")


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """State dict of `model` without the frozen parameters that other files hold; buffers stay.

    A frozen parameter with random weights is in no other file: where the model says which of its
    parameters were filled, all others are kept.
    """
    filled = getattr(model, "filled", None)
    # keep_vars shows requires_grad, also under every name of a tied parameter
    entries = model.state_dict(keep_vars=True)
    return {
        name: value.detach()
        for name, value in entries.items()
        if value.requires_grad
        or not isinstance(value, nn.Parameter)
        or (filled is not None and name not in filled)
    }


def load_trained_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, source: PathLike
) -> None:
    """Load weights that may lack frozen parameters and buffers, and nothing else.

    Args:
        model: the bare model, not wrapped for distributed training.
        weights: state dict, e.g. of `trained_weights`.
        source: where the weights came from, for messages.

    Raises:
        CheckpointError: a trainable parameter is missing, a key is unknown, or a shape differs.
    """
    entries = model.state_dict(keep_vars=True)
    filled = getattr(model, "filled", None)
    optional = [
        name
        for name, value in entries.items()
        if not value.requires_grad
        and (filled is None or name in filled or not isinstance(value, nn.Parameter))
    ]
    try:
        load_weights(model, weights, may_miss=optional)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
