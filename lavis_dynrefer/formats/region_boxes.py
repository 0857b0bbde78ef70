"""Boxes read from a file, and the images they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_names import match_names
from lavis_dynrefer.formats.image_result import RegionId


@dataclass
class ImageBoxes:
    """The boxes of one image, in the format of their file.

    Args:
        boxes: R rows of four numbers.
        ids: R ids; empty unless every box has one.
        image_id: id of the image in the file, if it has one.
    """

    boxes: list[Sequence[float]] = field(default_factory=list)
    ids: list[RegionId] = field(default_factory=list)
    image_id: int | None = None

    def add(self, box: Sequence[float], region_id: object = None) -> None:
        """Add a box; the first box without an id drops the ids of all."""
        if isinstance(region_id, (int, str)) and len(self.ids) == len(self.boxes):
            self.ids.append(region_id)
        else:
            self.ids.clear()
        self.boxes.append(box)


@dataclass(frozen=True)
class BoxFile:
    """The content of a file of boxes.

    Args:
        path: the file.
        images: image name -> boxes; a single entry "" if the file names no image.
        format: "xyxy" or "xywh".
        normalised: as in `pixel_boxes`.
    """

    path: Path
    images: Mapping[str, ImageBoxes]
    format: str
    normalised: bool | None

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


def read_box_list(rows: Any, name: str) -> ImageBoxes:
    """Read a list of boxes: four numbers each, or objects with `box` or `bbox` and maybe `id`.

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


def is_box(value: Any) -> bool:
    """Whether a json value is a list of four numbers."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(type(number) in (int, float) for number in value)
    )


def record_error(where: str, expected: str, got: Any, cure: str = "") -> InputError:
    """Describe an invalid record of a file."""
    shown = got if isinstance(got, str) else json.dumps(got, default=str)
    return InputError(f"{where}: expected {expected}, got {shown:.120}{cure}")
