"""A folder of answers: which parts are there, and what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from lavis_dynrefer.bulk.part_answerer import UNFINISHED
from lavis_dynrefer.bulk.work_parts import FILE_ERRORS, Part

_SHOWN = 5  # errors of each kind


@dataclass
class AnswerCounts:
    """What a folder of answers holds.

    Args:
        rows: all of them.
        regions: answered.
        errors: kind -> number of rows.
        examples: kind -> the first errors.
    """

    rows: int = 0
    regions: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)


def parts_to_do(parts: Iterable[Part], folder: Path, *, retry_errors: bool) -> list[Part]:
    """The parts without a complete file; what a killed job left is removed.

    Args:
        parts: of the whole job.
        folder: of their files.
        retry_errors: also do parts again that have rows with errors; their files are removed.
    """
    clean(folder, only_unfinished=True)
    return [part for part in parts if not _is_done(folder / part.file_name, retry_errors)]


def clean(folder: Path, *, only_unfinished: bool = False) -> None:
    """Remove the files of a job."""
    for pattern in (f"{UNFINISHED}*", *(() if only_unfinished else ("part-*.parquet",))):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def count_answers(parts: Iterable[Part], folder: Path) -> AnswerCounts:
    """Count the rows, regions and errors in the files of the parts that are there."""
    counts = AnswerCounts()
    for part in parts:
        path = folder / part.file_name
        if not path.is_file():
            continue
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(
                columns=["error", "error_kind", "regions.list.element.caption_score"]
            ):
                counts.rows += batch.num_rows
                lengths = pc.sum(pc.list_value_length(batch.column("regions"))).as_py()
                counts.regions += lengths or 0
                for kind, text in zip(
                    batch.column("error_kind").to_pylist(), batch.column("error").to_pylist()
                ):
                    if kind is not None:
                        counts.errors[kind] += 1
                        examples = counts.examples.setdefault(kind, [])
                        if len(examples) < _SHOWN:
                            examples.append(text)
    return counts


def _is_done(path: Path, retry_errors: bool) -> bool:
    if not path.is_file():
        return False
    try:
        kinds = pq.read_table(path, columns=["error_kind"]).column(0)
    except FILE_ERRORS:  # of a disk that was full, or damaged since
        path.unlink()
        return False
    if retry_errors and kinds.null_count < len(kinds):
        path.unlink()
        return False
    return True
