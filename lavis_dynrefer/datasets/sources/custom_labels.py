"""The labels of a json in COCO's layout: captions, tags, attributes, categories.

Annotation tools write more into these fields than people do: flags of their own, and a root above
all categories. Both are left out and named in the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lavis_dynrefer.datasets.sources.coco_layout import category_of, category_rows
from lavis_dynrefer.datasets.sources.custom_checks import repeated_names
from lavis_dynrefer.datasets.sources.raw_files import RawFile
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.strict_values import (
    ROW_ERRORS,
    Row,
    shown,
    text_of,
    whole_number,
)
from lavis_dynrefer.structures import AttributeInfo
from lavis_dynrefer.vocab.prompts import parse_attributes, plain_attribute

logger = logging.getLogger(__name__)

LABELS = PRESENT, ABSENT, UNKNOWN = 1, 0, -1
# What CVAT, FiftyOne, Label Studio, labelme, VIA, Open Images and VOC write about their own work,
# in lower case and without separators.
_TOOL_FIELDS = re.compile(
    r"(is)?(occluded|truncated|difficult|crowd|groupof|depiction|inside|locked|hidden|reviewed)"
    r"|(is)?(ignored?|keyframe)|occlusion|truncation|rotat(ed|ion)|outside|zorder|score|confidence"
    r"|(track|group|instance|object|annotation|label|frame)?id|num(ber)?(of)?keypoints"
    r"|annotator|(created|updated)(by|at)"
)
_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Labels:
    """The labels used in a file.

    Args:
        attributes: the attributes, in vector order.
        categories: category id -> name; empty if the file names none. Two ids may share a name.
        passed_over: names under `attributes` of annotations that a tool wrote for itself.
    """

    attributes: tuple[AttributeInfo, ...]
    categories: Mapping[int, str]
    passed_over: frozenset[str] = frozenset()

    @classmethod
    def from_document(cls, document: Row, source: RawFile) -> Labels:
        """The labels of a document; attributes that it does not list are those of its regions.

        Only a tool's field that the document itself lists under `attributes` is an attribute.

        Raises:
            DatasetError: malformed attributes or categories, or an attribute that occurs twice.
        """
        rows = document["annotations"]
        mentioned = _mentioned(rows)
        listed = document.get("attributes") or [
            name for name in mentioned if not is_tool_field(name)
        ]
        attributes = _read_attributes(listed, source)
        known = {item.name for item in attributes}
        passed_over = [name for name in mentioned if is_tool_field(name) and name not in known]
        if passed_over:
            logger.info(
                "%s: %s under 'attributes' of its annotations are notes of an annotation tool and "
                "not used; to use one, list it under 'attributes' of the file itself",
                *(source.name, shown(passed_over[:_SHOWN])),
            )
        categories = _read_categories(document, source) if document.get("categories") else {}
        return cls(attributes, categories, frozenset(passed_over))

    @property
    def category_names(self) -> tuple[str, ...]:
        """The candidates, each once, in file order."""
        return tuple(dict.fromkeys(self.categories.values()))

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
            "attributes": self._vector(self.given_attributes(row)),
            "category": category_of(row, self.categories) if has_category else None,
            "iscrowd": bool(row.get("iscrowd")),
        }

    def given_attributes(self, row: Row) -> Any:
        """What the annotation says under `attributes`, without a tool's fields; None for nothing.

        An annotation with a tool's fields alone says nothing about attributes.
        """
        given = row.get("attributes")
        if not self.passed_over or not isinstance(given, (Mapping, list)):
            return given
        kept = [name for name in given if not self._is_passed_over(name)]
        if len(kept) == len(given):
            return given
        if not kept:
            return None
        return {name: given[name] for name in kept} if isinstance(given, Mapping) else kept

    def _is_passed_over(self, name: Any) -> bool:
        return isinstance(name, str) and name in self.passed_over

    def _vector(self, given: Any) -> tuple[int, ...] | None:
        """Labels from a list of names or a mapping name -> label; None for anything else."""
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


def is_tool_field(name: str) -> bool:
    """Whether annotation tools write this field about their own work.

    >>> is_tool_field("isOccluded"), is_tool_field("track_id"), is_tool_field("striped")
    (True, True, False)
    """
    plain = "".join(char for char in name.lower() if char.isalnum())
    return _TOOL_FIELDS.fullmatch(plain) is not None


def _mentioned(rows: Sequence[Row]) -> list[str]:
    """Names under `attributes` of all annotations, in the order of their first mention."""
    given = [row["attributes"] for row in rows if isinstance(row.get("attributes"), (list, dict))]
    return list(dict.fromkeys(name for names in given for name in names if isinstance(name, str)))


def _read_attributes(listed: Any, source: RawFile) -> tuple[AttributeInfo, ...]:
    try:
        if isinstance(listed, list) and all(isinstance(item, str) for item in listed):
            attributes = tuple(map(_named_attribute, listed))
        else:
            attributes = parse_attributes(listed)
    except (TypeError, ValueError) as error:
        raise source.error(f"{source.name}: {error}") from error
    names = [item.name for item in attributes]
    if not all(isinstance(name, str) for name in names):
        raise source.error(f"{source.name}: attributes: expected names, got {names[:5]}")
    if repeated_names(names):
        found = repeated_names(names)[:5]
        raise source.error(f"{source.name}: attributes of the same name: {found}")
    return attributes


def _named_attribute(name: str) -> AttributeInfo:
    info = plain_attribute(name)
    return replace(info, parent_type=info.parent_type or "other")  # a group of the report


def _read_categories(document: Row, source: RawFile) -> dict[int, str]:
    """Category id -> name, in file order, without roots: those are no candidates.

    A root has no annotation and is only the `supercategory` of others; exporters add it.
    """
    rows = category_rows(document, source)
    used = _used_ids(document["annotations"])
    parents = {number: row.get("supercategory") for number, _, row in rows}
    roots = {
        number: name
        for number, name, _ in rows
        if number not in used
        and any(parent == name for child, parent in parents.items() if child != number)
    }
    names = {number: name for number, name, _ in rows if number not in roots}
    if roots:
        logger.info(
            "%s: %s have no annotations and are only parents of other categories: not "
            "among the names that regions are graded on",
            *(source.name, shown(list(roots.values())[:_SHOWN])),
        )
    shared = repeated_names(list(names.values()))
    if shared:
        logger.warning(
            "%s: several 'categories' are called %s and count as one; to tell them apart, "
            "rename them",
            *(source.name, shown(shared[:_SHOWN])),
        )
    seen = {name for number, name in names.items() if number in used}
    unseen = [name for name in dict.fromkeys(names.values()) if name not in seen]
    without = f"; {len(unseen)} have no region: {shown(unseen[:_SHOWN])}" if unseen else ""
    logger.info("%s: %d names of categories%s", source.name, len(set(names.values())), without)
    return names


def _used_ids(rows: Iterable[Row]) -> set[int]:
    used = set()
    for row in rows:
        try:
            used.add(whole_number(row["category_id"]))
        except ROW_ERRORS:
            continue
    return used


def _names(row: Row, key: str) -> list[str]:
    names = row.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{key}: expected a list of names, got {shown(names)}")
    return [text_of(name) for name in names]
