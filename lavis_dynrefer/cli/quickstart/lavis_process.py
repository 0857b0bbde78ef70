"""A command in a process of its own, its output in a file that is read while it grows."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from lavis_dynrefer.cli.stopping import SignalStop

_PAUSE = 0.2  # seconds between two looks at the file
_GRACE = 10.0  # seconds that a command has to end by itself: a run saves its state


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    watch: Callable[[str], None],
) -> int:
    """Run a command to its end; returns its exit code.

    When this process is stopped, the command ends first. Ctrl-C reaches both, since they share a
    terminal; other signals are passed on.

    Args:
        command: the program and its arguments.
        log: gets standard output and standard error; an earlier file is replaced.
        environment: of the command.
        watch: gets each line, without its end, soon after it has been written.

    Raises:
        OSError: the log cannot be written, or the program not be started.
    """
    with log.open("wb") as written, log.open(encoding="utf-8", errors="replace") as read:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        lines = _Lines(read)
        try:
            while child.poll() is None:
                lines.pass_on(watch)
                time.sleep(_PAUSE)
            lines.pass_on(watch)
        except BaseException as stop:
            _end(child, passed_on=not isinstance(stop, SignalStop))
            raise
    return child.returncode


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of a log: from its last "error: " on, else the last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    # An error may have several lines, each with the word.
    first = max(len(lines) - count, 0)
    return lines[next((number for number in errors if number >= first), first) :]


class _Lines:
    """Lines of a file that another process writes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun = ""  # the end of a line is not there yet

    def pass_on(self, watch: Callable[[str], None]) -> None:
        *whole, self._begun = (self._begun + self._file.read()).split("\n")
        for line in whole:
            watch(line)


def _end(child: subprocess.Popen[bytes], *, passed_on: bool) -> None:
    """Wait for a command that has been asked to end; ask it, if not; make it, at last."""
    steps = [child.terminate, child.kill]
    if passed_on:
        steps.insert(0, lambda: None)
    for step in steps:
        step()
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # again: no more waiting
            child.kill()
        return
