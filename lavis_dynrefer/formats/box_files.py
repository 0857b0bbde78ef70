"""Files of boxes: COCO's json, lists of detections, our own results, plain json, and csv.

What a file is, is told from its content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.formats.box_entries import BoxFile, ImageBoxes
from lavis_dynrefer.formats.box_tables import read_table
from lavis_dynrefer.images.masks import box_from_polygons, box_from_rle


def read_box_file(
    path: str | Path,
    *,
    format: str | None = None,
    normalised: bool | None = None,
    images: str | Path | None = None,
) -> BoxFile:
    """Read a file of boxes.

    It may be COCO's json (a box is around the segmentation where there is no bbox), a COCO list of
    results, what `dynrefer predict` writes, a json list of boxes, a json object image -> boxes,
    or csv with a line of column names.

    Args:
        path: the file.
        format: "xyxy" or "xywh" where the file does not say; by default "xyxy".
        normalised: as in `pixel_boxes`.
        images: COCO json that says which image an `image_id` is, for a COCO list of results.

    Raises:
        ValueError: the file is of no known form, a record is wrong, or the file is of another
            format than the one named; says which record and the cure.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    reader = _Reader(path, format, normalised)
    text = _read_text(path)
    if text.lstrip()[:1] not in ("[", "{"):
        return reader.table(text)
    document = _parse(text, path)
    if isinstance(document, Mapping):
        if "annotations" in document and "images" in document:
            return reader.coco(document["annotations"], document["images"])
        return reader.by_name(document)
    if _first_has("regions", document):
        return reader.own(document)
    if _first_has("image_id", document):
        if images is None:
            raise InputError(
                f"{path} is a COCO list of results, which has ids of images and no names; "
                "name the COCO json with those images (--images-json)"
            )
        return reader.coco(document, _images_of(Path(images)))
    return reader.by_name({"": document})


class _Reader:
    """Turns the content of a file into boxes; knows the file for its errors."""

    def __init__(self, path: Path, format: str | None, normalised: bool | None) -> None:
        self._path = path
        self._format = format
        self._normalised = normalised

    def table(self, text: str) -> BoxFile:
        """Csv."""
        rows, format = read_table(text, self._path)
        if self._format not in (None, format):
            raise InputError(f"{self._path}: its columns say {format}, not {self._format}")
        images: dict[str, ImageBoxes] = {}
        for name, box, region_id in rows:
            images.setdefault(name, ImageBoxes()).add(box, region_id)
        return BoxFile(self._path, images, format, self._normalised)

    def own(self, rows: Iterable[Any]) -> BoxFile:
        """Rows of `dynrefer predict`."""
        images: dict[str, ImageBoxes] = {}
        for number, row in enumerate(rows, start=1):
            with_name = isinstance(row, Mapping) and isinstance(row.get("regions"), list)
            if not with_name or not isinstance(row.get("image"), str):
                raise self._error(f"row {number}", "a row with image and regions", row)
            entry = self._records(row["image"], row["regions"])
            entry.image_id = _whole(row.get("image_id"))
            images[row["image"]] = entry  # the last row of an image counts
        if self._format == "xywh" or self._normalised:
            raise InputError(f"{self._path}: the boxes of dynrefer predict are xyxy in pixels")
        return BoxFile(self._path, images, "xyxy", False)

    def by_name(self, document: Mapping[str, Any]) -> BoxFile:
        """Image -> list of boxes, each four numbers or an object with `box` or `bbox`."""
        images = {name: self._records(name, rows) for name, rows in document.items()}
        return BoxFile(self._path, images, self._format or "xyxy", self._normalised)

    def coco(self, annotations: Any, images: Any) -> BoxFile:
        """Annotations or results, and the images they belong to."""
        if not isinstance(annotations, list) or not isinstance(images, list):
            raise InputError(f"{self._path}: annotations and images: expected lists")
        format = self._format or "xywh"
        by_name: dict[str, ImageBoxes] = {}
        by_id: dict[Any, ImageBoxes] = {}
        for number, image in enumerate(images):
            named = isinstance(image, Mapping) and isinstance(image.get("file_name"), str)
            if not named or not isinstance(image.get("id"), (int, str)):
                raise self._error(f"images[{number}]", "an object with id and file_name", image)
            by_id[image["id"]] = ImageBoxes(image_id=_whole(image["id"]))
            by_name[image["file_name"]] = by_id[image["id"]]
        for number, annotation in enumerate(annotations):
            where = f"annotations[{number}]"
            try:
                entry = by_id[annotation["image_id"]]
            except (KeyError, TypeError) as error:
                expected = "an object with the image_id of an image"
                raise self._error(where, expected, annotation) from error
            try:
                entry.add(_coco_box(annotation, format), annotation.get("id"))
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                raise self._error(where, "bbox or segmentation", annotation) from error
        return BoxFile(self._path, by_name, format, self._normalised)

    def _records(self, name: str, rows: Any) -> ImageBoxes:
        if not isinstance(rows, list):
            raise self._error(name or "the file", "a list of boxes", rows)
        entry = ImageBoxes()
        for number, row in enumerate(rows):
            box, region_id = row, None
            if isinstance(row, Mapping):
                box, region_id = row.get("box", row.get("bbox")), row.get("id")
            if not _is_box(box):
                cure = "; one box is a list of one row" if _is_box(rows) else ""
                where = f"{name}[{number}]" if name else f"record {number}"
                raise self._error(where, "four numbers", row, cure)
            entry.add(box, region_id)
        return entry

    def _error(self, where: str, expected: str, got: Any, cure: str = "") -> ValueError:
        shown = got if isinstance(got, str) else json.dumps(got, default=str)
        return InputError(f"{self._path}, {where}: expected {expected}, got {shown:.120}{cure}")


def _coco_box(annotation: Mapping[str, Any], format: str) -> Sequence[float]:
    """The bbox, else that of the segmentation."""
    if annotation.get("bbox"):
        if not _is_box(annotation["bbox"]):
            raise InputError("bbox is no box")
        box: Sequence[float] = annotation["bbox"]
        return box
    mask = annotation["segmentation"]
    x1, y1, x2, y2 = box_from_rle(mask) if isinstance(mask, Mapping) else box_from_polygons(mask)
    return (x1, y1, x2, y2) if format == "xyxy" else (x1, y1, x2 - x1, y2 - y1)


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(type(number) in (int, float) for number in value)
    )


def _first_has(key: str, rows: Sequence[Any]) -> bool:
    return bool(rows) and isinstance(rows[0], Mapping) and key in rows[0]


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _images_of(path: Path) -> Any:
    document = _parse(_read_text(path), path)
    if not isinstance(document, Mapping) or "images" not in document:
        raise InputError(f"{path}: expected COCO's json with a list of images")
    return document["images"]


def _parse(text: str, path: Path) -> Any:
    """The json of a file; where every line is a document, the list of them."""
    lines = text.rstrip().split("\n")
    if len(lines) == 1 or not lines[0].rstrip().endswith("}"):
        lines = [text]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            where = f" line {number}" if len(lines) > 1 else ""
            raise InputError(f"{path}{where} is damaged json: {error}") from error
    is_rows = len(rows) > 1 or (isinstance(rows[0], Mapping) and "regions" in rows[0])
    return rows if is_rows else rows[0]


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise MissingFileError(f"no file of boxes {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected json or csv, got no text ({error})") from error
    if not text.strip():
        raise InputError(f"{path} is empty; expected json or csv")
    return text
