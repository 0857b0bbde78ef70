"""The parts of a job: rows of a Parquet file, or a shard; each becomes one file of answers."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lavis_dynrefer.errors import InputError, MissingFileError

PARQUET = (".parquet", ".parq", ".pq")
SHARDS = (".tar", ".tar.gz", ".tgz")
_MOST_PARTS = 64  # of a group of rows: to reach the last, a reader passes over the others

# What damaged files raise.
FILE_ERRORS = (EOFError, OSError, pa.ArrowException, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class Part:
    """Rows that are answered together.

    Args:
        number: counts the parts of a job in the order of its rows.
        path: of the file.
        start: first row, of a Parquet file.
        stop: row after the last; None: all, of a shard.
        error: why the file cannot be read.
    """

    number: int
    path: str
    start: int = 0
    stop: int | None = None
    error: str | None = None

    @property
    def file_name(self) -> str:
        """Of its answers."""
        return f"part-{self.number:06}.parquet"

    @property
    def is_shard(self) -> bool:
        """Whether it is a shard of WebDataset."""
        return self.path.lower().endswith(SHARDS)


def find_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """A file, or the files in a folder and its subfolders with one of some suffixes, sorted.

    Folders and files that begin with "." or "_" are passed over, as by every reader of Parquet.

    Raises:
        MissingFileError: it does not exist.
        InputError: no such file in the folder.
    """
    if path.is_file():
        return [path.absolute()]
    if not path.is_dir():
        raise MissingFileError(f"no file or folder {path}")
    found = [
        file.absolute()
        for file in path.rglob("*")
        if file.name.lower().endswith(tuple(suffixes))
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not found:
        raise InputError(f"{path}: no {', '.join(suffixes)} files in this folder")
    return sorted(found)


def find_parts(files: Iterable[Path], rows: int) -> list[Part]:
    """The parts of some files: of Parquet about `rows` rows each, of WebDataset whole shards.

    A file that cannot be read is a part with an error.
    """
    parts: list[Part] = []
    for path in files:
        if path.name.lower().endswith(SHARDS):
            parts.append(Part(len(parts), str(path)))
            continue
        try:
            about = pq.read_metadata(path)
        except FILE_ERRORS as error:
            parts.append(Part(len(parts), str(path), error=f"{path}: {error}"))
            continue
        counts = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        bounds = _bounds(counts, rows)
        parts += [
            Part(number, str(path), start, stop)
            for number, (start, stop) in enumerate(bounds, len(parts))
        ]
    return parts


def read_rows(part: Part, size: int) -> Iterator[pa.RecordBatch]:
    """Rows of a part of a Parquet file, at most `size` at a time.

    Raises:
        FILE_ERRORS: the file is damaged, after the rows before the damage.
    """
    assert part.stop is not None
    with pq.ParquetFile(part.path) as file:
        first, groups = 0, []
        passed = 0  # rows of groups before the part
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + count <= part.start:
                passed += count
            elif first < part.stop:
                groups.append(group)
            first += count
        here = passed
        for batch in file.iter_batches(batch_size=size, row_groups=groups):
            start, stop = max(part.start - here, 0), min(part.stop - here, batch.num_rows)
            here += batch.num_rows
            if start < stop:
                yield batch.slice(start, stop - start)
            if here >= part.stop:
                return


def _bounds(counts: Sequence[int], rows: int) -> list[tuple[int, int]]:
    """Parts of groups of rows: large groups are cut, small neighbours are joined.

    >>> _bounds([5, 1, 1, 1], 2)
    [(0, 2), (2, 4), (4, 5), (5, 7), (7, 8)]
    """
    bounds: list[tuple[int, int]] = []
    first = start = 0
    for count in counts:
        end = first + count
        if count > rows and start < first:  # the small ones before it
            bounds.append((start, first))
            start = first
        step = max(rows, -(-count // _MOST_PARTS))
        while start < end and (end - start >= step or count > rows):
            bounds.append((start, min(start + step, end)))
            start = bounds[-1][1]
        first = end
    return [*bounds, (start, first)] if start < first else bounds


def fingerprint(files: Iterable[Path]) -> str:
    """Changes with the names, sizes and times of files."""
    rows = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return digest(rows)


def digest(value: Any) -> str:
    """A short checksum of plain values."""
    return hashlib.sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()[:16]
