"""Answers a part of a job into a file of its own, at once or not at all."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lavis_dynrefer import __version__
from lavis_dynrefer.bulk.answer_columns import RowAnswer, answer_schema, answer_table
from lavis_dynrefer.bulk.bulk_predictor import BulkPredictor
from lavis_dynrefer.bulk.webdataset_rows import read_shard, webdataset_row
from lavis_dynrefer.bulk.work_parts import FILE_ERRORS, Part, read_rows
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import cannot_write
from lavis_dynrefer.paths import replace_file

UNFINISHED = ".unfinished-"  # begins the name of a file until it is complete; readers pass over it
_SHARD_COLUMNS = pa.schema([("id", pa.string()), ("shard", pa.string()), ("json", pa.string())])


@dataclass(frozen=True)
class PartAnswerer:
    """Answers parts; a callable for `map` of Ray Data, which may call it twice for one part.

    The file of a part appears when it is complete. So a part that is done again, because its node
    was lost, replaces nothing by something else, and a part that is there is not done again.

    Args:
        predictor: the model and the questions.
        folder: for the files; all nodes see it under this path.
        batch_size: rows in memory at once.
        columns: of the rows of the job, which the row of a file that cannot be read has as well.
        version: of this package where the job was begun.
    """

    predictor: BulkPredictor
    folder: str
    batch_size: int = 64
    columns: pa.Schema | None = None
    version: str = __version__

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one part.

        Args:
            row: the fields of a `Part`.

        Returns:
            Its number, how many rows it has, and the seconds that it took.

        Raises:
            InputError: this node has another version of the package, or cannot write.
        """
        if self.version != __version__:
            raise InputError(
                f"this node has lavis_dynrefer {__version__}, the job was begun by {self.version}; "
                "install the same on all nodes"
            )
        part = Part(**row)
        start = time.monotonic()
        target = Path(self.folder, part.file_name)
        if target.is_file():
            return {
                "number": part.number,
                "rows": pq.read_metadata(target).num_rows,
                "seconds": 0.0,
            }
        table = self.answer(part)
        _write(table, target)
        seconds = time.monotonic() - start
        return {"number": part.number, "rows": table.num_rows, "seconds": seconds}

    def answer(self, part: Part) -> pa.Table:
        """The answered rows of a part.

        Where the file is damaged, a last row has the error.
        """
        schema, error = self._schema(part)
        tables = []
        if error is None:
            try:
                for table in self._shard(part) if part.is_shard else self._parquet(part):
                    tables.append(table)
            except FILE_ERRORS as damage:
                done = part.start + sum(table.num_rows for table in tables)
                error = f"{part.path}: cannot be read from row {done:,} on: {damage}"
        if error is not None:
            answers = answer_table([RowAnswer(error=error, error_kind="file")])
            rows = [{"shard": part.path, **row} for row in answers.to_pylist()]
            tables.append(pa.Table.from_pylist(rows, schema=schema))
        return pa.concat_tables([table.cast(schema) for table in tables] or [schema.empty_table()])

    def _schema(self, part: Part) -> tuple[pa.Schema, str | None]:
        """The schema of the answered rows, and why there are none."""
        if part.is_shard:
            return _nullable(answer_schema(_SHARD_COLUMNS)), part.error
        error = part.error
        if error is None:
            try:
                return _nullable(self.predictor.schema(pq.read_schema(part.path))), None
            except (*FILE_ERRORS, InputError) as problem:  # the latter for a column that it lacks
                error = f"{part.path}: {problem}"
        if self.columns is None:
            return answer_schema(pa.schema([])), error
        return _nullable(self.predictor.schema(self.columns)), error

    def _parquet(self, part: Part) -> Iterator[pa.Table]:
        return map(self.predictor, read_rows(part, self.batch_size))

    def _shard(self, part: Part) -> Iterator[pa.Table]:
        damage: list[Exception] = []
        rows = _rows_before_damage(part.path, self.predictor.format, damage)
        while batch := list(islice(rows, self.batch_size)):
            answers = self.predictor.answer(
                [row["image"] for row in batch],
                self.predictor.boxes_of([row["boxes"] for row in batch]),
                masks=None if self.predictor.whole_image else [row["masks"] for row in batch],
            )
            given = [{"shard": part.path, **row} for row in batch]
            table = pa.Table.from_pylist(given, schema=_SHARD_COLUMNS)
            made = answer_table(answers)
            schema = answer_schema(_SHARD_COLUMNS)
            yield pa.table([*table.columns, *made.columns], schema=schema)
        if damage:
            raise damage[0]


def _rows_before_damage(
    path: str, format: str, damage: list[Exception]
) -> Iterator[dict[str, Any]]:
    """The rows of a shard; an error of the file goes to `damage`, so that no row waits for it."""
    try:
        for sample in read_shard(path):
            yield webdataset_row(sample, format=format)
    except FILE_ERRORS as error:
        damage.append(error)


def _nullable(schema: pa.Schema) -> pa.Schema:
    """The row of a damaged file has no values."""
    return pa.schema([field.with_nullable(True) for field in schema])


def _write(table: pa.Table, target: Path) -> None:
    unfinished = target.with_name(f"{UNFINISHED}{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        with open(unfinished, "wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        replace_file(unfinished, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
