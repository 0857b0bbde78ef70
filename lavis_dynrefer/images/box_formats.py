"""Boxes in any of the usual forms, brought to xyxy in pixels; mixed-up forms are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.box_checks import as_boxes

FORMATS = ("xyxy", "xywh")
SLACK = 0.05  # share of a side by which a good box may leave its image


def pixel_boxes(
    boxes: Any,
    image_size: Sequence[int],
    *,
    format: str = "xyxy",
    normalised: bool | None = None,
) -> Tensor:
    """Boxes as the model takes them.

    Args:
        boxes: (R, 4) list, array or tensor; R may be 0.
        image_size: width and height of the image in pixels.
        format: "xyxy" (two corners) or "xywh" (upper left corner and size).
        normalised: True for shares of the image's width and height, in [0, 1]; False for pixels;
            None for pixels, where boxes that look like shares are refused.

    Returns:
        (R, 4) float32 xyxy in pixels.

    Raises:
        ValueError: another shape, no numbers, not finite, outside the image, or in another form
            than the one named; says which box and what to do.

    >>> pixel_boxes([[0.5, 0.5, 0.25, 0.5]], (40, 20), format="xywh", normalised=True)
    tensor([[20., 10., 30., 20.]])
    """
    if format not in FORMATS:
        raise InputError(f"format: expected one of {list(FORMATS)}, got {format!r}")
    rows = _as_tensor(boxes)
    if not len(rows):
        return rows
    width, height = image_size
    if normalised:
        if (rows > 1 + SLACK).any():
            raise InputError(
                f"boxes: normalised boxes lie in [0, 1], got up to {float(rows.max()):g}; "
                "leave out normalised=True for pixels"
            )
        rows = rows * torch.tensor([width, height, width, height], dtype=torch.float32)
    elif normalised is None and _look_normalised(boxes, rows):
        first = [round(value, 4) for value in rows[0].tolist()]
        raise InputError(
            f"boxes: all values lie in [0, 1], such as {first}; pass normalised=True "
            "if they are shares of the image, normalised=False if they are pixels"
        )
    if format == "xywh":
        rows = _from_sizes(rows, width, height)
    try:
        return as_boxes(rows, image_size=image_size)
    except ValueError as error:
        hint = " " if format == "xywh" else '; pass format="xywh" for x, y, width, height'
        raise InputError(f"{error}{hint.rstrip()}") from error


def _as_tensor(boxes: Any) -> Tensor:
    try:
        rows = torch.as_tensor(np.asarray(boxes, dtype=np.float32))
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"boxes: expected rows of four numbers, got {boxes!r:.200}") from error
    if rows.numel() == 0:
        return rows.reshape(0, 4)
    if rows.ndim != 2 or rows.shape[1] != 4:
        cure = "; one box is a list of one row" if rows.shape == (4,) else ""
        raise InputError(f"boxes: expected shape (R, 4), got {tuple(rows.shape)}{cure}")
    return rows


def _look_normalised(boxes: Any, rows: Tensor) -> bool:
    """Shares are fractions; a one-pixel box in whole numbers is a box."""
    kind = np.asarray(boxes).dtype.kind
    return kind == "f" and bool(((rows >= 0) & (rows <= 1)).all())


def _from_sizes(rows: Tensor, width: int, height: int) -> Tensor:
    if (rows[:, 2:] < 0).any():
        row = int((rows[:, 2:] < 0).any(dim=1).nonzero()[0])
        raise InputError(f"boxes: row {row} {rows[row].tolist()} has a negative width or height")
    corners = torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:]], dim=1)
    limit = torch.tensor([width, height]) * (1 + SLACK)
    leaving = (corners[:, 2:] > limit).any(dim=1)
    within = (rows[:, 2:] <= limit).all(dim=1) & (rows[:, 2:] > rows[:, :2]).all(dim=1)
    if 2 * int((leaving & within).sum()) > len(rows):
        row = int((leaving & within).nonzero()[0])
        raise InputError(
            f"boxes: row {row} {rows[row].tolist()} as x, y, width, height leaves the "
            f'{width} x {height} image; are these two corners? Then pass format="xyxy"'
        )
    return corners
