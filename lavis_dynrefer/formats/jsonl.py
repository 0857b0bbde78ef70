"""Our own files of results: one json row per image, appended as the answers come."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import ImageResult
from lavis_dynrefer.formats.json_stream import as_json, dump_list, replacing

ROWS = "results.jsonl"


class ResultLog(Collection[ImageResult]):
    """A file of rows that survives being cut off at any moment.

    A row that was not written to its end is dropped when the file is opened again. Of several rows
    of one image the last one counts.

    Args:
        path: the file; made if need be.

    Raises:
        ValueError: a row in the file is none of ours; names its line.
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
        with self.path.open("rb") as file:
            for start in sorted(self._starts.values()):
                file.seek(start)
                yield ImageResult.from_dict(json.loads(file.readline()))

    def get(self, image: str) -> ImageResult | None:
        """The result of the image of this name, if there is one."""
        if image not in self._starts:
            return None
        with self.path.open("rb") as file:
            file.seek(self._starts[image])
            return ImageResult.from_dict(json.loads(file.readline()))

    def append(self, result: ImageResult) -> None:
        """Write one row; it is in the hands of the system when this returns.

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

    def _read(self) -> None:
        self._starts, self._superseded = {}, False
        start = 0
        with self.path.open("r+b") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    file.truncate(start)
                    break
                self._remember(_parse(line, self.path, number)["image"], start)
                start += len(line)

    def _remember(self, image: str, start: int) -> None:
        self._superseded |= image in self._starts
        self._starts[image] = start


def read_results(path: str | Path) -> list[ImageResult]:
    """The results in one of our jsonl or json files; an empty one has none.

    Raises:
        ValueError: it holds something else; names the row.
    """
    text = Path(path).read_text(encoding="utf-8")
    if not text:  # no image could be answered
        return []
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        lines = text.rstrip("\n").split("\n")  # a caption may hold other ends of lines
        rows = [_parse(line, path, number) for number, line in enumerate(lines, start=1)]
    return [ImageResult.from_dict(row) for row in rows]


def write_jsonl(results: Collection[ImageResult], file: TextIO) -> None:
    """One row per image and line."""
    for result in results:
        file.write(as_json(result.to_dict()) + "\n")


def write_json(results: Collection[ImageResult], file: TextIO) -> None:
    """A list of all rows."""
    dump_list((result.to_dict() for result in results), file)
    file.write("\n")


def _parse(line: str | bytes, path: str | Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path} line {number} is damaged json: {error}") from error
    if not isinstance(row, dict) or not {"image", "regions"} <= set(row):
        raise InputError(
            f"{path} line {number}: expected a row with image and regions, as dynrefer predict "
            f"writes, got {line!r:.80}"
        )
    return row
