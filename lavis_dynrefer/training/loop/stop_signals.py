"""Signals that ask a run to stop: Ctrl-C, and SIGTERM of a cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized

# Windows has no SIGTERM from outside, but Ctrl-Break.
NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")
_STDERR = 2
_AGAIN = "; a second signal ends it at once\n"


class TrainingStopped(SystemExit):
    """A signal stopped the run; an interpreter that this ends has the exit code of a shell.

    Args:
        signum: number of the signal.
        done: what has been saved.
    """

    def __init__(self, signum: int, done: str) -> None:
        super().__init__(128 + signum)
        self.text = (
            f"stopped by {signal.Signals(signum).name}; {done}; the same command with "
            "run.resume_ckpt_path=auto continues"
        )

    def __str__(self) -> str:
        return self.text


class StopSignals:
    """While `listening`, signals stop the run: at once, or after a step while `deferred`.

    Outside of the main thread Python delivers no signals, and nothing changes.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal that waits for the end of a step
        self._deferred = False
        self._before: dict[int, object] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals; the handlers before are back at the end, or after a first signal."""
        if threading.current_thread() is threading.main_thread():
            for name in NAMES:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            self._restore()

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

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: of another language, which Python cannot set
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        self._restore()
        if not self._deferred:
            raise TrainingStopped(signum, "everything up to the last epoch is saved")
        self.received = signum
        text = f"{signal.Signals(signum).name}: the step under way is finished and saved{_AGAIN}"
        os.write(_STDERR, text.encode())  # a handler must not use buffered files
