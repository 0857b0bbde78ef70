"""Reading `log.txt` of a run: LAVIS's, with the configuration and a line for each epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.training.run_settings import OWN_TASK

LOG = "log.txt"
_EPOCH = "_epoch"  # ends the name of the epoch in a line, after that of the split


def read_log(folder: Path) -> str:
    """The text of the log.

    Raises:
        InputError: the folder has none.
    """
    log = folder / LOG
    if not log.is_file():
        raise InputError(f"{folder} is not the folder of a run: it has no {LOG}")
    return log.read_text(encoding="utf-8", errors="replace")


def logged_config(text: str, *, where: Path) -> dict[str, Any]:
    """The configuration that a run logs at its start; the last one of a run resumed in place.

    Args:
        text: of the log.
        where: folder of the run, for messages.

    Raises:
        InputError: it is damaged, or of another task.
    """
    log = where / LOG
    try:
        content, _ = json.JSONDecoder().raw_decode(text, text.rfind("\n{\n") + 1)
    except ValueError as error:
        raise InputError(f"{log}: the configuration is damaged ({error})") from error
    run = content.get("run") if isinstance(content, dict) else None
    if not isinstance(run, dict) or run.get("task") != OWN_TASK or "datasets" not in content:
        raise InputError(f"{log}: not a run of the task {OWN_TASK}")
    return content


def logged_epochs(text: str) -> dict[str, list[dict[str, Any]]]:
    """The numbers of each epoch, by split.

    Returns:
        Split -> a row for each epoch or evaluation: "epoch", a number or a word such as "best", and
        the numbers by name. An epoch that was made again counts once.
    """
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for line in text.splitlines():
        if not line.startswith('{"'):
            continue
        try:
            row = json.loads(line)
        except ValueError:  # cut off
            continue
        split = _split_of(list(row))
        if split is not None and isinstance(row[split + _EPOCH], (int, str)):
            start = len(split) + 1
            numbers = {name[start:]: _number(value) for name, value in row.items()}
            epoch = row[split + _EPOCH]
            numbers = {name: value for name, value in numbers.items() if value is not None}
            found.setdefault(split, {})[epoch] = {**numbers, "epoch": epoch}
    return {split: list(rows.values()) for split, rows in found.items()}


def _split_of(names: Sequence[str]) -> str | None:
    """The split of a line: what all its names begin with.

    >>> _split_of(["val_epoch", "val_map", "val_best_epoch"])
    'val'
    """
    for name in names:
        split = name.removesuffix(_EPOCH)
        if split != name and all(other.startswith(f"{split}_") for other in names):
            return split
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else math.nan
