"""Signals that end a command as Ctrl-C does: what is done so far is kept, and no traceback."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from types import FrameType

from lavis_dynrefer.ending_signals import EXIT_SIGNAL, handling

EXIT_STOPPED = EXIT_SIGNAL + signal.SIGINT


class SignalStop(KeyboardInterrupt):
    """Another signal than Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = EXIT_SIGNAL + number


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped."""
    return stop.exit_code if isinstance(stop, SignalStop) else EXIT_STOPPED


def stop_on_signals() -> AbstractContextManager[object]:
    """While entered, raise `SignalStop` on signals; Ctrl-C raises KeyboardInterrupt anyway."""
    return handling(_stop, but="SIGINT")


def _stop(number: int, frame: FrameType | None) -> None:
    raise SignalStop(number)
