"""Shows how much of a download has arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def show_progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Bars on stderr where a person looks, else a line for each file.

    Yields:
        A function to call with the name of a file and its size in bytes, 0 if unknown; it returns
        one to call with each number of bytes that has arrived.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def start(name: str, size: int) -> Callable[[int], None]:
            if not console.is_terminal:
                console.print(f"{name}: {decimal(size)}" if size else name, highlight=False)
            task = progress.add_task(name, total=size or None)
            return lambda count: progress.advance(task, count)

        yield start
