"""What users pass in, converted once to what the model takes: RGB images, xyxy pixel boxes."""

from __future__ import annotations

from lavis_dynrefer.images.box_input import BOX_FORMATS, as_boxes, pixel_boxes
from lavis_dynrefer.images.masks import boxes_of_masks
from lavis_dynrefer.images.opening import MAX_PIXELS, ImageInput, open_image

__all__ = [
    "BOX_FORMATS",
    "MAX_PIXELS",
    "ImageInput",
    "as_boxes",
    "boxes_of_masks",
    "open_image",
    "pixel_boxes",
]
