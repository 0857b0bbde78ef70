"""Input checks and conversions: RGB images, boxes and masks as xyxy pixel boxes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_dynrefer.images.box_input import BOX_FORMATS, as_boxes, check_format, pixel_boxes
    from lavis_dynrefer.images.decoding import readable_suffixes
    from lavis_dynrefer.images.masks import boxes_of_masks
    from lavis_dynrefer.images.opening import MAX_PIXELS, ImageInput, open_image

__all__ = [
    "BOX_FORMATS",
    "MAX_PIXELS",
    "ImageInput",
    "as_boxes",
    "boxes_of_masks",
    "check_format",
    "open_image",
    "pixel_boxes",
    "readable_suffixes",
]

_MODULES = {  # imported on first use: boxes need torch, images do not
    **dict.fromkeys(("BOX_FORMATS", "as_boxes", "check_format", "pixel_boxes"), "box_input"),
    **dict.fromkeys(("MAX_PIXELS", "ImageInput", "open_image"), "opening"),
    "boxes_of_masks": "masks",
    "readable_suffixes": "decoding",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    globals()[name] = getattr(module, name)
    return globals()[name]
