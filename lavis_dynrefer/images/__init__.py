"""What users hand in, brought into the one form the model takes: RGB images, xyxy pixel boxes."""

from __future__ import annotations

from lavis_dynrefer.images.box_checks import MAX_PIXELS
from lavis_dynrefer.images.box_formats import FORMATS, pixel_boxes
from lavis_dynrefer.images.mask_formats import boxes_of_masks
from lavis_dynrefer.images.opening import open_image

__all__ = ["FORMATS", "MAX_PIXELS", "boxes_of_masks", "open_image", "pixel_boxes"]
