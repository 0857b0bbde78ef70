"""Counts that show in which format the boxes of a file are: those of a wrong one leave images."""

from __future__ import annotations

from lavis_dynrefer.formats.reading.box_units import FULL_SIDE, UnitEvidence
from lavis_dynrefer.images.boxes import SLACK
from lavis_dynrefer.structures import Box, ImageRecord


class BoxFit:
    """Counts boxes that leave their images.

    Attributes:
        total: boxes seen.
        outside: boxes that leave their image by more than `SLACK`.
        corners: boxes that would fit if x, y, width, height were x1, y1, x2, y2.
        fractions: boxes without a number above 1.
        units: whether they may be percent or thousandths.
        example: the first box outside, as x, y, width, height.
    """

    def __init__(self) -> None:
        self.total = self.outside = self.corners = self.fractions = 0
        self.units = UnitEvidence()
        self.example = ""

    def add(self, box: Box, image: ImageRecord) -> None:
        """Count one xyxy box, in pixels if the file is right."""
        x1, y1, x2, y2 = box
        w, h = x2 - x1, y2 - y1
        right, bottom = image.width * (1 + SLACK), image.height * (1 + SLACK)
        self.total += 1
        self.units.add((x1, y1, w, h), (image.width, image.height), "xywh")
        self.fractions += max(x1, y1, w, h) <= 1
        self.corners += x1 < w <= right and y1 < h <= bottom
        if x2 > right or y2 > bottom:
            self.outside += 1
            size = f"{image.width} x {image.height} pixels"
            self.example = self.example or f"{[x1, y1, w, h]} in image {image.image_id} of {size}"


def in_pixels(box: Box, image: ImageRecord, units: str | None) -> Box:
    """An xyxy box in one of `formats.reading.box_units.UNITS` in pixels; None: it is in pixels.

    >>> in_pixels((10.0, 20.0, 50.0, 100.0), ImageRecord(1, "1.jpg", 640, 480), "percent")
    (64.0, 96.0, 320.0, 480.0)
    """
    if units in (None, "pixels"):
        return box
    full = FULL_SIDE[units]
    x1, y1, x2, y2 = box
    across, down = image.width / full, image.height / full
    return x1 * across, y1 * down, x2 * across, y2 * down
