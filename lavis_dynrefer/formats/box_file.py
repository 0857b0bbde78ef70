"""Files of boxes; the format is detected from the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import Layout
from lavis_dynrefer.formats.annotation_tools.tool_files import (
    READ,
    layout_of_json,
    layout_of_text,
    layout_without_text,
)
from lavis_dynrefer.formats.annotation_tools.unread_tools import (
    refuse_unread,
    refuse_unread_table,
)
from lavis_dynrefer.formats.coco_json import read_coco_boxes, read_coco_categories
from lavis_dynrefer.formats.csv_table import read_csv_boxes
from lavis_dynrefer.formats.image_names import ANY_SUFFIX
from lavis_dynrefer.formats.jsonl import read_own_boxes
from lavis_dynrefer.formats.reading.box_units import unit_problem
from lavis_dynrefer.formats.reading.coco_rows import entry_name, row_id
from lavis_dynrefer.formats.reading.json_text import parse_json
from lavis_dynrefer.formats.reading.strict_values import whole_number
from lavis_dynrefer.formats.reading.text_file import decode_text, read_text
from lavis_dynrefer.formats.region_boxes import (
    DEFAULT_FORMAT,
    BoxFile,
    ImageBoxes,
    is_record,
    read_records,
    record_error,
)

_EXPECTED = "json or csv"
_READ = f"{READ}; json lists of boxes or of records with names of images; csv"


def read_box_file(
    path: str | Path,
    *,
    format: str | None = None,
    units: str | None = None,
    images: str | Path | None = None,
) -> BoxFile:
    """Read a file of boxes.

    It may be of an annotation tool, see `READ` (an annotation of COCO without bbox gets the box of
    its segmentation); a COCO list of results, a result of `dynrefer predict`, a json list of boxes
    or of records that name their images, a json object image -> boxes, or csv with a header.

    Args:
        path: the file, or a folder of the files of a tool.
        format: "xyxy" or "xywh", if the file does not say; by default "xywh" for COCO, else "xyxy".
        units: of the numbers, one of `UNITS`, if the file does not say.
        images: COCO json with the images of a COCO list of results.

    Raises:
        InputError: an unknown format, an invalid record, or boxes in another format than
            `format`; names the record and the cure.
        MissingFileError: there is no such file.
    """
    if units is not None and (problem := unit_problem("units", units)):
        raise InputError(problem)
    path = Path(path)
    try:
        layout = layout_without_text(path)
        if layout is not None:
            return _of_layout(path, layout, format, units)
        return _box_file(path, decode_text(path.read_bytes(), _EXPECTED), format, units, images)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _box_file(
    path: Path, text: str, format: str | None, units: str | None, images: str | Path | None
) -> BoxFile:
    if not text.strip():
        raise InputError(f"it is empty; expected {_EXPECTED}")
    layout = layout_of_text(path, text)
    if layout is not None:
        return _of_layout(path, layout, format, units)
    if text.lstrip()[:1] not in ("[", "{"):
        refuse_unread_table(text)
        entries, found = read_csv_boxes(text)
        return BoxFile(path, entries, _agreed(format, found, "its columns"), units)
    document = parse_json(text)
    refuse_unread(document)
    rows = document if isinstance(document, list) else [document]
    if _first_has("regions", rows):
        if format == "xywh" or units not in (None, "pixels"):
            raise InputError("the boxes of dynrefer predict are xyxy in pixels")
        entries, categories = read_own_boxes(rows)
        return BoxFile(path, entries, "xyxy", "pixels", categories)
    layout = layout_of_json(document) or _coco_results(document, images)
    if layout is not None:
        return _of_layout(path, layout, format, units)
    entries, said = _listed(document)
    return BoxFile(path, entries, _agreed(format, said, "its keys"), units)


def _of_layout(path: Path, layout: Layout, format: str | None, units: str | None) -> BoxFile:
    """The boxes of a tool's file."""
    if layout.units is not None:  # the tool's own, and so is the format
        _agreed(format, "xywh" if layout.units == "pixels" else None, f"files of {layout.tool}")
        if units not in (None, layout.units):
            raise InputError(f"files of {layout.tool} are in {layout.units}, not in {units}")
        format, units = "xywh", layout.units
    document, faults = layout.document, layout.faults
    format = format or "xywh"
    entries = read_coco_boxes(document["annotations"], document["images"], format, faults)
    categories = read_coco_categories(document.get("categories"))
    return BoxFile(path, entries, format, units, categories, faults.sentences())


def _agreed(asked: str | None, said: str | None, what: str) -> str:
    if asked and said and asked != said:
        raise InputError(f"{what} say {said}, not {asked}")
    return asked or said or DEFAULT_FORMAT


def _coco_results(document: Any, images: str | Path | None) -> Layout | None:
    """COCO's list of results, with its images; None if the document is something else.

    Some programs write names of images as their ids, or a `file_name` beside them.
    """
    if not _first_has("image_id", document):
        return None
    if images is not None:
        path = Path(images)
        listed = parse_json(read_text(path, "COCO json"))
        if not isinstance(listed, Mapping) or "images" not in listed:
            raise InputError(f"{path}: expected COCO json with a list of images")
        return Layout("COCO", {**listed, "annotations": document})
    if not _first_has("category_id", document):
        try:
            whole_number(document[0]["image_id"])
        except InputError:
            return None  # records of ours, with names
        raise _without_images()
    names: dict[Any, str] = {}
    for number, row in enumerate(document):
        try:
            key, name = row_id(row, "image_id"), entry_name(row)
        except InputError as error:
            raise InputError(f"record {number}: {error}") from error
        if name is None and isinstance(key, int):
            raise _without_images()
        if names.setdefault(key, name or _with_suffix(str(key))) != (name or names[key]):
            raise InputError(f"record {number}: image_id {key!r} means {names[key]!r} and {name!r}")
    listed = [{"id": key, "file_name": name} for key, name in names.items()]
    return Layout("COCO", {"images": listed, "annotations": document})


def _with_suffix(name: str) -> str:
    return name if "." in name else name + ANY_SUFFIX


def _without_images() -> InputError:
    return InputError(
        "a COCO list of results has ids of images and no names; "
        "name the COCO json with those images (--images-json)"
    )


def _listed(document: Any) -> tuple[dict[str, ImageBoxes], str | None]:
    """Boxes of a list, of one record, or of an object image -> list, and their format if said."""
    if isinstance(document, list):
        return read_records(document)
    if is_record(document):
        return read_records([document])
    entries: dict[str, ImageBoxes] = {}
    formats = set()
    for name, rows in document.items():
        if not isinstance(rows, list):
            raise record_error(name, "a list of boxes", rows, f". Files that are read: {_READ}")
        found, said = read_records(rows, name)
        entries.update(found)
        formats.add(said)
    if len(formats - {None}) > 1:
        raise InputError("the keys of some records say xyxy, those of others xywh")
    return entries, next(iter(formats - {None}), None)


def _first_has(key: str, rows: Any) -> bool:
    is_list = isinstance(rows, Sequence) and len(rows) > 0
    return is_list and isinstance(rows[0], Mapping) and key in rows[0]
