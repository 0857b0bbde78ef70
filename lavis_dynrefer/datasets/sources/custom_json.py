"""A user's own regions: captions, tags, attributes, categories, in a json of COCO's layout."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavis_dynrefer.datasets.sources.annotation_rows import ROW_ERRORS, Row, shown, text_of, xyxy
from lavis_dynrefer.datasets.sources.coco_layout import category_names, category_of
from lavis_dynrefer.datasets.sources.collector import TRAIN, RegionCollector, Stores, in_memory
from lavis_dynrefer.datasets.sources.custom_checks import (
    GUIDE,
    BoxCheck,
    OwnFile,
    check_ids,
    id_of,
    own_file,
    repeated_names,
    require_some,
    rows_of,
)
from lavis_dynrefer.datasets.sources.custom_images import ImageProblem, OwnImages
from lavis_dynrefer.datasets.sources.raw_files import ImageFolder, RawFile, read_json
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import AttributeInfo, RegionRecord, RegionSet
from lavis_dynrefer.vocab.prompts import parse_attributes, plain_attribute

logger = logging.getLogger(__name__)

IMAGES = OwnFile("images.storage", "images", GUIDE)
LABELS = PRESENT, ABSENT, UNKNOWN = 1, 0, -1


def read_custom(
    annotations: str | Path,
    images: str | Path,
    *,
    name: str,
    split: str,
    stores: Stores = in_memory,
) -> RegionSet:
    """Every annotation with what it says.

    In the split "train" a region needs a caption. In any other split it is graded on what it has;
    `no_caption` counts those without one. `unreadable_attributes` counts regions whose attributes
    are neither names nor labels, or name what the file does not list: their rest is used.

    Args:
        annotations: json in COCO's layout.
        images: folder that `file_name` is relative to.
        name: protocol id.
        split: split name.
        stores: where the regions go.

    Raises:
        DatasetError: the file is missing or of another kind, its boxes do not fit the images, or
            no region is usable.
    """
    source = own_file(split)
    document = read_json(annotations, source)
    rows = rows_of(document, "annotations", annotations, source)
    require_some(rows, ["bbox"], "to mark a region", annotations, source)
    entries = rows_of(document, "images", annotations, source)
    check_ids(rows, entries, annotations, source)
    labels = _Labels.of(document, annotations, source)
    if split == TRAIN:
        require_some(rows, ["caption"], "to train on", annotations, source)
    else:
        named = ["category_id"] if labels.categories else []
        graded = ["caption", "attributes", *named]
        require_some(rows, graded, "to be graded on", annotations, source)
    collector = RegionCollector(name, split, stores)
    own = OwnImages(entries, ImageFolder(images, IMAGES), collector, source)
    boxes, counts = BoxCheck(), Counter[str]()
    for row in rows:
        _collect(row, labels, own, collector, boxes, counts)
    own.finish(annotations, source)
    boxes.finish(annotations, source)
    found = collector.finish(
        attributes=labels.attributes if counts["attributes"] else (),
        category_names=tuple(labels.categories.values()) if counts["category"] else (),
    )
    logger.info("%s, split '%s': of %d annotations have %s", name, split, len(rows), dict(counts))
    return found


def _collect(
    row: Row,
    labels: _Labels,
    images: OwnImages,
    collector: RegionCollector,
    boxes: BoxCheck,
    counts: Counter[str],
) -> None:
    """Hand one annotation to the collector."""
    try:
        image_id = id_of(row, "image_id")
        fields = labels.fields(row)
        box = xyxy(row.get("bbox"))
        region = RegionRecord(id_of(row, "id"), image_id, box, **fields)
        image = images.find(image_id)
    except ImageProblem as problem:
        collector.reject(problem.reason, str(problem), region)
        return
    except ROW_ERRORS as error:
        brief = {key: row[key] for key in ("id", "image_id", "bbox") if key in row}
        collector.leave_out("unreadable_record", f"annotation {shown(brief)}: {error}", None)
        return
    boxes.add(box, image)
    if row.get("attributes") is not None and region.attributes is None:
        collector.note("unreadable_attributes")
    counts.update(key for key, value in fields.items() if value)
    if region.caption is None and collector.split == TRAIN:
        collector.reject("no_caption", f"region {region.region_id} has no caption", region)
        return
    if region.caption is None:
        collector.note("no_caption")
    collector.add(region, image)


@dataclass(frozen=True)
class _Labels:
    """What the annotations of a file may say about a region.

    Args:
        attributes: the attributes, in vector order.
        categories: category id -> name; empty where the file names none.
    """

    attributes: tuple[AttributeInfo, ...]
    categories: Mapping[int, str]

    @classmethod
    def of(cls, document: Row, path: str | Path, source: RawFile) -> _Labels:
        """The labels of a document; attributes that it does not list are those of its regions.

        Raises:
            DatasetError: attributes or categories that make no sense, or one name twice.
        """
        categories = category_names(document, source) if document.get("categories") else {}
        listed = document.get("attributes") or _mentioned(document["annotations"])
        try:
            if isinstance(listed, list) and all(isinstance(item, str) for item in listed):
                attributes = tuple(map(_named_attribute, listed))
            else:
                attributes = parse_attributes(listed)
        except (TypeError, ValueError) as error:
            raise source.error(f"{path}: {error}") from error
        for what, names in (
            ("attributes", [item.name for item in attributes]),
            ("categories", list(categories.values())),
        ):
            if not all(isinstance(name, str) for name in names):
                raise source.error(f"{path}: {what}: expected text as names, got {names[:5]}")
            if len(set(names)) < len(names):
                raise source.error(f"{path}: {what} of the same name: {repeated_names(names)[:5]}")
        return cls(attributes, categories)

    def fields(self, row: Row) -> dict[str, Any]:
        """Fields of a `RegionRecord`.

        Raises:
            ValueError: a value of the wrong kind, or a category that is not listed.
        """
        caption = "" if row.get("caption") is None else text_of(row["caption"])
        has_category = bool(self.categories) and row.get("category_id") is not None
        return {
            "caption": caption if caption.strip() else None,
            "tags": tuple(dict.fromkeys(_names(row, "tags"))),
            "attributes": self._vector(row.get("attributes")),
            "category": category_of(row, self.categories) if has_category else None,
            "iscrowd": bool(row.get("iscrowd")),
        }

    def _vector(self, given: Any) -> tuple[int, ...] | None:
        """Labels of a list of names or a mapping to labels; None for what other tools write."""
        labels: Mapping[str, Any]
        if isinstance(given, list) and all(isinstance(name, str) for name in given):
            labels, other = dict.fromkeys(given, PRESENT), ABSENT
        elif isinstance(given, Mapping):
            labels, other = given, UNKNOWN
        else:
            return None
        known = [item.name for item in self.attributes]
        usable = all(type(value) in (int, bool) and value in LABELS for value in labels.values())
        if not usable or not set(labels).issubset(known):
            return None
        return tuple(int(labels.get(name, other)) for name in known)


def _mentioned(rows: Sequence[Row]) -> list[str]:
    """Attributes of all annotations, in the order of their first mention."""
    given = [row["attributes"] for row in rows if isinstance(row.get("attributes"), (list, dict))]
    return list(dict.fromkeys(name for names in given for name in names if isinstance(name, str)))


def _named_attribute(name: str) -> AttributeInfo:
    info = plain_attribute(name)
    return replace(info, parent_type=info.parent_type or "other")  # a group of the report


def _names(row: Row, key: str) -> list[str]:
    names = row.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{key}: expected a list of names, got {shown(names)}")
    return [text_of(name) for name in names]
