"""What a run has done so far, read from its log: a bar, and a line for each thing that is done."""

from __future__ import annotations

import re
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# As LAVIS's MetricLogger, our loop and our task write them.
_STEP = re.compile(r"(?P<what>Train: epoch \[(?P<epoch>\d+)\].*?|Evaluation) +\[ *(\d+)/(\d+)\]")
_EPOCH = re.compile(r"\[INFO\] Epoch (\d+): \{(.*)\}")
_LOSS = re.compile(r"'(loss\w*)': ([\d.]+)")
_SPLIT = re.compile(r"\[INFO\] (\w+), epoch \w+$")


class ProgressLines:
    """Prints progress; a context, in which a terminal shows a bar.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> ProgressLines:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, description=what, completed=done, total=total)

    def read(self, line: str, *, run: str = "", bar: bool = True) -> None:
        """Take in a line of a log.

        Args:
            line: of the log.
            run: printed before the names of its splits.
            bar: whether it moves the bar.
        """
        step, epoch, split = _STEP.search(line), _EPOCH.search(line), _SPLIT.search(line)
        if step and bar:
            number = step["epoch"]
            what = "answering" if number is None else f"training, epoch {number}"
            self.show(what, int(step[3]), int(step[4]))
        elif epoch:
            losses = ", ".join(f"{name} {float(value):.2f}" for name, value in _LOSS.findall(line))
            self._console.print(f"  epoch {epoch[1]}: {losses}", highlight=False)
        elif split:
            self._console.print(f"  {run}{split[1]}: answered", highlight=False)
