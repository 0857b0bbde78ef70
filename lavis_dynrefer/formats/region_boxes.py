"""Boxes read from a file, and the images they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_names import match_names, name_parts
from lavis_dynrefer.formats.image_result import RegionId
from lavis_dynrefer.formats.reading.records import KeyedRow, Size, image_name, image_size
from lavis_dynrefer.formats.reading.strict_values import finite_number
from lavis_dynrefer.formats.result_parts.region_masks import Mask, read_mask

DEFAULT_FORMAT = "xyxy"


@dataclass
class ImageBoxes:
    """The boxes of one image, in the format of their file.

    Args:
        boxes: R rows of four numbers.
        ids: R ids; empty unless every box has one.
        image_id: id of the image in the file, if it has one.
        category_ids: R ids of categories, or None where there is none; empty without any.
        masks: R masks as in the file, or None where there is none; empty without any.
        size: width and height of the image in pixels, if the file gives them.
    """

    boxes: list[Sequence[float]] = field(default_factory=list)
    ids: list[RegionId] = field(default_factory=list)
    image_id: int | None = None
    size: Size | None = None
    category_ids: list[int | None] = field(default_factory=list)
    masks: list[Mask | None] = field(default_factory=list)

    def add(
        self,
        box: Sequence[float],
        region_id: object = None,
        *,
        category_id: int | None = None,
        mask: Mask | None = None,
    ) -> None:
        """Add a box; the first box without an id drops the ids of all."""
        if isinstance(region_id, (int, str)) and len(self.ids) == len(self.boxes):
            self.ids.append(region_id)
        else:
            self.ids.clear()
        self.boxes.append(box)
        self.category_ids.append(category_id)
        self.masks.append(mask)

    def set_size(self, size: Size | None) -> None:
        """Note the size that the file gives.

        Raises:
            InputError: it gave another one before.
        """
        if size is not None and self.size not in (None, size):
            one, other = self.size, size
            raise InputError(f"the file gives two sizes for one image, {one} and {other}")
        self.size = size or self.size


@dataclass(frozen=True)
class BoxFile:
    """The content of a file of boxes.

    Args:
        path: the file.
        images: image name -> boxes; a single entry "" if the file names no image.
        format: "xyxy" or "xywh".
        units: one of `UNITS`; None if neither the file nor the caller says.
        categories: id -> name of the categories in the file.
        notes: sentences about what of the file is not used.
    """

    path: Path
    images: Mapping[str, ImageBoxes]
    format: str = DEFAULT_FORMAT
    units: str | None = None
    categories: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def match(self, images: Mapping[str, str]) -> dict[str, ImageBoxes]:
        """Find the boxes of each image.

        See `match_names`.

        Args:
            images: image name -> path.

        Returns:
            Image name -> boxes; without the images that have no entry in the file.

        Raises:
            InputError: an entry matches several images, or several entries match one image.
        """
        if list(self.images) == [""]:
            if len(images) > 1:
                raise InputError(
                    f"{self.path} names no image, so it can hold the boxes of one image only, "
                    f"got {len(images)}; write an object: image -> list of boxes"
                )
            return dict.fromkeys(images, self.images[""])
        try:
            found = match_names(self.images, images)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        return {name: self.images[entry] for name, entry in found.items()}


class Grouping:
    """Groups boxes by the image that their records name.

    Args:
        images: image name -> boxes, so far.
    """

    def __init__(self, images: dict[str, ImageBoxes] | None = None) -> None:
        self.images = {} if images is None else images
        self._by_parts: dict[tuple[str, ...], ImageBoxes] = {}
        self._where = ("", "")  # first record that names an image, and first that names none

    def entry(self, name: str | None, where: str) -> ImageBoxes:
        """The boxes of an image; spelled with other slashes it is the same.

        Args:
            name: None for the only image.
            where: place of the record, for errors.

        Raises:
            InputError: some records name an image, others do not.
        """
        named, nameless = self._where
        self._where = (named or where, nameless) if name else (named, nameless or where)
        if all(self._where):
            raise InputError(
                f"{self._where[0]} names its image, {self._where[1]} names none; name the image "
                "in every record or in none"
            )
        parts = name_parts(name or "")
        if parts not in self._by_parts:
            self._by_parts[parts] = self.images[name or ""] = ImageBoxes()
        return self._by_parts[parts]


def read_records(rows: Any, name: str = "") -> tuple[dict[str, ImageBoxes], str | None]:
    """Read a list of boxes, each four numbers or an object, and group it by image.

    An object has its box under `box`, `bbox`, `bbox_2d`, ..., several under `boxes`, or spread as
    x1, y1, x2, y2 or x, y, width, height; and maybe `id`, the name of its image under any usual
    key, and the size of its image. Without a box it is an image without regions.

    Args:
        rows: the list.
        name: of the image, if the file gives it for the whole list.

    Returns:
        Image name -> boxes, "" if no record names its image, and the format if the keys say it.

    Raises:
        InputError: a record is not a box, or only some name an image; names it.
    """
    if not isinstance(rows, list):
        raise record_error(name or "the file", "a list of boxes", rows)
    grouping = Grouping()
    formats: dict[str | None, str] = {}  # -> the first record of that format; None: it is not said
    for number, row in enumerate(rows):
        where = f"{name}[{number}]" if name else f"record {number}"
        try:
            for format in _add_record(row, name, where, grouping):
                formats.setdefault(format, where)
        except _NotABox as error:
            cure = "; one box is a list of one row" if plain_box(rows) else ""
            raise record_error(where, "four numbers", row, cure) from error
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    if len(formats) > 1 and "xywh" in formats:
        other = next(format for format in formats if format != "xywh")
        there, found = formats[other], other or "nothing"
        raise InputError(f"the keys of {formats['xywh']} say xywh, those of {there} {found}")
    if not rows:
        grouping.entry(name or None, "the file")
    return grouping.images, next(filter(None, formats), None)


def _add_record(row: Any, name: str, where: str, grouping: Grouping) -> list[str | None]:
    """Add the boxes of a record; returns the format of each where the keys say it."""
    if not isinstance(row, Mapping):
        entry = grouping.entry(name, where)
        entry.add(_checked_box(row))
        return [None]
    keys = KeyedRow(row)
    own_name = image_name(row, keys)
    if name and own_name and name_parts(own_name)[-1] != name_parts(name)[-1]:
        raise InputError(f"it names another image, {own_name!r}")
    entry = grouping.entry(name or own_name, where)
    keys.check_turn(row)
    region_id = None if keys.id is None else row.get(keys.id)
    formats = []
    box = None
    found = list(_boxes_in(row, keys, may_be_none=own_name is not None))
    for value, format in found:
        box = _checked_box(value)
        # As SAM's mask generator writes it.
        mask = read_mask(row.get("segmentation")) if len(found) == 1 else None
        entry.add(box, region_id, mask=mask)
        formats.append(format)
    entry.set_size(image_size(row, keys, box))
    return formats


class _NotABox(InputError):
    """A value that is not four numbers."""


def _checked_box(value: Any) -> list[float]:
    box = plain_box(value)
    if box is None:
        raise _NotABox("expected four numbers")
    return box


def is_record(value: Mapping[str, Any]) -> bool:
    """Whether an object is one record, rather than image -> boxes."""
    keys = KeyedRow(value)
    has_box = keys.box is not None or keys.boxes is not None or keys.format is not None
    return has_box and (keys.image is None or isinstance(value[keys.image], (str, Mapping)))


def read_box_list(rows: Any, name: str) -> ImageBoxes:
    """Read a list of boxes of one image, as in `read_records`.

    Raises:
        InputError: a row is not a box of two corners; names it.
    """
    images, format = read_records(rows, name)
    if format not in (None, DEFAULT_FORMAT):
        raise InputError(f"{name}: expected boxes of two corners, the keys say {format}")
    return images[name]


def plain_box(value: Any) -> list[float] | None:
    """A json value as four numbers, some perhaps as texts; None if it is none. May hold NaN."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return None
    numbers: list[float] = []
    for number in value:
        if type(number) in (int, float):
            numbers.append(number)
            continue
        try:
            numbers.append(finite_number(number))
        except InputError:
            return None
    return numbers


def record_error(where: str, expected: str, got: Any, cure: str = "") -> InputError:
    """Describe an invalid record of a file."""
    shown = got if isinstance(got, str) else json.dumps(got, default=str)
    return InputError(f"{where}: expected {expected}, got {shown:.120}{cure}")


def _boxes_in(
    row: Mapping[str, Any], keys: KeyedRow, *, may_be_none: bool
) -> list[tuple[Any, str | None]]:
    """The boxes in a record, each with its format where the keys say it."""
    if keys.box is not None:
        box = row[keys.box]
        if isinstance(box, Mapping):
            inner = KeyedRow(box)
            return [(inner.box_of([box[key] for key in inner.corners]), inner.format)]
        return [] if may_be_none and box in (None, []) else [(box, keys.said(row))]
    if keys.boxes is not None:
        boxes = row[keys.boxes]
        boxes = boxes if isinstance(boxes, list) else [boxes]
        return [(box, keys.said(row)) for box in boxes]
    if keys.format is not None:
        return [(keys.box_of([row[key] for key in keys.corners]), keys.format)]
    return [(row, None)]
