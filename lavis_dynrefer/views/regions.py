"""The regions of an image: checked boxes, and masks for some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.box_input import pixel_boxes
from lavis_dynrefer.images.mask_cover import check_inside, checked_masks, tight_boxes

MASKS_AS = ("box", "cells", "dim")  # what a mask can be used as; see `Questions`


def check_masks_as(name: Any) -> None:
    """Refuse what is neither one of `MASKS_AS` nor None.

    Raises:
        InputError: says what the choices are.
    """
    if name is not None and name not in MASKS_AS:
        raise InputError(f"masks_as: expected one of {list(MASKS_AS)}, got {name!r}")


@dataclass(frozen=True)
class Regions:
    """Regions of one image; a slice of them are regions, too.

    Args:
        boxes: (R, 4) xyxy in pixels, checked.
        masks: R masks as for `images.boxes_of_masks`, None for a region without one; or None.
    """

    boxes: Tensor
    masks: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: slice) -> Regions:
        return Regions(self.boxes[rows], None if self.masks is None else self.masks[rows])


BoxesOrRegions = Union[Tensor, Regions]  # boxes (R, 4), checked, are regions without masks


def as_regions(given: BoxesOrRegions) -> Regions:
    """Regions as they are, boxes as regions without masks."""
    return given if isinstance(given, Regions) else Regions(given)


def checked_regions(
    boxes: Any,
    masks: Sequence[Any] | None,
    image_size: Sequence[int],
    *,
    format: str = "xyxy",
    normalised: bool | None = None,
) -> Regions:
    """Check boxes, masks, or both.

    Args:
        boxes: (R, 4), see `images.pixel_boxes`; None: the tight boxes of the masks.
        masks: R masks, see `images.boxes_of_masks`; with boxes, None for a region without one.
        image_size: width and height in pixels.
        format: of the boxes.
        normalised: see `images.pixel_boxes`.

    Raises:
        InputError: invalid boxes or masks, another number of them, or a mask outside of its box.
    """
    if masks is None:
        return Regions(pixel_boxes(boxes, image_size, format=format, normalised=normalised))
    checked = checked_masks(masks, image_size)
    if boxes is None:
        return Regions(pixel_boxes(tight_boxes(checked), image_size, normalised=False), checked)
    found = pixel_boxes(boxes, image_size, format=format, normalised=normalised)
    if len(found) != len(checked):
        raise InputError(f"masks: expected one for each of {len(found)} boxes, got {len(checked)}")
    check_inside(checked, found)
    return Regions(found, checked)
