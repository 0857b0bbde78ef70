"""Signals that ask a program to end, handled for as long as a block runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Of users, of systems, of Ctrl-Break on Windows, of closed terminals; not every system has all.
NAMES = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
EXIT_SIGNAL = 128  # plus its number: exit code of a program that a signal ended, as in a shell


def ignore_terminal() -> None:
    """Ignore what a terminal sends to all of its processes: Ctrl-C, and that it is closed."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def handling(handler: Callable[[int, Any], Any], *, but: str = "") -> Iterator[Callable[[], None]]:
    """While entered, `handler` gets the signals of `NAMES`.

    A hangup that is ignored, as under nohup, stays so. Outside of the main thread, where Python
    delivers no signals, nothing changes.

    Args:
        handler: gets the number of a signal, and the frame that it interrupts.
        but: a signal that keeps its handler.

    Yields:
        A function that puts the handlers before back; it is also called at the end.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        known = [getattr(signal, name) for name in NAMES if hasattr(signal, name) and name != but]
        for one in known:
            if one.name != "SIGHUP" or signal.getsignal(one) != signal.SIG_IGN:
                before[one] = signal.signal(one, handler)

    def put_back() -> None:
        for one, former in before.items():
            if former is not None:  # None: not set by Python, which cannot set it again
                signal.signal(one, former)

    try:
        yield put_back
    finally:
        put_back()
