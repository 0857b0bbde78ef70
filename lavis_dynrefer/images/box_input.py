"""Convert boxes to xyxy pixels; boxes that look like another format are rejected.

This is the only check of boxes: code that gets its boxes from here trusts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.boxes import SLACK
from lavis_dynrefer.images.tensors import as_arrays

BOX_FORMATS = ("xyxy", "xywh")


def pixel_boxes(
    boxes: Any,
    image_size: Sequence[int],
    *,
    format: str = "xyxy",
    normalised: bool | None = None,
) -> Tensor:
    """Convert boxes to what the model takes, and check them.

    Args:
        boxes: (R, 4) list, array or tensor; R may be 0.
        image_size: width and height in pixels.
        format: "xyxy" (two corners) or "xywh" (upper left corner, width and height).
        normalised: True if boxes are fractions of the image's width and height, False if they
            are pixels; None means pixels, but boxes that look normalised are an error.

    Returns:
        (R, 4) float32 xyxy in pixels, on the CPU, without gradient.

    Raises:
        InputError: another shape, not numbers, not finite, outside the image, or apparently in
            another format; names the box and the cure.

    >>> pixel_boxes([[0.5, 0.5, 0.25, 0.5]], (40, 20), format="xywh", normalised=True)
    tensor([[20., 10., 30., 20.]])
    """
    check_format(format)
    rows = as_rows(boxes, "boxes", 4)
    if not len(rows):
        return rows
    if normalised:
        if (rows > 1 + SLACK).any():
            raise InputError(
                f"boxes: normalised boxes lie in [0, 1], got up to {float(rows.max()):g}; "
                "leave out normalised=True for pixels"
            )
        rows = rows * torch.tensor([*image_size, *image_size], dtype=torch.float32)
    elif normalised is None and _look_normalised(boxes, rows):
        first = [round(value, 4) for value in rows[0].tolist()]
        raise InputError(
            f"boxes: all values lie in [0, 1], such as {first}; pass normalised=True "
            "if they are fractions of the image, normalised=False if they are pixels"
        )
    if format == "xywh":
        return as_boxes(_corners(rows, image_size), image_size=image_size)
    try:
        return as_boxes(rows, image_size=image_size)
    except InputError as error:
        raise InputError(f'{error}; pass format="xywh" for x, y, width, height') from error


def check_format(format: str) -> None:
    """Check the name of a box format.

    Raises:
        InputError: it is not in `BOX_FORMATS`.
    """
    if format not in BOX_FORMATS:
        raise InputError(f"format: expected one of {list(BOX_FORMATS)}, got {format!r}")


def as_boxes(boxes: Any, *, image_size: Sequence[int]) -> Tensor:
    """Check xyxy boxes in pixels.

    Args:
        boxes: (R, 4) list, array or tensor; R may be 0.
        image_size: width and height in pixels.

    Returns:
        (R, 4) float32, values unchanged.

    Raises:
        InputError: another shape, not finite, corners in the wrong order, or a box completely
            outside the image; names the box.

    >>> as_boxes([[1, 2, 3, 4]], image_size=(10, 10))
    tensor([[1., 2., 3., 4.]])
    """
    rows = as_rows(boxes, "boxes", 4)
    width, height = image_size
    x1, y1, x2, y2 = rows.unbind(dim=1)
    problems = {
        "a value that is not finite": ~rows.isfinite().all(dim=1),
        "corners in the wrong order (is it x, y, width, height?)": (x2 < x1) | (y2 < y1),
        f"no part inside the {width} x {height} image": (
            (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0)
        ),
    }
    for problem, bad in problems.items():
        if bad.any():
            raise InputError(
                f"boxes: {_first(rows, bad)} has {problem}; expected x1, y1, x2, y2 in pixels"
            )
    return rows


def as_rows(values: Any, what: str, columns: int) -> Tensor:
    """Convert a list, array or tensor to (R, columns) float32 on the CPU, without gradient.

    Raises:
        InputError: not numbers, or another shape; begins with `what`.
    """
    try:
        array = np.asarray(as_arrays(values))
        if array.dtype.kind in "bc":  # of bool or complex
            raise TypeError(array.dtype)
        with np.errstate(over="ignore"):  # too large for float32: infinite, and refused as such
            rows = torch.as_tensor(array.astype(np.float32))
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{what}: expected rows of {columns} numbers, got {values!r:.200}"
        ) from error
    if rows.shape == (0,):  # an empty list; [[]] is a row without numbers
        return rows.reshape(0, columns)
    if rows.ndim != 2 or rows.shape[1] != columns:
        cure = "; a single one is a list of one row" if rows.shape == (columns,) else ""
        raise InputError(f"{what}: expected shape (R, {columns}), got {tuple(rows.shape)}{cure}")
    return rows


def _look_normalised(boxes: Any, rows: Tensor) -> bool:
    """Whether all values are fractions; a one-pixel box in whole numbers is a box in pixels."""
    is_float = np.asarray(as_arrays(boxes)).dtype.kind == "f"
    return is_float and bool(((rows >= 0) & (rows <= 1)).all())


def _corners(rows: Tensor, image_size: Sequence[int]) -> Tensor:
    """Convert xywh boxes to corners; refuse them if most look like corners already."""
    start, sides = rows[:, :2], rows[:, 2:]
    negative = (sides < 0).any(dim=1)
    if negative.any():
        raise InputError(f"boxes: {_first(rows, negative)} has a negative width or height")
    corners = torch.cat([start, start + sides], dim=1)
    limit = torch.tensor(image_size) * (1 + SLACK)
    leaves = (corners[:, 2:] > limit).any(dim=1)
    fits_as_corners = ((sides <= limit) & (sides > start)).all(dim=1)
    suspect = leaves & fits_as_corners
    if 2 * int(suspect.sum()) > len(rows):
        width, height = image_size
        raise InputError(
            f"boxes: {_first(rows, suspect)} as x, y, width, height leaves the {width} x {height} "
            'image; are these two corners? Then pass format="xyxy"'
        )
    return corners


def _first(rows: Tensor, bad: Tensor) -> str:
    number = int(bad.nonzero()[0])
    return f"row {number} {rows[number].tolist()}"
