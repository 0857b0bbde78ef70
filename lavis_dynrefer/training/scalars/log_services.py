"""TensorBoard and wandb, by their own packages; `run.loggers` names them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lavis_dynrefer.errors import InputError, MissingPackageError
from lavis_dynrefer.training.scalars.scalar_file import ScalarRow

TENSORBOARD = "tensorboard"  # folder in that of the run
_PROJECT = "lavis_dynrefer"  # of wandb, without WANDB_PROJECT


def logger_problem(name: str) -> str | None:
    """What a logger of `run.loggers` lacks on this machine; None if nothing.

    >>> logger_problem("no-such-package")
    "run.loggers: no-such-package is not installed; pip install 'lavis_dynrefer[no-such-package]'"
    """
    if find_spec(name) is not None:
        return None
    return f"run.loggers: {name} is not installed; pip install 'lavis_dynrefer[{name}]'"


class TensorBoardLog:
    """Event files in the folder `tensorboard` of the run; arguments as of `ScalarFile`."""

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        torch_tensorboard = _imported("torch.utils.tensorboard", "tensorboard")
        # What an interrupted run wrote after its last checkpoint is made again.
        again = first_step + 1 if first_step else None
        self._writer = torch_tensorboard.SummaryWriter(
            str(folder / TENSORBOARD), purge_step=again, flush_secs=20
        )
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        indented = "\n".join(f"    {line}" for line in text.splitlines())
        self._writer.add_text("config", indented, first_step)

    def write(self, row: ScalarRow) -> None:
        """Write the numbers under their names."""
        for name, value in row.scalars.items():
            self._writer.add_scalar(name, value, row.step)

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        del failed
        self._writer.close()


class WandbLog:
    """A run of wandb, named as the folder; arguments as of `ScalarFile`.

    A run that continues in the same folder continues there, too. WANDB_MODE, WANDB_PROJECT and the
    other variables of wandb hold.
    """

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        self._wandb = wandb = _imported("wandb", "wandb")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=os.environ.get("WANDB_NAME", folder.name),
                id=os.environ.get("WANDB_RUN_ID", re.sub(r"[^\w-]", "-", folder.name)),
                resume="allow",
                dir=str(folder),
                config={**config, "first_step": first_step},
            )
        except wandb.errors.Error as error:
            raise InputError(
                f"run.loggers: wandb cannot begin ({error}); `wandb login`, or WANDB_MODE=offline "
                "to write files here that `wandb sync` sends later"
            ) from error
        # The axis of every chart. wandb's own step only grows, ours goes back after a crash.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, row: ScalarRow) -> None:
        """Log the numbers, with step and epoch."""
        self._run.log({"step": row.step, "epoch": row.epoch, **row.scalars})

    def close(self, *, failed: bool) -> None:
        """Finish the run, as failed if the training was."""
        self._run.finish(exit_code=int(failed))


LOGGERS = {"tensorboard": TensorBoardLog, "wandb": WandbLog}


def open_loggers(
    names: Sequence[str], folder: Path, first_step: int, config: Mapping[str, Any]
) -> list[Any]:
    """Begin these loggers.

    Raises:
        MissingPackageError: a package is not installed.
        InputError: wandb is neither logged in nor offline.
    """
    return [LOGGERS[name](folder, first_step, config) for name in names]


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        problem = logger_problem(package) or f"run.loggers: {package} cannot be imported ({error})"
        raise MissingPackageError(problem) from error
