"""Hugging Face's metadata.jsonl for images with objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import UNREADABLE, Layout, LayoutBuilder
from lavis_dynrefer.formats.reading.records import KeyedRow, image_name, image_size
from lavis_dynrefer.formats.reading.strict_values import Row, shown, text_of, xyxy

TOOL = "Hugging Face's metadata"
_BOXES = ("bbox", "bboxes", "boxes")
_CATEGORIES = ("category", "categories", "label", "labels", "class")
_CAPTIONS = ("caption", "captions", "text", "description")


def is_metadata(document: Any) -> bool:
    """Whether the first row of a document has objects."""
    rows = document if isinstance(document, list) else [document]
    first = rows[0] if rows else None
    objects = first.get("objects") if isinstance(first, Mapping) else None
    if isinstance(objects, list):
        objects = objects[0] if objects else None
    return isinstance(objects, Mapping) and any(key in objects for key in _BOXES)


def read_metadata(document: Any) -> Layout:
    """Read rows with `file_name` and `objects`; boxes are x, y, width, height, as in COCO.

    Raises:
        InputError: nothing in it can be used.
    """
    layout = LayoutBuilder(TOOL)  # some write corners or fractions, which is asked about
    for number, row in enumerate(document if isinstance(document, list) else [document], start=1):
        where = f"row {number}"
        try:
            if not isinstance(row, Mapping):
                raise InputError(f"expected an object, got {shown(row)}")
            keys = KeyedRow(row)
            name = image_name(row, keys)
            if name is None:
                raise InputError("no file_name")
            image_id = layout.add_image(name, image_size(row, keys))
        except InputError as error:
            layout.faults.add("rows that cannot be read", f"{where}: {error}")
            continue
        try:
            for place, region in enumerate(_regions(row.get("objects"))):
                _add(region, image_id, f"{where}: object {place}", layout)
        except InputError as error:
            layout.faults.add("rows that cannot be read", f"{where}: {error}")
    return layout.finish()


def _add(region: Row, image_id: int, where: str, layout: LayoutBuilder) -> None:
    category, caption = _first(region, _CATEGORIES), _first(region, _CAPTIONS)
    try:
        layout.add_region(
            image_id,
            xyxy(_first(region, _BOXES)),
            category=None if category is None else str(category),
            caption=text_of("" if caption is None else caption),
        )
    except InputError as error:
        layout.faults.add(UNREADABLE, f"{where}: {error}")


def _regions(objects: Any) -> Iterator[Row]:
    """One mapping per region, from a list of them or from a mapping of lists."""
    if objects in (None, {}, []):
        return
    if isinstance(objects, list) and all(isinstance(item, Mapping) for item in objects):
        yield from objects
        return
    if not isinstance(objects, Mapping) or not isinstance(_first(objects, _BOXES), list):
        raise InputError(f"objects: expected lists of bbox and more, got {shown(objects)}")
    count = len(_first(objects, _BOXES))
    columns = {
        key: values
        for key, values in objects.items()
        if isinstance(values, list) and len(values) == count
    }
    for row in range(count):
        yield {key: values[row] for key, values in columns.items()}


def _first(row: Row, keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if key in row), None)
