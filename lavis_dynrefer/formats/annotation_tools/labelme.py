"""labelme's json, one file per image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.annotation_tools.layout import (
    UNREADABLE,
    LayoutBuilder,
    extent,
    read_points,
)
from lavis_dynrefer.formats.reading.records import size_of
from lavis_dynrefer.formats.reading.strict_values import shown, text_of
from lavis_dynrefer.structures import Box

TOOL = "labelme"
_NO_AREA = ("point", "points", "line", "linestrip")
_CORNERS = 3  # of a polygon with an area


def is_labelme(document: Any) -> bool:
    """Whether a json document is a file of labelme."""
    return isinstance(document, Mapping) and {"shapes", "imagePath"} <= set(document)


def image_of(document: Mapping[str, Any]) -> str:
    """The name of the image.

    Raises:
        InputError: there is none.
    """
    name = text_of(document["imagePath"])
    if not name.strip():
        raise InputError("imagePath is empty")
    return name


def add_labelme(
    document: Mapping[str, Any], name: str, where: str, layout: LayoutBuilder, folder: str = ""
) -> None:
    """Add the shapes of a file: `label` is the category, `description` the caption.

    Args:
        document: the file.
        name: of the image.
        where: name of the file, for messages.
        layout: gets the image and its regions; points and lines are counted as faults.
        folder: of the image, as far as that of the file tells it.

    Raises:
        InputError: `shapes` is no list, or the size is none.
    """
    shapes = document["shapes"]
    if not isinstance(shapes, list):
        raise InputError(f"shapes: expected a list, got {shown(shapes)}")
    size = size_of(document.get("imageWidth"), document.get("imageHeight"))
    image_id = layout.add_image(name, size, folder=folder, given_name=image_of(document))
    for number, shape in enumerate(shapes):
        try:
            if not isinstance(shape, Mapping):
                raise InputError(f"expected an object, got {shown(shape)}")
            label, caption = shape.get("label"), shape.get("description")
            layout.add_region(
                image_id,
                _corners(shape),
                category=None if label in (None, "") else text_of(label),
                caption=text_of(caption or ""),
                segmentation=_polygon(shape),
            )
        except InputError as error:
            layout.faults.add(UNREADABLE, f"{where}: shapes[{number}]: {error}")


def _corners(shape: Mapping[str, Any]) -> Box:
    kind = shape.get("shape_type")
    if kind in _NO_AREA:
        raise InputError(f"a {kind} has no box")
    points = read_points(shape.get("points"))
    if kind == "circle":  # its centre and a point on it
        (x, y), (x_on, y_on), *_ = points
        radius = math.hypot(x_on - x, y_on - y)
        return x - radius, y - radius, x + radius, y + radius
    x1, y1, x2, y2 = extent(points)
    if kind == "mask":  # its first and its last pixel
        return x1, y1, x2 + 1, y2 + 1
    return x1, y1, x2, y2


def _polygon(shape: Mapping[str, Any]) -> list[list[float]] | None:
    """The outline of a shape as COCO writes it, if it is drawn as one."""
    points = read_points(shape.get("points"))
    if shape.get("shape_type", "polygon") != "polygon" or len(points) < _CORNERS:
        return None
    return [[number for point in points for number in point]]
