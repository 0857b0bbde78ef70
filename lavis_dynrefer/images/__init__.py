"""Input checks and conversions: RGB images, boxes and masks as xyxy pixel boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.images.box_input import BOX_FORMATS, as_boxes, check_format, pixel_boxes
    from lavis_dynrefer.images.decoding import readable_suffixes
    from lavis_dynrefer.images.masks import boxes_of_masks
    from lavis_dynrefer.images.opening import MAX_PIXELS, ImageInput, open_image, open_image_bytes

__all__ = [
    "BOX_FORMATS",
    "MAX_PIXELS",
    "ImageInput",
    "as_boxes",
    "boxes_of_masks",
    "check_format",
    "open_image",
    "open_image_bytes",
    "pixel_boxes",
    "readable_suffixes",
]

__getattr__ = lazy_names(  # boxes need torch, images do not
    __name__,
    {
        "box_input": ("BOX_FORMATS", "as_boxes", "check_format", "pixel_boxes"),
        "decoding": ("readable_suffixes",),
        "masks": ("boxes_of_masks",),
        "opening": ("MAX_PIXELS", "ImageInput", "open_image", "open_image_bytes"),
    },
)
