"""Commands in processes of their own, their output in files that are read while they grow."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lavis_dynrefer.cli.stopping import SignalStop

_PAUSE = 0.2  # seconds between two looks at the file
_GRACE = 10.0  # seconds that a command has to end by itself: a run saves its state


@dataclass(frozen=True)
class LoggedCommand:
    """What to run, and where its output goes.

    Args:
        command: the program and its arguments.
        log: gets standard output and standard error; an earlier file is replaced.
        watch: gets each line, without its end, soon after it has been written.
    """

    command: Sequence[str]
    log: Path
    watch: Callable[[str], None]


def run_logged(
    commands: Sequence[LoggedCommand], *, environment: Mapping[str, str]
) -> list[int | None]:
    """Run commands side by side to their ends; when one fails, the others are ended.

    When this process is stopped, the commands end first. Ctrl-C reaches all, since they share a
    terminal; other signals are passed on.

    Args:
        commands: what to run.
        environment: of all of them.

    Returns:
        The exit code of each command; None for one that was ended.

    Raises:
        OSError: a log cannot be written, or a program not be started.
    """
    with contextlib.ExitStack() as files:
        running: list[_Running] = []
        try:
            for one in commands:
                running.append(_Running(one, environment, files))
            while True:
                codes = [one.child.poll() for one in running]
                for one in running:
                    one.lines.pass_on(one.watch)
                if None not in codes or any(codes):
                    break
                time.sleep(_PAUSE)
        except BaseException as stop:
            _end(running, passed_on=not isinstance(stop, SignalStop))
            raise
        _end(running, passed_on=False)
    return codes


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of a log: from its last "error: " on, else the last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    # An error may have several lines, each with the word.
    first = max(len(lines) - count, 0)
    return lines[next((number for number in errors if number >= first), first) :]


class _Running:
    """A command that runs; `files` closes its log."""

    def __init__(
        self, job: LoggedCommand, environment: Mapping[str, str], files: contextlib.ExitStack
    ) -> None:
        written = files.enter_context(job.log.open("wb"))
        read = files.enter_context(job.log.open(encoding="utf-8", errors="replace"))
        self.watch = job.watch
        self.lines = _Lines(read)
        self.child = subprocess.Popen(
            job.command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )


class _Lines:
    """Lines of a file that another process writes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun = ""  # the end of a line is not there yet

    def pass_on(self, watch: Callable[[str], None]) -> None:
        *whole, self._begun = (self._begun + self._file.read()).split("\n")
        for line in whole:
            watch(line)


def _end(running: Sequence[_Running], *, passed_on: bool) -> None:
    """Wait for commands that have been asked to end; ask them, if not; make them, at last."""
    steps = [subprocess.Popen.terminate, subprocess.Popen.kill]
    if passed_on:
        steps.insert(0, lambda child: None)
    for step in steps:
        alive = [one.child for one in running if one.child.poll() is None]
        for child in alive:
            step(child)
        until = time.monotonic() + _GRACE
        try:
            for child in alive:
                child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # again: no more waiting
            for child in alive:
                child.kill()
        return
