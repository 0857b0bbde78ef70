"""What a run does between the steps of an epoch: save, stop, keep a step that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lavis  # noqa: F401  first, for threads
from lavis.common.dist_utils import get_rank, get_world_size
from torch import Tensor, nn

from lavis_dynrefer.training.checkpoints import CheckpointWriteError
from lavis_dynrefer.training.loop.epoch_loop import EpochWatch, Progress
from lavis_dynrefer.training.loop.failed_step import REPLAY, keep_step
from lavis_dynrefer.training.loop.stop_signals import StopSignals, TrainingStopped
from lavis_dynrefer.training.scalars.run_scalars import RunScalars


class RunWatch(EpochWatch):
    """Saves and stops between the steps of an epoch, and keeps a step whose loss is not finite.

    Args:
        epoch: the epoch that is watched.
        folder: of the run.
        save: writes a checkpoint; called by all processes.
        save_freq: batches between two checkpoints; 0 for none.
        signals: asked about after each step.
        scalars: told about each batch.
        model: the bare model.
        config: of the run.
        seed: of the run.
    """

    def __init__(
        self,
        epoch: int,
        folder: Path,
        save: Callable[[Progress], None],
        *,
        save_freq: int,
        signals: StopSignals,
        scalars: RunScalars,
        model: nn.Module,
        config: Mapping[str, Any],
        seed: int,
    ) -> None:
        self._epoch = epoch
        self._folder = folder
        self._save = save
        self._save_freq = save_freq
        self._signals = signals
        self._scalars = scalars
        self._model = model
        self._config = config
        self._seed = seed
        self._saved = 0  # batches at the last checkpoint

    def asked_to_stop(self) -> int:
        """See `EpochWatch`."""
        return self._signals.received

    def after_batch(
        self,
        step: int,
        values: Mapping[str, float],
        *,
        regions: int,
        updated: bool,
        norm: Tensor | None,
    ) -> None:
        """See `EpochWatch`."""
        everywhere = regions * get_world_size()
        self._scalars.add_batch(
            self._epoch, step, values, regions=everywhere, updated=updated, norm=norm
        )

    def after_step(self, progress: Progress, signum: int) -> None:
        """See `EpochWatch`.

        Raises:
            CheckpointWriteError: the checkpoint cannot be written.
            TrainingStopped: it has been written after a signal.
        """
        every, done = self._save_freq, progress.step
        due = every and done // every > self._saved // every
        if due or signum:
            self._saved = done
            self._save(progress)
        if signum:
            raise TrainingStopped(
                signum, f"epoch {self._epoch} is saved after {done} batches in {self._folder}"
            )

    def on_bad_loss(self, step: int, samples: Mapping[str, Any]) -> str:
        """See `EpochWatch`."""
        place = {"seed": self._seed, "epoch": self._epoch, "step": step, "rank": get_rank()}
        path = self._folder / f"failed_step_rank{get_rank()}.pth"
        try:
            keep_step(path, model=self._model, batch=samples, config=self._config, place=place)
        except CheckpointWriteError as error:
            return f"; the step is not kept: {error}"
        return f"; {REPLAY} {path} runs the step again"
