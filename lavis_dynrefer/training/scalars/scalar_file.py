"""`scalars.jsonl` in the folder of a run: its numbers by step, which LAVIS's log does not keep.

A row is {"step": batches trained on so far, "epoch": ..., "scalars": {name: number}}; numbers that
are not finite are null. A run that continues in the same folder first writes {"resumed": step}:
earlier rows of later steps then count no more, because these steps are made again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCALARS = "scalars.jsonl"


@dataclass(frozen=True)
class ScalarRow:
    """Numbers of one moment.

    Args:
        step: batches trained on so far, over all epochs.
        epoch: counted from 0.
        scalars: by the names of LAVIS's log: "loss" of some batches, "train_loss" of an epoch.
    """

    step: int
    epoch: int
    scalars: Mapping[str, float]


class ScalarFile:
    """Appends rows; each is on its way to the disk when `write` returns.

    Args:
        folder: of the run.
        first_step: where the run begins; not 0 for one that continues.
        config: of the run; not kept, since the log has it.
    """

    def __init__(self, folder: Path, first_step: int, config: Mapping[str, Any]) -> None:
        del config
        self._file = (folder / SCALARS).open("a", encoding="utf-8")
        if first_step:
            self._add({"resumed": first_step})

    def write(self, row: ScalarRow) -> None:
        """Append a row."""
        scalars = {
            name: value if math.isfinite(value) else None for name, value in row.scalars.items()
        }
        self._add({"step": row.step, "epoch": row.epoch, "scalars": scalars})

    def close(self, *, failed: bool) -> None:
        """End the file."""
        del failed
        self._file.close()

    def _add(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def read_scalars(folder: Path) -> tuple[list[ScalarRow], int]:
    """Rows of a run by step; those that a continued run made again count once.

    Returns:
        The rows, none without a file, and the number of damaged lines; a last line that is cut off
        is not one.
    """
    path = folder / SCALARS
    if not path.is_file():
        return [], 0
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: list[ScalarRow] = []
    damaged = 0
    for line in lines:
        try:
            found = json.loads(line)
            if "resumed" in found:
                rows = [row for row in rows if row.step <= int(found["resumed"])]
                continue
            scalars = {
                name: math.nan if value is None else float(value)
                for name, value in found["scalars"].items()
            }
            rows.append(ScalarRow(int(found["step"]), int(found["epoch"]), scalars))
        except (ValueError, LookupError, TypeError, AttributeError):
            damaged += 1
    return rows, damaged
