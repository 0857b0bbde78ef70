"""Our own files of results: one json row per image, appended as images are answered."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, TextIO, TypeVar

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import ImageResult
from lavis_dynrefer.formats.json_stream import (
    as_json,
    cannot_write,
    dump_list,
    replacing,
)
from lavis_dynrefer.formats.reading.json_text import parse_json, parse_value
from lavis_dynrefer.formats.reading.records import Size, size_of
from lavis_dynrefer.formats.region_boxes import ImageBoxes, read_box_list
from lavis_dynrefer.formats.result_parts.result_rows import (
    from_row,
    is_old_row,
    own_fields,
    own_row,
    to_row,
)

_Row = TypeVar("_Row")

ROWS = "results.jsonl"


class ResultLog(Collection[ImageResult]):
    """A file of rows that survives an interruption at any time.

    An incomplete last row is dropped when the file is opened again. Of several rows of one image
    the last one counts. One log at a time may write to a file.

    Args:
        path: the file; created if it does not exist.

    Raises:
        InputError: a row is damaged or not ours; names its line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: dict[str, int] = {}  # image -> where its last row begins, in bytes
        self._end = 0  # of the file
        self._superseded = False
        path.touch()
        self._read()

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, result: object) -> bool:
        return isinstance(result, ImageResult) and self.get(result.image) == result

    def __iter__(self) -> Iterator[ImageResult]:
        return self._at(sorted(self._starts.values()))

    def get(self, image: str) -> ImageResult | None:
        """Get the result of an image by name, or None."""
        return next(self._at([self._starts[image]])) if image in self._starts else None

    def names(self) -> Iterable[str]:
        """Names of the images that have a result."""
        return self._starts.keys()

    def append(self, result: ImageResult) -> None:
        """Write one row; it is passed to the system when this returns, or not at all.

        Raises:
            ValueError: a number is not finite.
            InputError: the file cannot be written, or another program has changed it.
        """
        self.extend([result])

    def extend(self, results: Iterable[ImageResult]) -> None:
        """Write rows; as `append`, but the file is opened once."""
        try:
            with self.path.open("r+b", buffering=0) as file:
                for result in results:
                    row = _row_of(result)
                    self._write(file, row)
                    self._remember(result.image, self._end)
                    self._end += len(row)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def compact(self, order: Iterable[str] = ()) -> None:
        """Write the file anew, if needed: one row for each image, and none of an older version.

        Args:
            order: names of images; their rows come in this order, after all others.
        """
        last = {name: self._starts[name] for name in order if name in self._starts}
        first = (start for name, start in self._starts.items() if name not in last)
        starts = [*sorted(first), *last.values()]
        if self._superseded or starts != sorted(starts):
            with replacing(self.path) as file:
                write_jsonl(self._at(starts), file)
            self._read()

    def _write(self, file: io.FileIO, row: bytes) -> None:
        """Write the whole row or nothing."""
        start = file.seek(0, os.SEEK_END)
        if start != self._end:
            raise InputError(
                f"{self.path} was changed by another program during this run; "
                "run the same command again to continue"
            )
        try:
            rest = memoryview(row)
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(start)
            raise

    def _at(self, starts: Iterable[int]) -> Iterator[ImageResult]:
        with self.path.open("rb") as file:
            for start in starts:
                file.seek(start)
                yield from_row(parse_value(file.readline()))

    def _read(self) -> None:
        self._starts, self._superseded = {}, False
        start = 0
        with self.path.open("r+b") as file:
            for number, line in enumerate(file, start=1):
                is_whole = line.endswith(b"\n")
                if is_whole and not line.strip():
                    start += len(line)
                    continue
                try:
                    row = parse_value(line)
                    result = from_row(row)
                except InputError as error:
                    if is_whole:
                        raise InputError(
                            f"{self.path}: line {number}: {error}; remove this line, and the same "
                            "command answers its image again"
                        ) from error
                    file.truncate(start)
                    break
                self._remember(result.image, start)
                self._superseded |= is_old_row(row)
                start += len(line)
                if not is_whole:  # as some editors leave it
                    file.seek(start)
                    start += file.write(b"\n")
                    break
        self._end = start

    def _remember(self, image: str, start: int) -> None:
        self._superseded |= image in self._starts
        self._starts[image] = start


def _row_of(result: ImageResult) -> bytes:
    return (as_json(to_row(result)) + "\n").encode("utf-8", "backslashreplace")


def read_results(path: str | Path) -> list[ImageResult]:
    """Read a results.jsonl or results.json; an empty file has no results.

    Raises:
        InputError: the file is damaged or not ours; names the row.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = parse_json(text) if text.strip() else []
        return [_numbered(from_row, *row) for row in _rows(rows)]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected json, this is not text ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write_jsonl(results: Iterable[ImageResult], file: TextIO) -> None:
    """Write one line per image."""
    for result in results:
        file.write(as_json(to_row(result)) + "\n")


def write_json(results: Collection[ImageResult], file: TextIO) -> None:
    """Write one list of all rows."""
    dump_list(map(to_row, results), file)
    file.write("\n")


def read_own_boxes(rows: Any) -> tuple[dict[str, ImageBoxes], dict[int, str]]:
    """Boxes of our own rows; of several rows of one image the last one counts.

    Returns:
        Image name -> boxes, and id -> name of the categories that came from another file.

    Raises:
        InputError: a row is not ours; names it.
    """
    images = {}
    categories: dict[int, str] = {}
    for number, value in _rows(rows):
        row = _numbered(own_row, number, value)
        entry = read_box_list(row["regions"], row["image"])
        image_id = row.get("image_id")
        entry.image_id = image_id if type(image_id) is int else None
        entry.size = _numbered(_own_size, number, row)
        given = [_numbered(own_fields, number, region) for region in row["regions"]]
        entry.category_ids = [category.id if category else None for category, _ in given]
        entry.masks = [mask for _, mask in given]
        categories.update(category for category, _ in given if category)
        images[row["image"]] = entry
    return images, categories


def _own_size(row: Any) -> Size | None:
    """Width and height of the image of a row, in pixels."""
    return size_of(row.get("width"), row.get("height"))


def _rows(document: Any) -> Iterable[tuple[int, Any]]:
    return enumerate(document if isinstance(document, list) else [document], start=1)


def _numbered(read: Callable[[Any], _Row], number: int, row: Any) -> _Row:
    """Read a row; an error names its number."""
    try:
        return read(row)
    except InputError as error:
        raise InputError(f"row {number}: {error}") from error
