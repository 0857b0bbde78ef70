"""Boxes as plain json: a list of boxes, or an object image name -> list of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.formats.region_boxes import ImageBoxes, is_box, record_error


def read_plain_boxes(document: Any) -> dict[str, ImageBoxes]:
    """Read a json document; a list without an image name has the name "".

    Raises:
        InputError: a record is not a box; names it.
    """
    images = document if isinstance(document, Mapping) else {"": document}
    return {name: read_box_list(rows, name) for name, rows in images.items()}


def read_box_list(rows: Any, name: str) -> ImageBoxes:
    """Read a list whose rows are four numbers, or objects with `box` or `bbox` and maybe `id`.

    Args:
        rows: the list.
        name: of the image, for errors.

    Raises:
        InputError: a row is not a box; names it.
    """
    if not isinstance(rows, list):
        raise record_error(name or "the file", "a list of boxes", rows)
    found = ImageBoxes()
    for number, row in enumerate(rows):
        box, region_id = row, None
        if isinstance(row, Mapping):
            box, region_id = row.get("box", row.get("bbox")), row.get("id")
        if not is_box(box):
            cure = "; one box is a list of one row" if is_box(rows) else ""
            where = f"{name}[{number}]" if name else f"record {number}"
            raise record_error(where, "four numbers", row, cure)
        found.add(box, region_id)
    return found
