"""The checkpoints of a run: the last one, the best one, and one for each epoch if asked for.

As in LAVIS, the `epoch` of a checkpoint is the last finished one; `progress` says how far the next
has come.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lavis  # noqa: F401  first, for threads
import torch
from lavis.common.dist_utils import is_main_process
from torch import nn

from lavis_dynrefer.models.weights.pretrained import fill_trained, trained_weights
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError
from lavis_dynrefer.training.checkpoints import (
    BEST,
    LAST,
    PathLike,
    copy_checkpoint,
    load_optimizer,
    read_checkpoint,
    write_checkpoint,
)
from lavis_dynrefer.training.loop.epoch_loop import Progress, check_finite, sum_over_processes
from lavis_dynrefer.training.process_group import on_main_process

logger = logging.getLogger(__name__)


class Training(NamedTuple):
    """What is trained, and on what.

    Args:
        model: the bare model.
        optimizer: of the model.
        scaler: gradient scaler, or None.
        lr_scheduler: LAVIS's have no state, they depend on epoch and step alone.
        identity: see `loaders.identity`.
        settings: of the run that a continued one may change, such as its learning rate.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Any
    lr_scheduler: Any
    identity: Mapping[str, Any]
    settings: Mapping[str, Any]


class RunCheckpoints:
    """Writes and reads the checkpoints of a run; its methods are called by all processes.

    Args:
        folder: of the run.
        config: of the run; a part of each checkpoint.
        keep: keep the checkpoint of every epoch.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, keep: bool) -> None:
        self.best_metric = -math.inf
        self.best_epoch: int | None = None
        self.validated = True  # the last finished epoch
        self._folder = folder
        self._config = config
        self._keep = keep
        self._started = time.monotonic()
        self._seconds_before = 0.0  # of the runs that this one continues

    @property
    def seconds(self) -> float:
        """How long the run has taken, with those that it continues."""
        return time.monotonic() - self._started + self._seconds_before

    def time_taken(self) -> str:
        """How long the run has taken, for the log."""
        own = f"{time.monotonic() - self._started:.0f} s"
        return f"{own}, {self.seconds:.0f} s in all" if self._seconds_before else own

    def save(
        self,
        training: Training,
        epoch: int,
        *,
        progress: Progress | None = None,
        is_best: bool = False,
    ) -> None:
        """Write the checkpoints of an epoch.

        Args:
            training: to be saved.
            epoch: counted from 0.
            progress: how far it has come; None if it is finished.
            is_best: write the best checkpoint instead of the last one.

        Raises:
            NotFiniteError: trained weights are nan or infinite, and must not replace good ones.
            CheckpointWriteError: a full disk and the like.
        """
        model, optimizer, scaler, lr_scheduler, identity, settings = training
        check_finite(model)
        content = {
            "model": trained_weights(model),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "lr_scheduler": getattr(lr_scheduler, "state_dict", dict)(),
            "config": self._config,
            "epoch": epoch,
            "validated": self.validated,
            "identity": identity,
            "settings": settings,
            "best_metric": self.best_metric,
            "seconds": self.seconds,
        }
        scale_losses = getattr(model, "scale_losses", None)
        if scale_losses is not None:
            content["scale_losses"] = scale_losses.state_dict()
        paths = [self._folder / (BEST if is_best else LAST)]
        if progress is not None:
            totals = sum_over_processes(progress.totals, next(model.parameters()).device)
            content["epoch"] = epoch - 1
            content["progress"] = {"step": progress.step, "totals": totals}
        elif self._keep and self.validated and not is_best:
            paths.append(self._folder / f"checkpoint_{epoch}.pth")
        on_main_process(lambda: [write_checkpoint(path, content) for path in paths])
        place = f"batch {progress.step} of epoch" if progress else "epoch"
        logger.info("%s %d saved to %s", place, epoch, ", ".join(map(str, paths)))

    def resume(self, path: Path, training: Training) -> tuple[int, Progress]:
        """Restore what `save` wrote; returns the epoch to continue, and how far it has come.

        Raises:
            MissingFileError: there is no such file.
            CheckpointError: it is no checkpoint of a run, or of another model, optimiser or data.
        """
        model, optimizer, scaler, lr_scheduler, identity, settings = training
        content = read_checkpoint(path)
        _check_same_run(content, identity, settings, source=path)
        progress = _progress_in(content, source=path)
        fill_trained(model, content["model"], source=os.fspath(path))
        load_optimizer(optimizer, content["optimizer"], source=path)
        if scaler and content.get("scaler"):
            scaler.load_state_dict(content["scaler"])
        if content.get("lr_scheduler"):
            lr_scheduler.load_state_dict(content["lr_scheduler"])
        scale_losses = getattr(model, "scale_losses", None)
        if scale_losses is not None and content.get("scale_losses"):
            scale_losses.load_state_dict(content["scale_losses"], first=is_main_process())
        # Earlier versions said neither.
        self.validated = content.get("validated", True)
        self._seconds_before = content.get("seconds", 0.0)
        if not is_main_process():  # the sums are those of all processes
            progress.totals = dict.fromkeys(progress.totals, (0.0, 0))
        epoch = content["epoch"] + 1
        self._restore_best(path.with_name(BEST), before=epoch)
        return epoch, progress

    def has_best(self) -> bool:
        """Whether an epoch was the best so far."""
        return on_main_process((self._folder / BEST).is_file)

    def load_best(self, model: nn.Module) -> None:
        """Load the weights of the best epoch; without one the model keeps its own, and is named."""
        path = self._folder / BEST
        if self.has_best():
            fill_trained(model, read_checkpoint(path)["model"], source=str(path))
        else:
            logger.warning("no %s; the weights in memory are evaluated instead", path)

    def _restore_best(self, path: Path, *, before: int) -> None:
        """Take over the best epoch so far and its file, unless it is later than the resumed one."""

        def read() -> tuple[float, int] | None:
            best = read_checkpoint(path) if path.is_file() else {}
            known = "best_metric" in best and best["epoch"] < before
            return (best["best_metric"], best["epoch"]) if known else None

        best = on_main_process(read)
        if best is None:
            return
        self.best_metric, self.best_epoch = best
        if path.parent != self._folder:
            on_main_process(lambda: copy_checkpoint(path, self._folder))


def _progress_in(checkpoint: Mapping[str, Any], *, source: PathLike) -> Progress:
    kept = checkpoint.get("progress")
    if kept is None:  # of the end of an epoch
        return Progress()
    try:
        totals = {str(name): (float(total), int(n)) for name, (total, n) in kept["totals"].items()}
        return Progress(int(kept["step"]), totals)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{source}: its progress cannot be read ({error})") from error


def _check_same_run(
    checkpoint: Mapping[str, Any],
    identity: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    source: PathLike,
) -> None:
    """The rest of an epoch must be the same samples; any other change is only logged."""
    changed = _changes(checkpoint.get("identity"), identity)
    if changed and checkpoint.get("progress") is not None:
        raise CheckpointError(
            f"{source} was saved in the middle of an epoch, which continues only with the same "
            f"samples: {'; '.join(changed)}; set that back, resume from the end of an epoch "
            "(run.keep_checkpoints), or use the file as run.load_ckpt_path"
        )
    changed += _changes(checkpoint.get("settings"), settings)
    if changed:
        logger.warning("%s continues with changes: %s", source, "; ".join(changed))


def _changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    before = before or {}  # earlier versions kept none
    return [
        f"{name} was {before[name]!r} and is {value!r}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
