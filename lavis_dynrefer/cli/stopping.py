"""Signals that end a command as Ctrl-C does: what is done so far is kept, and no traceback."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = ("SIGTERM", "SIGHUP", "SIGBREAK")  # of systems, closed terminals, Ctrl-Break of Windows
_FROM_SIGNAL = 128  # exit codes of commands that a signal ended, as shells report them
EXIT_STOPPED = _FROM_SIGNAL + signal.SIGINT


class SignalStop(KeyboardInterrupt):
    """Another signal than Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = _FROM_SIGNAL + number


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that was stopped."""
    return stop.exit_code if isinstance(stop, SignalStop) else EXIT_STOPPED


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `SignalStop` on signals; one that is ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {
        number: signal.signal(number, _stop)
        for number in known
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SignalStop(number)
