"""What users hand in, brought into the one form the model takes: RGB pictures, xyxy pixel boxes."""

from __future__ import annotations

from lavis_dynrefer.geometry.checks import MAX_PIXELS
from lavis_dynrefer.inputs.boxes import FORMATS, pixel_boxes
from lavis_dynrefer.inputs.masks import boxes_of_masks
from lavis_dynrefer.inputs.pictures import open_picture

__all__ = ["FORMATS", "MAX_PIXELS", "boxes_of_masks", "open_picture", "pixel_boxes"]
