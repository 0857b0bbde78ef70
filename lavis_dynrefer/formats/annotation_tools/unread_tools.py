"""Files of programs that are known and not read: their names, and what to export instead."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Callable

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.records import KeyedRow

_COCO = "export its annotations as COCO json"
_CONVERT = "convert it to COCO json, or to csv with the columns image,x1,y1,x2,y2"
_CENTRES = f"x and y are the centre of a box there; {_CONVERT}"
_FIFTYONE = "export a COCODetectionDataset"
_PANDAS = 'write the table by to_json(path, orient="records")'

# Keys that a document, or the first row of a list, has; the program; the cure.
_BY_KEYS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("_via_img_metadata",), "VIA's project", _COCO),
    (("file", "view", "metadata"), "VIA's project", _COCO),
    (("filename", "regions", "file_attributes"), "VIA's json", _COCO),
    (("objects", "size", "tags"), "Supervisely's json", _COCO),
    (("item", "annotations"), "Darwin's json, of V7", _COCO),
    (("dataset", "image", "annotations"), "Darwin's json, of V7", _COCO),
    (("data_row", "projects"), "Labelbox's export", _CONVERT),
    (("Labeled Data", "Label"), "Labelbox's export", _CONVERT),
    (("task_id", "response"), "Scale's export", _CONVERT),
    (("dm_format_version",), "Datumaro's json", "export it as coco_instances"),
    (("asset", "regions"), "VoTT's json", "export csv"),
    (("assets", "name"), "VoTT's json", "export csv"),
    (("source-ref",), "SageMaker's manifest", _CONVERT),
    (("imageGcsUri",), "Vertex AI's jsonl", _CONVERT),
    (("image_url", "objects"), "Visual Genome's json", "`dynrefer prepare vg` does"),
    (("originalImageUri", "regions"), "Custom Vision's json", _CONVERT),
    (("id", "regions"), "Visual Genome's json", "`dynrefer prepare vg` does"),
    (("filename", "ann"), "MMDetection's json", _CONVERT),
    (("metainfo", "data_list"), "MMDetection's json", _CONVERT),
    (("detection", "filename"), "ODVG's jsonl", _CONVERT),
    (("name", "labels"), "BDD100K's json", _CONVERT),
    (("file_name", "annotations"), "detectron2's list of records", _CONVERT),
    (
        ("filepath", "tags", "metadata"),
        "FiftyOne's samples",
        _FIFTYONE,
    ),
    (("box_2d",), "Gemini's json", f"box_2d is y1, x1, y2, x2 in thousandths; {_CONVERT}"),
    (("classes", "labels"), "FiftyOne's labels.json", f"{_FIFTYONE}; if it is ours, results.jsonl"),
    (("columns", "data"), "a table of pandas", _PANDAS),
    (("schema", "data"), "a table of pandas", _PANDAS),
)


def refuse_unread(document: Any) -> None:
    """Refuse a json document of a program that is known, and not read.

    Raises:
        InputError: names the program, and what to export instead.
    """
    for row in _first_rows(document):
        if _has_box(row):
            continue
        for keys, program, cure in _BY_KEYS:
            if all(key in row for key in keys) and not _is_ours(row):
                raise InputError(_sentence(program, cure))
        boxes = row.get("annotations", row.get("annotation"))
        first = boxes[0] if isinstance(boxes, list) and boxes else None
        if isinstance(first, Mapping) and "coordinates" in first:
            raise InputError(_sentence("CreateML's json", _CENTRES))
        if "annotations" in row and isinstance(row.get("image"), Mapping) and row is not document:
            raise InputError(_sentence("a list of SA-1B's json", "name the file of one image"))
        if "predictions" in row and isinstance(row.get("image"), Mapping):
            raise InputError(_sentence("a response of Roboflow", _CENTRES))
        if row and all(isinstance(cells, Mapping) and "0" in cells for cells in row.values()):
            raise InputError(_sentence("a table of pandas", _PANDAS))


def refuse_unread_table(text: str) -> None:
    """Refuse a table of a program that is known, and not read.

    Raises:
        InputError: names the program, and what to export instead.
    """
    head = list(islice(text.splitlines(), 2))
    for is_its, program, cure in _BY_TABLE:
        if head and is_its(head):
            raise InputError(_sentence(program, cure))


def unread_text(text: str) -> str:
    """The name of the program that wrote a text file, in brackets; empty if it is not known."""
    line = next(iter(text.splitlines()), "")
    cells = line.split()
    if line.startswith("imagesource") or len(cells) == 10:
        return " (DOTA's?)"
    if len(cells) in (15, 16):
        return " (KITTI's?)"
    return " (MOT's?)" if line.count(",") >= 8 else ""


def _sentence(program: str, cure: str) -> str:
    return f"{program} is not read; {cure}"


def _has_box(row: Mapping[Any, Any]) -> bool:
    """Whether it is a record that is read, whatever its other keys are."""
    keys = KeyedRow(row)
    box = row.get(keys.box)
    if isinstance(box, Mapping):
        return KeyedRow(box).format is not None
    return isinstance(box, list) or keys.boxes is not None or keys.format is not None


def _is_ours(row: Mapping[Any, Any]) -> bool:
    return isinstance(row.get("image"), str) and isinstance(row.get("regions"), list)


def _first_rows(document: Any) -> list[Mapping[Any, Any]]:
    """A document, or the first row of its list; and the first row in an object of rows or lists."""
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, Mapping):
        return []
    inner = next(iter(first.values()), None)
    inner = inner[0] if isinstance(inner, list) and inner else inner
    return [first, inner] if isinstance(inner, Mapping) and first is document else [first]


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]), [])


def _is_makesense(head: Sequence[str]) -> bool:
    cells = _cells(head[0])
    return len(cells) == 8 and all(cell.isdigit() for cell in (*cells[1:5], *cells[6:]))


_BY_TABLE: tuple[tuple[Callable[[Sequence[str]], bool], str, str], ...] = (
    (lambda head: "region_shape_attributes" in head[0], "VIA's csv", _COCO),
    (lambda head: '""original_width""' in head[-1], "Label Studio's csv", "export its json"),
    (
        lambda head: _cells(head[0])[:1] in (["TRAIN"], ["VALIDATION"], ["TEST"], ["UNASSIGNED"]),
        "AutoML's csv",
        _CONVERT,
    ),
    (_is_makesense, "Make Sense's csv", "export VOC xml or YOLO, or add the columns' names"),
)
