"""Keeps a training step whose loss is not finite, and runs it again.

python -m lavis_dynrefer.training.loop.failed_step output/RUN/failed_step_rank0.pth
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lavis import tasks
from lavis.common.registry import registry
from lavis.datasets.data_utils import prepare_sample
from omegaconf import OmegaConf
from torch import Tensor, nn

from lavis_dynrefer.errors import EXIT_BAD_INPUT, InputError, text_for_user
from lavis_dynrefer.models.precision import autocast, choose_device
from lavis_dynrefer.models.weights.pretrained import fill_trained, trained_weights
from lavis_dynrefer.models.weights.tensor_reading import read_content
from lavis_dynrefer.training import checkpoints
from lavis_dynrefer.training.loaders import seed_step
from lavis_dynrefer.training.run_config import RunConfig

REPLAY = "python -m lavis_dynrefer.training.loop.failed_step"
_KEYS = ("model", "batch", "place", "config")


def keep_step(
    path: Path,
    *,
    model: nn.Module,
    batch: Mapping[str, Any],
    config: Mapping[str, Any],
    place: Mapping[str, int],
) -> None:
    """Write what a step came from.

    Args:
        path: of the file.
        model: with the weights before the step.
        batch: what the model was called with.
        config: of the run.
        place: arguments of `seed_step`.
    """
    checkpoints.write_checkpoint(
        path,
        {
            "model": trained_weights(model),
            "batch": _plain(batch),
            "place": dict(place),
            "config": dict(config),
        },
    )


def replay_step(path: str | Path, *, device: str | None = None) -> dict[str, float]:
    """Compute the losses of a kept step again.

    The region-text contrast sees the batch of its own process only.

    Args:
        path: file of `keep_step`.
        device: instead of the run's.

    Raises:
        InputError: not such a file, or its model cannot be built here.
    """
    content = read_content(path)
    if not isinstance(content, Mapping) or any(key not in content for key in _KEYS):
        raise InputError(f"{path} is not a kept step; expected failed_step_rank0.pth of a run")
    config = RunConfig(OmegaConf.create(content["config"]))
    registry.register("configuration", config)
    task = tasks.setup_task(config)
    model = task.build_model(config)
    fill_trained(model, content["model"], source=str(path))
    target = choose_device(device or config.run_cfg.device)
    model.to(target).train()
    samples = prepare_sample(content["batch"], cuda_enabled=target.type == "cuda")
    seed_step(**content["place"])
    dtype = task.settings.amp_dtype if task.settings.amp else "float32"
    with autocast(target, dtype):  # with gradients, as in training
        losses = model(samples)
    return {name: value.item() for name, value in losses.items()}


def _plain(value: Any) -> Any:
    """Containers, tensors on the CPU and numbers: what can be read without running code."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def main() -> int:
    """Replay the file that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(prog=REPLAY)
    parser.add_argument("file", help="failed_step_rank0.pth of a run")
    parser.add_argument("--device", help="cpu, cuda or cuda:1, instead of the run's")
    arguments = parser.parse_args()
    try:
        losses = replay_step(arguments.file, device=arguments.device)
    except Exception as error:
        text = text_for_user(error)
        if text is None:
            raise
        sys.stderr.write(f"error: {text}\n")
        return EXIT_BAD_INPUT
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in losses.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
