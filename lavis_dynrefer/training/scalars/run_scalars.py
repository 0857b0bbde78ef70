"""The numbers of a run on their way to its file and its loggers; the main process alone writes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from lavis_dynrefer.training.run_settings import RunSettings
from lavis_dynrefer.training.scalars.log_services import open_loggers
from lavis_dynrefer.training.scalars.scalar_file import ScalarFile, ScalarRow


class RunScalars:
    """Collects the numbers of each batch, and writes them where LAVIS's log has a line.

    Until `open` is called, it writes nothing; the main process alone calls it.
    """

    def __init__(self) -> None:
        self._sinks: list[Any] = []
        self._epoch_length = 0
        self._log_freq = 1
        self._scaler: Any = None
        self._optimizer: Any = None
        self.start_epoch()

    def open(
        self,
        folder: Path,
        config: Mapping[str, Any],
        settings: RunSettings,
        first_step: int,
        epoch_length: int,
        scaler: Any = None,
        optimizer: Any = None,
    ) -> None:
        """Begin to write.

        Args:
            folder: of the run.
            config: of the run.
            settings: its section `run`.
            first_step: batches trained on so far.
            epoch_length: in batches; 0 if nothing is trained.
            scaler: gradient scaler; its scale is logged, and how many steps it skipped.
            optimizer: what it scales for.

        Raises:
            DynReferError: see `open_loggers`.
        """
        self._epoch_length, self._log_freq = epoch_length, settings.log_freq
        self._scaler, self._optimizer = scaler, optimizer
        if epoch_length:
            self._sinks.append(ScalarFile(folder, first_step, config))
        self._sinks += open_loggers(settings.loggers, folder, first_step, config)

    def __enter__(self) -> RunScalars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sink in self._sinks:
            sink.close(failed=error is not None)
        self._sinks = []

    def start_epoch(self) -> None:
        """Forget the batches before: what passes between two epochs is no time of training."""
        self._norm: Tensor | None = None
        self._updates = 0  # optimiser steps that were tried since the last row
        self._steps_before = 0
        if self._sinks and self._scaler is not None:
            self._steps_before = self._optimizer_steps()
        self._start_row()

    def add_batch(
        self,
        epoch: int,
        step: int,
        values: Mapping[str, float],
        *,
        regions: int,
        updated: bool,
        norm: Tensor | None,
    ) -> None:
        """Numbers of a batch.

        Args:
            epoch: counted from 0.
            step: of the batch in its epoch, counted from 0.
            values: losses, and the learning rate as "lr".
            regions: of the batch, in all processes.
            updated: an optimiser step was tried.
            norm: of its gradients, if it is known.
        """
        if not self._sinks:
            return
        self._batches += 1
        self._regions += regions
        for name, value in values.items():
            self._sums[name] += value
        if updated:
            self._updates, self._norm = self._updates + 1, norm
        if step % self._log_freq and step + 1 != self._epoch_length:
            return
        scalars = {name: total / self._batches for name, total in self._sums.items()}
        scalars["lr"] = values["lr"]  # as it is now
        if self._norm is not None:
            scalars["grad_norm"] = float(self._norm)
        if self._scaler is not None:
            steps = self._optimizer_steps()
            scalars["scale"] = float(self._scaler.get_scale())
            scalars["skipped_steps"] = self._updates - (steps - self._steps_before)
            self._steps_before, self._updates = steps, 0
        scalars["regions_per_second"] = self._regions / max(time.monotonic() - self._since, 1e-9)
        if torch.cuda.is_available():
            scalars["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self._write(epoch * self._epoch_length + step + 1, epoch, scalars)
        self._start_row()

    def add_epoch(self, epoch: int, split: str, stats: Mapping[str, Any]) -> None:
        """Numbers of an epoch or an evaluation, under the names of the log.

        Args:
            epoch: counted from 0.
            split: name in the run.
            stats: numbers, perhaps as text; others are left out.
        """
        scalars = {}
        for name, value in stats.items():
            try:
                scalars[f"{split}_{name}"] = float(value)
            except (TypeError, ValueError):
                continue
        scalars.pop(f"{split}_epoch", None)
        self._write((epoch + 1) * self._epoch_length, epoch, scalars)

    def _write(self, step: int, epoch: int, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write(ScalarRow(step, epoch, scalars))

    def _start_row(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._batches = self._regions = 0
        self._since = time.monotonic()

    def _optimizer_steps(self) -> int:
        """Steps that the optimiser made; those that the scaler skipped are not among them."""
        states = list(self._optimizer.state.values())
        return int(states[0]["step"]) if states else 0
