"""Signals that ask a run to stop: Ctrl-C, SIGTERM of a cluster, a closed terminal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lavis  # noqa: F401  first, for threads
import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized

from lavis_dynrefer.ending_signals import EXIT_SIGNAL, handling

# torchrun and timeout send a signal to a process that has got it with its group, too.
PATIENCE = 3.0  # seconds in which another signal is taken for the first one
_STDERR = 2


class TrainingStopped(SystemExit):
    """A signal stopped the run; an interpreter that this ends has the exit code of a shell.

    Args:
        signum: number of the signal.
        done: what has been saved.
    """

    def __init__(self, signum: int, done: str) -> None:
        super().__init__(EXIT_SIGNAL + signum)
        self.text = (
            f"stopped by {signal.Signals(signum).name}; {done}; the same command with "
            "run.resume_ckpt_path=auto continues"
        )

    def __str__(self) -> str:
        return self.text


class Repetitions:
    """Tells a second signal from a first one that comes several times.

    Args:
        patience: seconds in which it may.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._first: float | None = None

    @property
    def asked(self) -> bool:
        """Whether there was a signal before."""
        return self._first is not None

    def is_second(self) -> bool:
        """To be asked at each signal."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return now - self._first >= self._patience


class StopSignals:
    """While `listening`, signals stop the run: at once, or after a step while `deferred`.

    Outside of the main thread Python delivers no signals, and nothing changes.

    Args:
        patience: of `Repetitions`.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.received = 0  # number of the signal that waits for the end of a step
        self._deferred = False
        self._repetitions = Repetitions(patience)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals; the handlers before are back at the end, or at a second signal."""
        with handling(self._handle) as self._put_back:
            yield

    @contextmanager
    def deferred(self, yes: bool = True) -> Iterator[None]:
        """Only note signals in `received`, where the block looks; with False as without it."""
        self._deferred = yes
        try:
            yield
        finally:
            self._deferred = False

    def received_by_any(self, device: torch.device) -> int:
        """`received` of the process that has one; called by all processes."""
        if not is_dist_avail_and_initialized():
            return self.received
        highest = torch.tensor(self.received, device=device)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return int(highest)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        first = not self._repetitions.asked
        if self._repetitions.is_second():
            self._put_back()
            signal.raise_signal(signum)
        elif first and self._deferred:
            self.received = signum
            text = (
                f"{signal.Signals(signum).name}: the current step is being finished and saved; a "
                f"second signal after {PATIENCE:.0f} s ends it at once\n"
            )
            os.write(_STDERR, text.encode())  # a handler must not use buffered files
        elif first:
            raise TrainingStopped(signum, "everything up to the last epoch is saved")
