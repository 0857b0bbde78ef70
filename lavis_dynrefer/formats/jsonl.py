"""Our own files of results: one json row per image, appended as images are answered."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import ImageResult
from lavis_dynrefer.formats.json_stream import as_json, dump_list, replacing
from lavis_dynrefer.formats.region_boxes import ImageBoxes, read_box_list

ROWS = "results.jsonl"


class ResultLog(Collection[ImageResult]):
    """A file of rows that survives an interruption at any time.

    An incomplete last row is dropped when the file is opened again. Of several rows of one image
    the last one counts.

    Args:
        path: the file; created if it does not exist.

    Raises:
        InputError: a row is damaged or not ours; names its line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: dict[str, int] = {}  # image -> where its last row begins, in bytes
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

    def append(self, result: ImageResult) -> None:
        """Write one row; it is passed to the system when this returns.

        Raises:
            ValueError: a number is not finite.
        """
        row = (as_json(result.to_dict()) + "\n").encode("utf-8", "backslashreplace")
        with self.path.open("ab") as file:
            start = file.seek(0, 2)
            file.write(row)
        self._remember(result.image, start)

    def compact(self) -> None:
        """Remove the rows that later ones replaced."""
        if self._superseded:
            with replacing(self.path) as file:
                write_jsonl(self, file)
            self._read()

    def _at(self, starts: Iterable[int]) -> Iterator[ImageResult]:
        with self.path.open("rb") as file:
            for start in starts:
                file.seek(start)
                yield ImageResult.from_dict(_own_row(json.loads(file.readline())))

    def _read(self) -> None:
        self._starts, self._superseded = {}, False
        start = 0
        with self.path.open("r+b") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    file.truncate(start)
                    break
                try:
                    row = _own_row(_parsed(line))
                except InputError as error:
                    raise InputError(f"{self.path}: line {number}: {error}") from error
                self._remember(row["image"], start)
                start += len(line)

    def _remember(self, image: str, start: int) -> None:
        self._superseded |= image in self._starts
        self._starts[image] = start


def read_results(path: str | Path) -> list[ImageResult]:
    """Read a results.jsonl or results.json; an empty file has no results.

    Raises:
        InputError: the file is damaged or not ours; names the row.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        return [ImageResult.from_dict(row) for row in _own_rows(parse_json(text) if text else [])]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write_jsonl(results: Collection[ImageResult], file: TextIO) -> None:
    """Write one line per image."""
    for result in results:
        file.write(as_json(result.to_dict()) + "\n")


def write_json(results: Collection[ImageResult], file: TextIO) -> None:
    """Write one list of all rows."""
    dump_list((result.to_dict() for result in results), file)
    file.write("\n")


def read_own_boxes(rows: Any) -> dict[str, ImageBoxes]:
    """Boxes of our own rows; of several rows of one image the last one counts.

    Raises:
        InputError: a row is not ours; names it.
    """
    images = {}
    for row in _own_rows(rows):
        entry = read_box_list(row["regions"], row["image"])
        image_id = row.get("image_id")
        entry.image_id = image_id if type(image_id) is int else None
        images[row["image"]] = entry
    return images


def parse_json(text: str) -> Any:
    """Parse a json document, or json lines as a list; a single row of ours is a line.

    Raises:
        InputError: damaged json.
    """
    lines = text.rstrip().split("\n")  # other line ends may be part of a caption
    if len(lines) == 1 or not lines[0].rstrip().endswith("}"):
        lines = [text]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_parsed(line))
        except InputError as error:
            raise InputError(f"line {number}: {error}" if len(lines) > 1 else str(error)) from error
    is_single_row = isinstance(rows[0], dict) and "regions" in rows[0]
    return rows if len(rows) > 1 or is_single_row else rows[0]


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"damaged json: {error}") from error


def _own_rows(rows: Any) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        try:
            yield _own_row(row)
        except InputError as error:
            raise InputError(f"row {number}: {error}") from error


def _own_row(row: Any) -> Mapping[str, Any]:
    """Check a row; in older rows the image is called `picture`."""
    if isinstance(row, dict):
        if "image" not in row and "picture" in row:
            row["image"] = row.pop("picture")
        if isinstance(row.get("image"), str) and isinstance(row.get("regions"), list):
            return row
    shown = json.dumps(row)
    raise InputError(f"expected a row of dynrefer predict with image and regions, got {shown:.80}")
