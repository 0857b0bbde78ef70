"""Files of boxes; the format is detected from the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.formats.coco_json import read_coco_boxes
from lavis_dynrefer.formats.csv_table import read_csv_boxes
from lavis_dynrefer.formats.jsonl import parse_json, read_own_boxes
from lavis_dynrefer.formats.region_boxes import BoxFile, read_box_list


def read_box_file(
    path: str | Path,
    *,
    format: str | None = None,
    normalised: bool | None = None,
    images: str | Path | None = None,
) -> BoxFile:
    """Read a file of boxes.

    It may be COCO json (an annotation without bbox gets the box of its segmentation), a COCO list
    of results, a result of `dynrefer predict`, a json list of boxes, a json object image -> boxes,
    or csv with a header.

    Args:
        path: the file.
        format: "xyxy" or "xywh", if the file does not say; by default "xywh" for COCO, else "xyxy".
        normalised: as in `pixel_boxes`.
        images: COCO json with the images of a COCO list of results.

    Raises:
        InputError: an unknown format, an invalid record, or boxes in another format than
            `format`; names the record and the cure.
        MissingFileError: there is no such file.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        return _box_file(path, text, format, normalised, images)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _box_file(
    path: Path, text: str, format: str | None, normalised: bool | None, images: str | Path | None
) -> BoxFile:
    if text.lstrip()[:1] not in ("[", "{"):
        entries, found = read_csv_boxes(text)
        if format not in (None, found):
            raise InputError(f"its columns say {found}, not {format}")
        return BoxFile(path, entries, found, normalised)
    document = parse_json(text)
    if _first_has("regions", document):
        if format == "xywh" or normalised:
            raise InputError("the boxes of dynrefer predict are xyxy in pixels")
        return BoxFile(path, read_own_boxes(document), "xyxy", False)
    if isinstance(document, Mapping) and {"annotations", "images"} <= set(document):
        listed, annotations = document["images"], document["annotations"]
    elif _first_has("image_id", document):
        listed, annotations = _images_of(images), document
    else:
        by_name = document if isinstance(document, Mapping) else {"": document}
        entries = {name: read_box_list(rows, name) for name, rows in by_name.items()}
        return BoxFile(path, entries, format or "xyxy", normalised)
    format = format or "xywh"
    return BoxFile(path, read_coco_boxes(annotations, listed, format), format, normalised)


def _first_has(key: str, rows: Any) -> bool:
    is_list = isinstance(rows, Sequence) and len(rows) > 0
    return is_list and isinstance(rows[0], Mapping) and key in rows[0]


def _images_of(path: str | Path | None) -> Any:
    if path is None:
        raise InputError(
            "a COCO list of results has ids of images and no names; "
            "name the COCO json with those images (--images-json)"
        )
    document = parse_json(_read_text(Path(path)))
    if not isinstance(document, Mapping) or "images" not in document:
        raise InputError(f"{path}: expected COCO json with a list of images")
    return document["images"]


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise MissingFileError(f"no file of boxes {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected json or csv, this is not text ({error})") from error
    if not text.strip():
        raise InputError(f"{path} is empty; expected json or csv")
    return text
