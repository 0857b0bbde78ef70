"""Rows of COCO's json, read by one set of rules: by `--boxes`, and as a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.records import Size, size_of
from lavis_dynrefer.formats.reading.strict_values import (
    ROW_ERRORS,
    Id,
    Row,
    four_numbers,
    id_of,
    refuse_turned,
    text_of,
)
from lavis_dynrefer.images.boxes import xywh_to_xyxy, xyxy_to_xywh
from lavis_dynrefer.images.masks import box_from_polygons, box_from_rle
from lavis_dynrefer.structures import Box

# LVIS has no file names, but addresses that end in them.
_BOX_MODES = {0: "xyxy", 1: "xywh"}  # detectron2's, in pixels
_NAME_KEYS = ("file_name", "filename", "coco_url", "path", "flickr_url", "url")


def entry_name(entry: Row) -> str | None:
    """The name that an entry of `images` gives to its file; None if it gives none.

    Raises:
        InputError: the name is no text.
    """
    for key in _NAME_KEYS:
        if entry.get(key) not in (None, ""):
            return text_of(entry[key])
    return None


def entry_size(entry: Row) -> Size | None:
    """Width and height that an entry of `images` gives, if it gives both.

    Raises:
        InputError: not numbers of pixels.
    """
    return size_of(entry.get("width"), entry.get("height"))


def row_id(row: Row, key: str) -> Id:
    """The id under a key.

    Raises:
        InputError: neither an integer nor a text, or the row is no object; names the key.
    """
    if not isinstance(row, Mapping):
        raise InputError("expected an object")
    try:
        return id_of(row.get(key))
    except InputError as error:
        raise InputError(f"{key}: {error}") from None


def box_of_annotation(row: Row, format: str = "xywh") -> Box:
    """The `bbox` of an annotation, else the box of its `segmentation`.

    Args:
        row: the annotation.
        format: of `bbox`, "xywh" or "xyxy", unless the annotation has detectron2's `bbox_mode`;
            what has another format is converted to it.

    Raises:
        InputError: neither, or a damaged one; says what is wrong with it.
    """
    bbox, mask = row.get("bbox"), row.get("segmentation")
    if bbox or not mask:
        expected = "a box of x, y, width, height" if format == "xywh" else "a box of x1, y1, x2, y2"
        if bbox in (None, []):
            raise InputError("neither bbox nor segmentation")
        noted = row.get("attributes")
        refuse_turned(noted.get("rotation") if isinstance(noted, Mapping) else None)  # of CVAT
        box = four_numbers(bbox, expected)
        own = _box_mode(row.get("bbox_mode"), format)
        if own == format:
            return box
        return xywh_to_xyxy(box) if format == "xyxy" else xyxy_to_xywh(box)
    try:
        box = box_from_rle(mask) if isinstance(mask, Mapping) else box_from_polygons(mask)
        box = four_numbers(box)
    except ROW_ERRORS as error:
        raise InputError(f"segmentation: {error}") from error
    return box if format == "xyxy" else xyxy_to_xywh(box)


def rle_size(row: Row) -> Size | None:
    """The size of the image that the box of an annotation was drawn on, if its RLE gives the box.

    Call it for annotations whose box can be read.
    """
    mask = row.get("segmentation")
    if row.get("bbox") or not isinstance(mask, Mapping):
        return None
    height, width = mask["size"]
    return size_of(width, height)


def _box_mode(mode: Any, otherwise: str) -> str:
    if mode is None:
        return otherwise
    if type(mode) is not int or mode not in _BOX_MODES:
        raise InputError(
            f"bbox_mode: expected 0 (corners) or 1 (x, y, width, height), got {mode!r}"
        )
    return _BOX_MODES[mode]


def brief(row: Any) -> Any:
    """What identifies an annotation, for messages."""
    if not isinstance(row, Mapping):
        return row
    return {key: row[key] for key in ("id", "image_id", "bbox") if key in row} or row


def with_whole_ids(rows: Sequence[Any], key: str, numbers: Mapping[Id, int]) -> list[Any]:
    """Copies of rows with ids replaced by numbers; an unknown id stays as it is."""
    found: list[Any] = []
    for row in rows:
        if isinstance(row, Mapping):
            with suppress(InputError, KeyError):  # named where it is read
                row = {**row, key: numbers[row_id(row, key)]}
        found.append(row)
    return found


def numbered_ids(rows: Iterable[Any], key: str = "id") -> dict[Id, int] | None:
    """Numbers for ids of which some are texts: their places in the file, from 1.

    Returns:
        Id -> number; None if no id is a text.
    """
    ids: dict[Id, int] = {}
    for row in rows:
        try:
            ids.setdefault(row_id(row, key), len(ids) + 1)
        except InputError:
            continue
    return ids if any(isinstance(found, str) for found in ids) else None


def whole_ids(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A document whose ids are numbers, also if the file has texts.

    Tables keep ids as numbers. Ids of images, annotations and categories are replaced apart.
    """
    found = dict(document)
    for key, used in (("images", "image_id"), ("annotations", None), ("categories", "category_id")):
        rows = found.get(key)
        if not isinstance(rows, list):
            continue
        numbers = numbered_ids(rows)
        if numbers is None:
            continue
        found[key] = with_whole_ids(rows, "id", numbers)
        if used and isinstance(found.get("annotations"), list):
            found["annotations"] = with_whole_ids(found["annotations"], used, numbers)
    return found


def one_caption_each(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Annotations with a list of captions become several, the first of which keeps the id."""
    rows = document["annotations"]
    if not isinstance(rows, list) or not any(map(_captions, rows)):
        return document
    ids = [row["id"] for row in rows if isinstance(row, Mapping) and type(row.get("id")) is int]
    new_id = max(ids, default=0)
    found: list[Any] = []
    for row in rows:
        captions = _captions(row)
        if not captions:
            found.append(row)
            continue
        found.append({**row, "caption": captions[0]})
        for caption in captions[1:]:
            new_id += 1
            found.append({**row, "caption": caption, "id": new_id})
    return {**document, "annotations": found}


def _captions(row: Any) -> list[str]:
    """The captions of an annotation that has a list of them."""
    if not isinstance(row, Mapping):
        return []
    captions = row.get("captions") if row.get("caption") is None else row["caption"]
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        return []
    return captions
