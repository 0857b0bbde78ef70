"""Boxes in csv: a line of column names, then one box per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import RegionId

_IMAGE = ("image", "picture", "file_name", "filename", "image_path", "path")
_ID = ("id", "region", "region_id")
_FORMATS = {
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("x", "y", "w", "h"): "xywh",
    ("x", "y", "width", "height"): "xywh",
}


def read_table(text: str, path: Path) -> tuple[list[tuple[str, list[float], RegionId | None]], str]:
    """The boxes of a table, and their format.

    Args:
        text: the whole table; cells are parted by commas, semicolons or tabs.
        path: the file, for errors.

    Returns:
        (image, four numbers, id or None) per line, and "xyxy" or "xywh".

    Raises:
        ValueError: the first line does not name the columns, or a line is wrong; names it.
    """
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = {name.strip().lower(): name for name in rows.fieldnames or () if name}
        image, corners, region_id = _columns(columns, path)
        found = [
            (
                _cell(row, image, rows.line_num, path),
                _box(row, corners, rows.line_num, path),
                _id(row.get(region_id) if region_id else None),
            )
            for row in rows
        ]
    except csv.Error as error:
        raise InputError(f"{path} line {rows.reader.line_num}: {error}") from error
    return found, _FORMATS[tuple(column.strip().lower() for column in corners)]  # type: ignore[index]


def _columns(columns: Mapping[str, str], path: Path) -> tuple[str, Sequence[str], str | None]:
    """The columns of image, corners and id, as the file writes them."""
    image = next((columns[name] for name in _IMAGE if name in columns), None)
    corners = next((names for names in _FORMATS if set(names) <= set(columns)), None)
    if image is None or corners is None:
        raise InputError(
            f"{path}: expected json, or csv whose first line names the columns, such as "
            f"image,x1,y1,x2,y2 or image,x,y,w,h; got {', '.join(columns.values()):.120}"
        )
    region_id = next((columns[name] for name in _ID if name in columns), None)
    return image, [columns[name] for name in corners], region_id


def _cell(row: Mapping[str, str | None], column: str, line: int, path: Path) -> str:
    value = row[column]
    if not value:
        raise InputError(f"{path} line {line}: no {column}")
    return value


def _box(
    row: Mapping[str, str | None], corners: Sequence[str], line: int, path: Path
) -> list[float]:
    cells = [row[column] for column in corners]
    try:
        return [float(cell) for cell in cells]  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} line {line}: expected numbers in {', '.join(corners)}, got {cells}"
        ) from error


def _id(text: str | None) -> RegionId | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else text
