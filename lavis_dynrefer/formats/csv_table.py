"""CSV, for spreadsheets and data frames: a header, then one line per region."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import ImageResult, RegionId, top_category
from lavis_dynrefer.formats.region_boxes import ImageBoxes
from lavis_dynrefer.structures import RegionPrediction

_CORNERS = ("x1", "y1", "x2", "y2")
_PLACE = ("image", "path", "width", "height", "image_id", "region", *_CORNERS)
_ANSWERS = ("caption", "caption_score", "category", "tags", "tag_scores")

# Column names that are read.
_IMAGE = ("image", "picture", "file_name", "filename", "image_path", "path")
_ID = ("id", "region", "region_id")
_BOX_COLUMNS: dict[tuple[str, ...], str] = {
    _CORNERS: "xyxy",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("x", "y", "w", "h"): "xywh",
    ("x", "y", "width", "height"): "xywh",
}


def write_csv(results: Collection[ImageResult], file: TextIO) -> None:
    """Write the table; an image without regions has no line.

    Tags and their scores are lists separated by semicolons. Each attribute and category has a
    column of scores, "attribute:NAME" (in [0, 1]) and "category:NAME" (logits), and each task a
    column with the scales of its views.
    """
    attributes: set[str] = set()
    categories: set[str] = set()
    tasks: dict[str, None] = {}  # in order
    for region in (region for result in results for region in result.regions):
        attributes.update(name for name, _ in region.attributes)
        categories.update(name for name, _ in region.categories)
        tasks.update(dict.fromkeys(region.scales))
    columns = [
        *(*_PLACE, *_ANSWERS),
        *(f"attribute:{name}" for name in sorted(attributes)),
        *(f"category:{name}" for name in sorted(categories)),
        *(f"scales:{task}" for task in tasks),
    ]
    table = csv.DictWriter(file, columns, lineterminator="\n")
    table.writeheader()
    for result in results:
        for number, region in zip(result.ids, result.regions):
            table.writerow({**_place(result, number, region), **_answers(region)})


def read_csv_boxes(text: str) -> tuple[dict[str, ImageBoxes], str]:
    """Read the boxes of a table with a header; cells are separated by comma, semicolon or tab.

    Returns:
        Image name -> boxes, and their format, "xyxy" or "xywh".

    Raises:
        InputError: no header with known columns, or an invalid line; names it.
    """
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    images: dict[str, ImageBoxes] = {}
    try:
        columns = {name.strip().lower(): name for name in rows.fieldnames or () if name}
        image, corners, region_id = _columns(columns)
        for row in rows:
            if not row[image]:
                raise InputError(f"line {rows.line_num}: no {image}")
            entry = images.setdefault(row[image], ImageBoxes())
            entry.add(_box(row, corners, rows.line_num), _id(row[region_id] if region_id else None))
    except csv.Error as error:
        raise InputError(f"line {rows.reader.line_num}: {error}") from error
    return images, _BOX_COLUMNS[tuple(column.strip().lower() for column in corners)]


def _place(result: ImageResult, number: RegionId, region: RegionPrediction) -> dict[str, Any]:
    return {
        "image": result.image,
        "path": result.path,
        "width": result.width,
        "height": result.height,
        "image_id": result.image_id,
        "region": number,
        **dict(zip(_CORNERS, region.box)),
    }


def _answers(region: RegionPrediction) -> dict[str, Any]:
    return {
        "caption": region.caption,
        "caption_score": region.caption_score,
        "category": top_category(region)[0] if region.categories else None,
        "tags": _joined(name for name, _ in region.tags),
        "tag_scores": _joined(score for _, score in region.tags),
        **{f"attribute:{name}": score for name, score in region.attributes},
        **{f"category:{name}": score for name, score in region.categories},
        **{f"scales:{task}": _joined(scales) for task, scales in region.scales.items()},
    }


def _joined(values: Iterable[Any]) -> str:
    """Write several values into a cell, as csv, so that a value may contain a semicolon."""
    line = io.StringIO()
    csv.writer(line, delimiter=";", lineterminator="").writerow(values)
    return line.getvalue()


def _columns(columns: Mapping[str, str]) -> tuple[str, Sequence[str], str | None]:
    """The columns of image, corners and id, as the file spells them."""
    image = next((columns[name] for name in _IMAGE if name in columns), None)
    corners = next((names for names in _BOX_COLUMNS if set(names) <= set(columns)), None)
    if image is None or corners is None:
        raise InputError(
            "expected json, or csv with a header line such as "
            f"image,x1,y1,x2,y2 or image,x,y,w,h; got {', '.join(columns.values()):.120}"
        )
    region_id = next((columns[name] for name in _ID if name in columns), None)
    return image, [columns[name] for name in corners], region_id


def _box(row: Mapping[str, str], corners: Sequence[str], line: int) -> list[float]:
    cells = [row[column] for column in corners]
    try:
        return [float(cell) for cell in cells]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"line {line}: expected numbers in {', '.join(corners)}, got {cells}"
        ) from error


def _id(text: str | None) -> RegionId | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else text
