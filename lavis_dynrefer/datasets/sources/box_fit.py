"""Counts that show in which format the boxes of a file are: those of a wrong one leave images."""

from __future__ import annotations

from lavis_dynrefer.structures import Box, ImageRecord

SLACK = 0.05  # fraction of a side by which a good box may leave its image


class BoxFit:
    """Counts boxes that leave their images.

    Attributes:
        total: boxes seen.
        outside: boxes that leave their image by more than `SLACK`.
        corners: boxes that would fit if x, y, width, height were x1, y1, x2, y2.
        fractions: boxes without a number above 1.
        example: the first box outside, as x, y, width, height.
    """

    def __init__(self) -> None:
        self.total = self.outside = self.corners = self.fractions = 0
        self.example = ""

    def add(self, box: Box, image: ImageRecord) -> None:
        """Count one xyxy box, in pixels if the file is right."""
        x1, y1, x2, y2 = box
        w, h = x2 - x1, y2 - y1
        right, bottom = image.width * (1 + SLACK), image.height * (1 + SLACK)
        self.total += 1
        self.fractions += max(x1, y1, w, h) <= 1
        self.corners += x1 < w <= right and y1 < h <= bottom
        if x2 > right or y2 > bottom:
            self.outside += 1
            size = f"{image.width} x {image.height} pixels"
            self.example = self.example or f"{[x1, y1, w, h]} in image {image.image_id} of {size}"
